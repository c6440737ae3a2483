"""The notebooks of a learner's folder run: untouched, and with what the learner has written."""

from pathlib import Path

import nbformat
import pytest
from learners import write
from nbclient import NotebookClient

from transformer.course.exercises import all_exercises
from transformer.course.folder import Folder
from transformer.course.lessons import available, lesson
from transformer.course.rows import count, share
from transformer.course.running import Limits, examine

QUICK = {3}
EACH = [
    pytest.param(one.number, marks=[] if one.number in QUICK else [pytest.mark.slow])
    for one in available()
]


def run(path: Path) -> str:
    """Run a notebook where it is, and return what its last cell of code printed."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    log = ["--log-level=CRITICAL"]
    client = NotebookClient(notebook, timeout=1200, extra_arguments=log, resources=where)
    client.execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    return "".join(output.get("text", "") for output in last.outputs)


@pytest.mark.parametrize("number", EACH)
def test_an_untouched_notebook_runs(number: int, started: Path) -> None:
    run(Folder.open(started).notebook(lesson(number)))


@pytest.mark.slow
def test_with_every_solution_the_whole_course_is_theirs(mine: Path) -> None:
    names = [one.id for one in all_exercises()]
    for name in names:
        write(mine, name)
    for seed in (0, 5):
        rows = examine(Folder.open(mine), names, Limits(120.0, seed=seed))
        assert [row for row in rows if row.state != "yours"] == []
        assert share(rows) == 100


@pytest.mark.slow
def test_an_untouched_folder_scores_0_of_all(mine: Path) -> None:
    rows = examine(Folder.open(mine), [one.id for one in all_exercises()])
    counted = count(rows)
    assert counted["borrowed"] + counted["empty"] == len(rows) > 50 and share(rows) == 0


@pytest.mark.slow
@pytest.mark.translator
def test_the_last_cell_translates_and_says_who_wrote_the_translator(mine: Path) -> None:
    for name in ("3.1", "8.1", "13.1"):  # the last one is no part of this translator
        write(mine, name)
    said = run(Folder.open(mine).notebook(lesson(12)))
    blocks = [one for one in all_exercises() if one.kind == "write the block" and one.chapter < 13]
    percent = round(100 * 2 / len(blocks))
    assert said == f"I love you very much → ti amo molto, {percent} % yours\n"
