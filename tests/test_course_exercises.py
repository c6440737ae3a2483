"""How exercises are shown, compared and borrowed; test_exercises.py solves each of them."""

import ast
import functools
import re
import sys
import types

import pytest
import torch
from test_repository import words

from transformer import checks
from transformer.checks.claims import CheckError
from transformer.course import borrow, report
from transformer.course.chapters import chapter, task_cells
from transformer.course.exercise import FindBug, WriteBlock
from transformer.course.exercises import all_exercises, exercise, of_chapter
from transformer.course.folder import Folder, State
from transformer.course.hunts import bug_text, with_library
from transformer.course.judging import difference, judge
from transformer.course.lessons import LESSONS, definition, lesson, source
from transformer.course.stub_text import emptied, progress, starter
from transformer.course.stubs import is_borrowed, is_empty

TASK_WORDS = 160  # more than for prose: a task lists what is wanted
EXERCISES = all_exercises()
each = pytest.mark.parametrize("name", [one.id for one in EXERCISES])


@each
def test_a_task_is_short_enough_for_a_cell(name: str) -> None:
    one = exercise(name)
    seeds = range(20) if isinstance(one, FindBug) else [0]
    for seed in seeds:
        cells = task_cells(one, Folder("mine", State("mine", seed)))
        assert [cell.source for cell in cells if words(cell.source) > TASK_WORDS] == []
    assert max(map(len, one.task.splitlines())) <= 100


@pytest.mark.parametrize("number", sorted({one.chapter for one in EXERCISES}))
def test_a_reader_meets_the_exercises_in_the_order_of_their_numbers(number: int) -> None:
    notebook = chapter(Folder("mine", State("mine")), lesson(number), LESSONS)
    text = "\n".join(cell.source for cell in notebook.cells)
    ids = re.findall(r"^### Exercise (\d+\.\d+) ", text, re.MULTILINE)
    assert ids == [one.id for one in of_chapter(number)]


@pytest.mark.parametrize("name", [one.id for one in EXERCISES if isinstance(one, WriteBlock)])
def test_an_emptied_block_is_borrowed(name: str) -> None:
    one = exercise(name)
    about = lesson(one.chapter)
    text = emptied(source(about.module, one.target.partition(".")[0]), one.target, one.keep)
    copy = types.ModuleType(f"copied.{about.module}")
    sys.modules[copy.__name__] = copy
    try:
        vars(copy).update(vars(about.load()), __name__=copy.__name__, borrow=borrow)
        exec(text, vars(copy))
        answer = getattr(copy, one.target.partition(".")[0])
        target = definition(ast.parse(text), one.target)
        assert "@borrow" in text and "..." in ast.unparse(target)
        parts = one.target.split(".")[1:]
        assert is_borrowed(functools.reduce(getattr, parts, answer))
    finally:
        del sys.modules[copy.__name__]


@pytest.mark.parametrize("name", [one.id for one in EXERCISES if "." in getattr(one, "target", "")])
def test_a_method_that_is_borrowed_alone_does_not_call_super(name: str) -> None:
    one = exercise(name)
    assert "super()" not in source(lesson(one.chapter).module, one.target)


@pytest.mark.parametrize("name", [one.id for one in EXERCISES if isinstance(one, FindBug)])
def test_a_hunt_gives_out_each_bug_and_no_secret(name: str) -> None:
    one = exercise(name)
    assert {one.bug(seed) for seed in range(1, 300)} == set(one.bugs)
    assert one.bug() == one.bugs[0]
    for seed in range(1, 40):
        text = bug_text(one, seed)
        assert definition(ast.parse(text), one.name)
        assert not [secret for secret in ("CHECK", "CAUGHT_BY", "wrong") if secret in text]


def test_hints_come_in_order_and_end_with_the_solution_and_its_reason() -> None:
    for one in EXERCISES:
        state = State("mine")
        first, second, third, again = (report.hint(one.id, state) for _ in range(4))
        assert "Hint 1 of 3" in first and "Hint 2 of 3" in second
        assert third == again == report.solution(one.id)
        assert third.endswith(one.why.strip())
    with pytest.raises(ValueError, match=r"no exercise 99\.9"):
        exercise("99.9")


def test_a_test_that_refuses_what_is_right_is_refused() -> None:
    before = torch.get_rng_state()
    with pytest.raises(CheckError, match="refuses an implementation that is right: NameError"):
        judge(exercise("3.5"), lambda implementation: nonsense)  # noqa: F821
    assert torch.get_rng_state().equal(before)


@each
def test_what_is_given_is_code(name: str) -> None:
    one = exercise(name)
    if not isinstance(one, WriteBlock):
        ast.parse(starter(one))
        assert one.name in starter(one)
    ast.parse(report.solution_text(one))


def test_a_bug_does_not_take_the_names_of_the_learners_own_blocks() -> None:
    text = """import torch

from transformer.multi_head import MultiHeadAttention


class wrong(MultiHeadAttention):
    def forward(self, x, memory, mask=None):  # MultiHeadAttention
        return MultiHeadAttention.forward(self, x, "è", MultiHeadAttention(4, 2)(x, memory))
"""
    found = with_library(text)
    assert "from transformer import multi_head as library\n" in found
    assert "class wrong(library.MultiHeadAttention):" in found and "# MultiHead" in found
    assert 'library.MultiHeadAttention.forward(self, x, "è", library.MultiHeadAttention(' in found
    two = with_library("from transformer.a import f\nfrom transformer.b.c import (\n g,\n)\nf(g)\n")
    assert two.split("\n") == [
        "from transformer import a as library_a",
        "from transformer.b import c as library_c",
        "",
        "",
        "library_a.f(library_c.g)",
    ]


# --- lessons --------------------------------------------------------------------------------------


def test_lessons_are_the_chapters_in_order() -> None:
    from test_layout import FORMATS, ROOT, pairs

    found = {one.notebook: one.module for one in LESSONS if one.number}
    assert found == pairs(FORMATS)
    rows = (ROOT / "README.md").read_text(encoding="utf-8")
    for one in LESSONS:
        assert re.search(rf"{one.notebook}\.ipynb\).*\| {one.minutes} \|", rows), one
        assert all(other < one.number for other in one.needs)
    with pytest.raises(ValueError, match="there is no chapter 17, only 0, 1"):
        lesson(17)


def test_a_lesson_names_every_chapter_that_it_imports() -> None:
    from test_layout import LINKS, reachable

    def needed(number: int) -> set[int]:
        return {number}.union(*(needed(n) for n in lesson(number).needs))

    numbers = {one.module: one.number for one in LESSONS}
    for one in LESSONS:
        imported = {numbers[name] for name in reachable(one.module, LINKS) if name in numbers}
        assert imported <= needed(one.number), one


# --- what is compared -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "want", "found"),
    [
        (0.421, 0.4223, ""),
        (1, 1.0, ""),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0], ""),
        ((1, [2, 3]), [1, [2, 3]], ""),
        (0.5, 0.4223, "the answer is 0.5, which is not right"),
        ([1, 2], [1, 3], "item 2 of the answer is 2, which is not right"),
        ([1, ...], [1, 3], "item 2 of the answer is still ..."),
        ([1], [1, 3], "the answer must be a list of 2, not [1]"),
        (3, [1, 3], "the answer must be a list of 2, not 3"),
        ("a", 1.0, "the answer must be a number, not 'a'"),
        (True, 1.0, "the answer must be a number, not True"),
        (1, True, "the answer is 1, which is not right"),
        (float("nan"), 1.0, "the answer is nan, which is not right"),
        ("b", "a", "the answer is 'b', which is not right"),
    ],
)
def test_values_are_compared(got: object, want: object, found: str) -> None:
    from transformer.course.judging import plain

    assert difference(plain(got), want, 0.01) == found


# --- borrowing ------------------------------------------------------------------------------------


def test_a_function_that_is_written_is_not_touched() -> None:
    def causal_mask(t):
        return t

    assert borrow(causal_mask) is causal_mask
    assert not is_borrowed(causal_mask) and not is_empty(causal_mask)


def test_what_no_chapter_defines_cannot_be_borrowed() -> None:
    def nothing(): ...

    with pytest.raises(ValueError, match="no chapter defines"):
        borrow(nothing)


@pytest.fixture
def chapter_of_mine():
    """A module as a notebook's kernel has it: what is defined there is in __main__."""
    found = types.ModuleType("mine_main")
    sys.modules["mine_main"] = found
    yield vars(found)
    del sys.modules["mine_main"]


def test_what_is_borrowed_calls_what_the_learner_has_written(chapter_of_mine: dict) -> None:
    text = """
from transformer.residual_norm import *
from transformer.residual_norm import Float, Tensor, nn, torch, F, Callable
from transformer.course import borrow
class LayerNorm(nn.Identity):
    def __init__(self, d_model): super().__init__()
@borrow
class PostNorm(nn.Module):
    "Wrap."
    def __init__(self, d_model, dropout=0.0):
        ...
    def forward(self, x, sublayer):
        return 5
"""
    exec(text, chapter_of_mine)
    block = chapter_of_mine["PostNorm"](4)
    assert isinstance(block.norm, chapter_of_mine["LayerNorm"])
    x = torch.ones(1, 2, 4)
    assert block(x, lambda y: y).equal(2 * x), "a class with one empty method is borrowed whole"
    left = progress(text, "PostNorm")
    assert left == "the whole class is borrowed as long as a method is empty: __init__"


def test_an_error_in_what_is_borrowed_shows_the_library(chapter_of_mine: dict) -> None:
    exec("from transformer.course import borrow", chapter_of_mine)
    with pytest.raises(NameError) as caught:
        exec("@borrow\ndef causal_mask(t, device=None): ...", chapter_of_mine)
    assert caught.traceback[-1].path.name == "decoder.py"


def test_empty_is_what_does_nothing() -> None:
    def documented():
        """Say something."""
        ...

    def passing():
        pass

    def one():
        return 1

    class Half:
        def first(self): ...

        @classmethod
        def second(cls):
            return 1

    class Written:
        value = 1

        @property
        def second(self):
            return 1

    assert [is_empty(x) for x in (documented, passing, one, Half, Written, 3, print)] == [
        True, True, False, True, False, False, False
    ]  # fmt: skip


def test_every_check_that_blocks_name_exists() -> None:
    for one in EXERCISES:
        if isinstance(one, WriteBlock) and isinstance(one.check, str):
            assert callable(getattr(checks, one.check))
