"""Failures that courses of this kind are known for, over all chapters: no check is fooled.

A course that checks its own code instead of the learner's, counts a missing notebook as a pass,
overwrites work, or believes what only a kernel knows, is worse than one without checks.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from learners import module, place, write

from transformer.course import home, workbook
from transformer.course.bench import Bench
from transformer.course.examine import Examiner
from transformer.course.exercise import Answer, FindBug, WriteTest
from transformer.course.exercises import all_exercises, exercise, of_chapter
from transformer.course.folder import Folder
from transformer.course.lessons import LESSONS, lesson
from transformer.course.rows import BROKEN, MISSING, Row
from transformer.course.running import examine
from transformer.course.stub_text import starter
from transformer.course.workbook import start

pytestmark = pytest.mark.slow  # part of `make learners`

EXERCISES = all_exercises()
NAMES = [one.id for one in EXERCISES]
CHAPTERS = sorted({one.chapter for one in EXERCISES})

Examine = Callable[..., dict[str, Row]]


@pytest.fixture
def rows(mine: Path) -> Iterator[Examine]:
    """Examine exercises in this process, each time from what is saved."""

    def run(*names: str) -> dict[str, Row]:
        home.forget("mine")
        examiner = Examiner(Folder.open(mine), Bench(mine, "mine", lambda module: None))
        return {name: examiner.row(exercise(name)) for name in names}

    yield run
    home.forget("mine")


def wrong(name: str) -> str:
    """Return an answer that is the learner's own, and wrong."""
    one = exercise(name)
    if isinstance(one, Answer):
        return f'{one.name} = "something else"'
    if isinstance(one, WriteTest):
        return f"def {one.name}(implementation):\n    assert implementation"
    if isinstance(one, FindBug):  # as it was given, but for a line that does nothing
        text = starter(one)
        start, end = place(text, one.name)
        lines = text.splitlines()[start:end]
        column = re.match(" *", lines[-1])
        return "\n".join([*lines, f"{column and column[0]}unused = 1"])
    return raises(one.name.partition(".")[2] or one.name)


def raises(name: str) -> str:
    """Return a block that does nothing but raise; as a class, when it is made."""
    text = 'raise RuntimeError("this is mine")'
    if name[0].isupper():
        return (
            f"class {name}(nn.Module):\n    def __init__(self, *args, **options):\n        {text}"
        )
    return f"def {name}(*args, **options):\n    {text}"


@pytest.mark.parametrize("number", CHAPTERS)
def test_whatever_the_exercise_a_wrong_answer_of_the_learners_is_broken(
    mine: Path, rows: Examine, number: int
) -> None:
    """It is the learner's code that runs: each block says so itself."""
    for one in of_chapter(number):
        before = module(mine, one.id).read_text(encoding="utf-8")
        write(mine, one.id, wrong(one.id))
        row = rows(one.id)[one.id]
        assert row.state == BROKEN
        assert one.kind != "write the block" or "this is mine" in row.claim
        module(mine, one.id).write_text(before, encoding="utf-8")


@pytest.mark.parametrize("number", CHAPTERS)
@pytest.mark.parametrize(
    ("line", "claim"),
    [
        ("def half(:", "line {line}: invalid syntax"),
        ("kept = defined_in_a_cell_that_is_gone", "In a fresh process there is only what"),
    ],
    ids=["syntax error", "only in the kernel"],
)
def test_a_module_that_only_a_warm_kernel_can_run_passes_nothing(
    mine: Path, rows: Examine, number: int, line: str, claim: str
) -> None:
    names = [one.id for one in of_chapter(number)]
    for name in names:
        write(mine, name)
    path = mine / f"{lesson(number).module}.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}{line}\n", encoding="utf-8")
    where = claim.format(line=len(text.splitlines()) + 1)
    found = rows(*names)
    assert {row.state for row in found.values()} == {BROKEN}
    assert all(where in row.claim for row in found.values())


def test_without_its_notebook_no_chapter_passes(mine: Path) -> None:
    for name in NAMES:
        write(mine, name)
    for path in (mine / "notebooks").glob("*.ipynb"):
        path.unlink()
    found = examine(Folder.open(mine), NAMES)
    assert {row.state for row in found} == {MISSING}
    assert all("`course start mine` restores it" in row.claim for row in found)


@pytest.mark.parametrize("renamed", [False, True], ids=["deleted", "renamed"])
@pytest.mark.parametrize("number", CHAPTERS)
def test_a_cell_that_was_deleted_or_renamed_is_named_and_its_neighbours_are_not(
    mine: Path, rows: Examine, number: int, renamed: bool
) -> None:
    names = [one.id for one in of_chapter(number)]
    before = module(mine, names[0]).read_text(encoding="utf-8")
    others = {name: row.state for name, row in rows(*names).items()}
    for name in names:
        take_away(mine, name, renamed)
        row = rows(name)[name]
        assert row.state == MISSING or (row.state == BROKEN and "NameError" in row.claim), row
        assert exercise(name).name.partition(".")[0] in row.claim
        module(mine, name).write_text(before, encoding="utf-8")
    assert {name: row.state for name, row in rows(*names).items()} == others


def take_away(folder: Path, name: str, renamed: bool) -> None:
    """Delete the cell of an answer, or call what it defines by another name."""
    path = module(folder, name)
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    first, end = place(text, exercise(name).name)
    kept: list[str] = []
    if renamed:
        last = exercise(name).name.rpartition(".")[2]
        kept = [re.sub(rf"\b{last}\b", f"{last}_2", line) for line in lines[first:end]]
        kept = [line for line in kept if "@borrow" not in line]
    lines[first:end] = kept
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_an_update_of_every_chapter_arrives_beside_what_was_changed(mine, monkeypatch) -> None:
    real = workbook.chapter

    def newer(folder, one, lessons):
        notebook = real(folder, one, lessons)
        notebook.cells[-1].source += "\n# a new version"
        return notebook

    for name in NAMES:
        write(mine, name)
    files = [*mine.glob("*.py"), *mine.glob("notebooks/*.ipynb")]
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setattr(workbook, "chapter", newer)
    done = {one.lesson.number: one.action for one in start(mine)[1]}
    assert {number: done[number] for number in CHAPTERS} == dict.fromkeys(CHAPTERS, "beside")
    changed = {path for path in files if path.read_bytes() != before[path]}
    untouched = {one.module for one in LESSONS if one.number not in CHAPTERS}
    assert {path.stem.partition("_")[2] or path.stem for path in changed} <= {
        name.partition("_")[2] for name in untouched
    } | untouched


@pytest.mark.parametrize("number", CHAPTERS)
def test_a_chapter_imports_none_after_it(started: Path, number: int) -> None:
    """What its checks need is tested with the solutions, in test_learners.py."""
    later = {one.module for one in LESSONS if one.number > number}
    tree = ast.parse((started / f"{lesson(number).module}.py").read_text(encoding="utf-8"))
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [name for name in imported if name and name.rpartition(".")[2] in later] == []
