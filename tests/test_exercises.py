"""Every exercise can be solved, and its judge refuses what is wrong."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

import transformer
from transformer import checks, zoo
from transformer.checks.claims import seeded
from transformer.course import judging, lessons, stub_text
from transformer.course.exercise import (
    Answer,
    Bug,
    Exercise,
    FindBug,
    Predict,
    WriteBlock,
    WriteTest,
)
from transformer.course.exercises import all_exercises, exercise_table

Kind = TypeVar("Kind", bound=Exercise)
OTHER_SEEDS = (1, 2, 3)

COUNTS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TYPES = {"truth value": bool, "number": (int, float), "text": str, "word": str, "list": list}
FORM = re.compile(rf"(a|{'|'.join(COUNTS)}) (?:whole )?({'|'.join(TYPES)})s?\b")


def of_kind(kind: type[Kind]) -> list[Kind]:
    return [found for found in all_exercises() if isinstance(found, kind)]


def each(found: list) -> pytest.MarkDecorator:
    """Run a test for each of these exercises, under its id."""
    return pytest.mark.parametrize("exercise", found, ids=lambda exercise: exercise.id)


def has_form(value: Any, form: str) -> bool:
    """Return whether a value is what its form says, such as "five truth values"."""
    described = FORM.match(form)
    if described is None:
        return False
    count = max(1, COUNTS.index(described[1]) if described[1] in COUNTS else 1)
    wanted = TYPES[described[2]]
    parts = value if isinstance(value, list) and (count > 1 or wanted is list) else [value]
    if wanted is list and count == 1:
        parts = [value]
    right = all(isinstance(part, wanted) for part in parts)
    truths = wanted is bool or not any(isinstance(part, bool) for part in parts)
    return right and truths and len(parts) == count


def namespace(exercise: Exercise) -> dict[str, Any]:
    """Return the names that a cell of the chapter can use."""
    lesson = lessons.lesson(exercise.chapter)
    names: dict[str, Any] = {"torch": torch, "__name__": "__main__"}
    if lesson.number:
        names |= {k: v for k, v in vars(lesson.load()).items() if not k.startswith("__")}
    return names


# --- all ------------------------------------------------------------------------------------------


def test_the_exercises_of_a_chapter_are_numbered_from_1() -> None:
    ids = [found.id for found in all_exercises()]
    chapters = Counter(found.chapter for found in all_exercises())
    assert ids == [
        f"{chapter}.{n}" for chapter in chapters for n in range(1, chapters[chapter] + 1)
    ]
    assert list(chapters) == sorted(chapters), "chapters are in order"


@each(list(all_exercises()))
def test_an_exercise_says_all_that_a_learner_is_shown(exercise: Exercise) -> None:
    idea, shapes = exercise.hints
    texts = [exercise.title, exercise.trains, exercise.task, exercise.why, idea, shapes]
    assert all(text.strip() for text in texts)
    assert len(set(texts)) == len(texts)
    assert 1 <= exercise.difficulty <= 3
    assert exercise.minutes > 0
    assert ("{symptom}" in exercise.task) == isinstance(exercise, FindBug)
    assert all(len(line) <= 100 for text in texts[2:4] for line in text.splitlines())


# --- write the block ------------------------------------------------------------------------------


@each(of_kind(WriteBlock))
def test_the_block_of_the_library_passes_its_check(exercise: WriteBlock) -> None:
    judging.judge(exercise, judging.reference(exercise))


@each(of_kind(WriteBlock))
def test_the_block_is_defined_in_a_cell_of_its_chapter(exercise: WriteBlock) -> None:
    module = lessons.lesson(exercise.chapter).module
    text = lessons.source(module, exercise.target)
    emptied = stub_text.emptied(text, exercise.target.rpartition(".")[2], exercise.keep)
    first, _, rest = emptied.partition("\n")
    assert first == "@borrow"
    assert rest.strip() != text.strip(), "nothing is left to be written"


# --- predict and by hand --------------------------------------------------------------------------


@each(of_kind(Answer))
def test_a_solution_is_right_has_the_form_it_says_and_is_always_the_same(exercise: Answer) -> None:
    value = judging.plain(exercise.solution())
    assert has_form(value, exercise.form), f"{value} is not {exercise.form}"
    judging.judge(exercise, value)
    torch.manual_seed(1)
    assert not judging.difference(judging.plain(exercise.solution()), value, 1e-9)


@each(of_kind(Answer))
def test_each_usual_mistake_is_refused_by_its_sentence(exercise: Answer) -> None:
    assert exercise.mistakes, "no answer is ever explained"
    for cause, wrong in exercise.mistakes.items():
        assert has_form(judging.plain(wrong), exercise.form), f"{wrong} is not {exercise.form}"
        with pytest.raises(checks.CheckError, match=re.escape(cause)):
            judging.judge(exercise, wrong)


@each(of_kind(Predict))
def test_what_is_run_after_a_prediction_runs_in_a_cell_of_the_chapter(exercise: Predict) -> None:
    names = namespace(exercise)
    exec(compile(exercise.given, exercise.id, "exec"), names)
    exec(compile(stub_text.experiment(exercise), exercise.id, "exec"), names)


# --- find the bug ---------------------------------------------------------------------------------

BUGS = [(found, bug) for found in of_kind(FindBug) for bug in found.bugs]
each_bug = pytest.mark.parametrize(
    ("exercise", "bug"), BUGS, ids=[f"{found.id}-{bug.member}" for found, bug in BUGS]
)


@each_bug
def test_a_bug_that_is_given_out_runs_and_fails_the_check(exercise: FindBug, bug: Bug) -> None:
    member = zoo.member(bug.member)
    first = zoo.member(exercise.bugs[0].member)
    assert (member.check, member.options) == (first.check, first.options)
    names = namespace(exercise)
    seed = next(seed for seed in range(1000) if exercise.bug(seed) == bug)
    text = stub_text.starter(exercise, seed)
    assert member.sentence not in text
    assert bug.symptom in stub_text.task_text(exercise, seed)
    exec(compile(text, exercise.id, "exec"), names)
    with pytest.raises(checks.CheckError):
        judging.judge(exercise, names[exercise.name])


@each(of_kind(FindBug))
def test_what_is_right_mends_a_bug(exercise: FindBug) -> None:
    assert len({bug.member for bug in exercise.bugs}) == len(exercise.bugs) > 1
    judging.judge(exercise, judging.reference(exercise))


# --- write the test -------------------------------------------------------------------------------


@each(of_kind(WriteTest))
def test_the_test_of_the_library_accepts_what_is_right_and_finds_enough(
    exercise: WriteTest,
) -> None:
    judging.judge(exercise, exercise.solution)
    for seed in OTHER_SEEDS:  # as a grader does
        with seeded(seed):
            judging.judge(exercise, exercise.solution)


@each(of_kind(WriteTest))
def test_a_test_that_claims_nothing_finds_nothing(exercise: WriteTest) -> None:
    def claims_nothing(implementation: Any) -> None:
        assert True

    found = [caught for _, caught in judging.verdicts(exercise, claims_nothing)]
    assert not any(found)
    assert exercise.at_least <= len(found)
    with pytest.raises(checks.CheckError, match=f"finds 0 of {len(found)} known mistakes"):
        judging.judge(exercise, claims_nothing)


# --- the tests themselves -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (3, "a number"),
        (0.5, "one number"),
        ([1, 2.5], "two numbers: the first and the second"),
        ([True, False, True], "three truth values"),
        ("cat", "a word"),
        ([1, 2, 3], "a list of three numbers"),
        ([[1], [2, 3]], "two lists of numbers"),
    ],
)
def test_a_form_is_understood(value: Any, form: str) -> None:
    assert has_form(value, form)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (3, "a truth value"),
        (True, "a number"),
        ([1, 2], "three numbers"),
        ([1, True], "two numbers"),
        ([True, 1], "two truth values"),
        ("cat", "a number"),
        ([1, 2], "two lists of numbers"),
        (3, "what you think"),
    ],
)
def test_a_value_of_another_form_is_seen(value: Any, form: str) -> None:
    assert not has_form(value, form)


@pytest.mark.parametrize("number", sorted({found.chapter for found in all_exercises()}))
def test_a_chapter_lists_its_exercises(number: int) -> None:
    path = Path(transformer.__file__).parent / f"{lessons.lesson(number).module}.py"
    prose = re.sub(r"^# ?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert f"\n{exercise_table(number)}\n" in prose
