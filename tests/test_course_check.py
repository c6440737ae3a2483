"""`course check`: it runs what the learner has saved, and its table is true."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from learners import write

from transformer.cli import main
from transformer.course import examine as examination
from transformer.course import exercises, home, running, watching
from transformer.course.bench import Bench
from transformer.course.exercise import WriteBlock
from transformer.course.exercises import of_chapter
from transformer.course.folder import Folder
from transformer.course.rows import Row, count, share
from transformer.course.running import Limits

CHAPTER = [one.id for one in of_chapter(3)]
OVER_QUERIES = """
def attention_weights(q, k, mask=None):
    scores = torch.einsum("...qd,...kd->...qk", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, dim=-2)
"""


def check(path: Path, *what: str) -> dict[str, Row]:
    """Examine exercises in fresh processes, and return the rows by exercise."""
    rows = running.examine(Folder.open(path), what or CHAPTER, Limits(60.0))
    return {row.exercise: row for row in rows}


def states(rows: dict[str, Row]) -> list[str]:
    return [row.state for row in rows.values()]


# --- whole folders --------------------------------------------------------------------------------


def test_an_untouched_folder_is_borrowed_and_scores_0(mine: Path, capsys) -> None:
    assert main(["course", "check", "3", "--folder", str(mine)]) == 0
    said = capsys.readouterr().out
    assert "0 of 5 yours · 1 borrowed · 4 empty · 0 % of the blocks are yours" in said
    assert "The attention weights (write the block)" in said


def test_with_the_solutions_everything_is_theirs(mine: Path, capsys) -> None:
    for name in CHAPTER:
        write(mine, name)
    assert main(["course", "check", "3", "--folder", str(mine)]) == 0
    said = capsys.readouterr().out
    assert "5 of 5 yours · 100 % of the blocks are yours" in said
    assert re.search(r"it finds \d+ of \d+ known mistakes", said), "of the test that is theirs"
    assert "3.1 is right." in said and "Keys are hidden *before* the softmax" in said
    assert Folder.open(mine).state.passed == CHAPTER
    notebook = (mine / "notebooks" / "03_attention.ipynb").read_text(encoding="utf-8")
    assert "masked_fill(~mask" in notebook, "the notebook has what was written in the module"


@pytest.fixture(scope="module")
def half_done(started: Path, tmp_path_factory) -> dict[str, Row]:
    """The rows of a folder in which each exercise of chapter 3 went wrong in its own way."""
    import shutil

    path = Path(shutil.copytree(started, tmp_path_factory.mktemp("half") / "mine"))
    write(path, "3.1", OVER_QUERIES)
    write(path, "3.2", "")
    write(path, "3.3", "answer_3_3 = [0.468, 0.468, 0.063, 0, 14.05]")
    write(path, "3.5", "def test_3_6(implementation):\n    assert False")
    return check(path)


def test_a_wrong_block_is_broken_and_its_mistake_is_named(half_done: dict[str, Row]) -> None:
    row = half_done["3.1"]
    assert row.state == "broken"
    assert "attention weights: on q 2×3×5×4 float32" in row.claim
    assert "The softmax runs over the queries" in row.diagnosis


def test_a_deleted_and_a_renamed_cell_are_missing(half_done: dict[str, Row]) -> None:
    for name, gone in (("3.2", "answer_3_2"), ("3.5", "test_3_5")):
        assert half_done[name].state == "missing"
        assert f"{gone} is not in mine/attention.py: was its cell deleted" in half_done[name].claim


def test_a_wrong_value_is_broken_and_a_bug_as_it_was_given_is_empty(half_done) -> None:
    assert half_done["3.3"].state == "broken"
    assert "not divided by √d" in half_done["3.3"].claim
    assert half_done["3.4"].state == "empty"
    assert count(half_done.values()) == dict(yours=0, borrowed=0, empty=1, broken=2, missing=2)
    assert share(half_done.values()) == 0


def test_a_missing_notebook_is_no_pass_even_if_its_module_is_there(mine: Path, capsys) -> None:
    for name in CHAPTER:
        write(mine, name)
    (mine / "notebooks" / "03_attention.ipynb").unlink()
    assert main(["course", "check", "3", "--folder", str(mine)]) == 1
    said = capsys.readouterr().out
    assert "0 of 5 yours · 5 missing" in said and "`course start mine` restores it" in said


# --- earlier and later chapters -------------------------------------------------------------------

HEADS = WriteBlock(
    id="4.1", title="Heads", minutes=1, difficulty=1, trains="x", task="x", hints=("x", "x"),
    why="x", target="MultiHeadAttention", check="check_multi_head",
)  # fmt: skip
LAYER = WriteBlock(
    id="7.1", title="Layer", minutes=1, difficulty=1, trains="x", task="x", hints=("x", "x"),
    why="x", target="EncoderLayer", check="check_encoder_layer",
)  # fmt: skip

Examine = Callable[..., dict[str, Row]]


@pytest.fixture
def examine(mine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Examine]:
    """Examine blocks of chapters 3, 4 and 7 in this process."""
    blocks = {one.id: one for one in (of_chapter(3)[0], HEADS, LAYER)}
    for place in (exercises, examination):
        monkeypatch.setattr(place, "all_exercises", lambda: tuple(blocks.values()))

    def run(*names: str) -> dict[str, Row]:
        bench = Bench(mine, "mine", lambda module: None)
        examiner = examination.Examiner(Folder.open(mine), bench)
        rows = [examiner.row(blocks[name]) for name in names]
        return {row.exercise: replace(row, diagnosis=examiner.diagnosis(row)) for row in rows}

    yield run
    home.forget("mine")


def block_written(path: Path, target: str) -> None:
    """Write a block that the started folder may have emptied, as the library has it."""
    import learners

    from transformer.course.lessons import defining_module, source

    module = path / f"{defining_module(target)}.py"
    text = module.read_text(encoding="utf-8")
    lines = text.splitlines()
    start, end = learners.place(text, target)
    lines[start:end] = source(module.stem, target).splitlines()
    module.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def written(mine: Path) -> Path:
    """A folder in which the blocks of chapters 4 and 7 are written."""
    block_written(mine, "MultiHeadAttention")
    block_written(mine, "EncoderLayer")
    return mine


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_checks_of_a_chapter_need_no_later_chapter(written: Path, examine: Examine) -> None:
    for name in ("encoder", "decoder", "model", "inference"):
        (written / f"{name}.py").write_text("this is no Python")
    (written / "residual_norm.py").unlink()
    assert states(examine("3.1", "4.1")) == ["borrowed", "yours"]


def test_a_broken_earlier_module_is_replaced_and_named(written: Path, examine: Examine) -> None:
    spoil(written / "multi_head.py", "class MultiHeadAttention(nn.Module):", "class Multi Head:")
    rows = examine("3.1", "4.1", "7.1")
    assert states(rows) == ["borrowed", "broken", "yours"]
    assert "invalid syntax: class Multi Head:" in rows["4.1"].claim
    assert rows["7.1"].note.startswith("with the library's chapter 4 (mine/multi_head.py, line")


def test_a_wrong_earlier_block_is_named_as_the_cause(written: Path, examine: Examine) -> None:
    path = written / "multi_head.py"
    text = path.read_text(encoding="utf-8")
    by_view = "return x.reshape(len(x), self.n_heads, x.shape[1], -1)"
    path.write_text(re.sub(r'return rearrange\(x, "b t \([^\n]*', by_view, text), encoding="utf-8")
    rows = examine("4.1", "7.1")
    assert states(rows) == ["broken", "yours"]
    assert "The heads are split by view" in rows["4.1"].diagnosis
    assert rows["7.1"].note == "right by itself, but your 4.1 (MultiHeadAttention) is broken"


def test_a_wrong_block_is_broken_whatever_comes_before(written: Path, examine: Examine) -> None:
    spoil(written / "encoder.py", "for _ in range(2)", "for _ in range(3)")
    spoil(
        written / "encoder.py",
        "residual_1, residual_2 = self.residuals",
        "residual_2, residual_1, _ = self.residuals",
    )
    rows = examine("7.1")
    assert states(rows) == ["broken"]


def test_passing_in_a_warm_kernel_is_not_passing(mine: Path, examine: Examine) -> None:
    """The helper was defined in a cell that is gone, so only the kernel still has it."""
    write(mine, "3.1", "def attention_weights(q, k, mask=None):\n    return helper(q, k, mask)")
    row = examine("3.1")["3.1"]
    assert row.state == "broken" and "name 'helper' is not defined" in row.claim
    home.forget("mine")
    write(mine, "3.1", "attention_weights = helper")
    row = examine("3.1")["3.1"]
    assert row.state == "broken" and "NameError: name 'helper' is not defined" in row.claim
    assert "In a fresh process there is only what the module itself" in row.claim


def test_a_syntax_error_is_reported_and_never_a_pass(mine: Path, examine: Examine) -> None:
    write(mine, "3.1", "def attention_weights(q, k, mask=None:\n    return q")
    row = examine("3.1")["3.1"]
    assert row.state == "broken"
    where = r"mine/attention.py, line \d+: .*: def attention_weights\(q, k, mask=None:"
    assert re.fullmatch(where, row.claim)


def test_a_call_of_exit_is_reported(mine: Path, examine: Examine) -> None:
    write(mine, "3.1", "def attention_weights(q, k, mask=None):\n    raise SystemExit(0)")
    assert examine("3.1")["3.1"].claim == "it calls sys.exit"


def test_what_is_taken_from_the_library_is_not_theirs(mine: Path, examine: Examine) -> None:
    write(mine, "3.1", "from transformer.attention import attention_weights")
    assert states(examine("3.1")) == ["borrowed"]


def test_an_empty_body_without_borrow_is_broken(mine: Path, examine: Examine) -> None:
    write(mine, "3.1", "def attention_weights(q, k, mask=None): ...")
    assert "@borrow is gone" in examine("3.1")["3.1"].claim


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("import sys\nsys.exit()", "mine/attention.py calls sys.exit when it is imported"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(mine: Path, examine, text, claim) -> None:
    with open(mine / "attention.py", "a", encoding="utf-8") as file:
        file.write(text)
    row = examine("3.1")["3.1"]
    assert row.state == "broken" and claim in row.claim


def test_a_process_that_hangs_in_an_import_gives_that_module_up(mine: Path) -> None:
    given_up: dict[str, str] = {}
    folder = Folder.open(mine)
    events = [{"module": "embeddings"}, {"module": "attention"}]
    end = "did not end within 5 seconds"
    assert running.blame(folder, CHAPTER, events, end, given_up) == {}
    assert given_up == {"attention": "importing mine/attention.py did not end within 5 seconds"}
    row = {"exercise": "3.1", "state": "broken"}
    assert running.blame(folder, CHAPTER, [{"row": row}], end, given_up) == {}
    with pytest.raises(OSError, match="did not start"):
        running.blame(folder, CHAPTER, [], "did not start", given_up)


# --- hints, next, watch ---------------------------------------------------------------------------


def test_hints_come_one_by_one_and_are_remembered(mine: Path, capsys) -> None:
    said = []
    for _ in range(4):
        assert main(["course", "hint", "3.1", "--folder", str(mine)]) == 0
        said.append(capsys.readouterr().out)
    assert "Hint 1 of 3" in said[0] and "Hint 2 of 3" in said[1]
    assert said[2] == said[3] and "masked_fill(~mask" in said[2] and "-1e9" in said[2]
    assert json.loads((mine / ".course.json").read_text())["hints"] == {"3.1": 3}
    assert main(["course", "reveal", "3.1"]) == 0
    assert capsys.readouterr().out == said[2]
    assert main(["course", "hint", "3.99", "--folder", str(mine)]) == 1
    assert "there is no exercise 3.99" in capsys.readouterr().err


def test_start_and_the_names_of_exercises_are_explained(mine: Path, capsys) -> None:
    assert main(["course", "start", str(mine)]) == 0
    assert "Nothing has changed" in capsys.readouterr().out
    for what, sentence in (("x", "neither a chapter"), ("99", "no chapter 99"), ("3.9", "3.9")):
        assert main(["course", "check", what, "--folder", str(mine)]) == 1
        assert sentence in capsys.readouterr().err


def test_next_shows_the_first_exercise_that_is_not_theirs(mine: Path, monkeypatch, capsys) -> None:
    from transformer.course import commands

    def fake(folder, names, limits):
        return [Row(name, "yours" if name == names[0] else "broken", "a claim") for name in names]

    monkeypatch.setattr(commands, "examine", fake)
    monkeypatch.setattr(commands, "chosen", lambda folder, what: CHAPTER)
    assert main(["course", "next", "--folder", str(mine)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3.2 · ") and "It is in mine/notebooks/03_attention.ipynb." in said
    assert "a claim" in said


def test_watch_checks_the_chapter_that_was_saved(mine: Path, monkeypatch) -> None:
    checked: list[list[str]] = []
    monkeypatch.setattr(watching, "check", lambda folder, what, seconds: checked.append(list(what)))
    monkeypatch.setattr(watching, "POLL", 0.0)
    rounds = iter(range(4))

    def more() -> bool:
        number = next(rounds)
        if number == 1:
            write(mine, "3.3", "answer_3_3 = [1]")
        return number < 3

    watching.watch(Folder.open(mine), ["3"], more=more)
    assert checked == [["3"], CHAPTER]


# --- grade ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graded(started: Path, tmp_path_factory) -> tuple[dict[str, dict[str, dict]], bytes, str]:
    """Three submissions of chapter 3, graded: the rows, the report, and what was printed."""
    import contextlib
    import io
    import shutil

    place = tmp_path_factory.mktemp("submissions")
    for name in ("ada", "bob"):
        shutil.copytree(started, place / name)
    for name in CHAPTER:
        write(place / "ada", name)
    given = (
        ("3.1", "def attention_weights(q, k, mask=None):\n    while True:\n        pass"),
        ("3.4", "def mended_3_4(q, k, mask=None):\n    return torch.ones(10**11)"),
        ("3.5", "def test_3_5(implementation):\n    import os\n    os._exit(0)"),
    )
    for name, text in given:
        write(place / "bob", name, text)
    (place / "carol").mkdir()
    said = io.StringIO()
    folders = [str(place / name) for name in ("ada", "bob", "carol")]
    files = ["--csv", str(place / "rows.csv"), "--junit", str(place / "report.xml")]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        from transformer.course import grade

        patch.setattr(grade, "chosen", lambda folder, what: CHAPTER)
        assert main(["course", "grade", *folders, *files, "--seconds", "20"]) == 0
    rows: dict[str, dict[str, dict]] = {}
    with open(place / "rows.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(Path(row["folder"]).name, {})[row["exercise"]] = row
    return rows, (place / "report.xml").read_bytes(), said.getvalue()


def test_solutions_pass_with_other_numbers_and_sizes(graded) -> None:
    rows, _, _ = graded
    assert [row["state"] for row in rows["ada"].values()] == ["yours"] * 5


def test_what_loops_allocates_or_exits_is_a_row_and_the_others_are_graded(graded) -> None:
    rows, _, said = graded
    bob = rows["bob"]
    assert bob["3.1"]["claim"] == "it did not end within 20 seconds"
    assert "memory" in bob["3.4"]["claim"]
    assert bob["3.5"]["claim"] == "it ended the process with status 0"
    assert [bob[name]["state"] for name in ("3.2", "3.3")] == ["empty", "empty"]
    assert rows["carol"][""]["state"] == "broken"
    assert said.count("\n") == 3 and "5/5" in said and "not a folder of the course" in said


def test_the_report_has_a_suite_for_each_folder(graded) -> None:
    _, report, _ = graded
    suites = ElementTree.fromstring(report)
    found = [(s.get("tests"), s.get("failures"), s.get("skipped")) for s in suites]
    assert found == [("5", "0", "0"), ("5", "3", "2"), ("1", "1", "0")]
    assert suites[1][0].find("failure").get("message") == "it did not end within 20 seconds"
