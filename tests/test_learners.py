"""What the course promises over all chapters, which takes minutes: `make learners` runs it."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from learners import module, solution, write
from test_course_notebooks import run

from transformer import zoo
from transformer.course import home
from transformer.course.bench import Bench
from transformer.course.examine import Examiner
from transformer.course.exercise import FindBug, WriteBlock
from transformer.course.exercises import all_exercises, exercise, of_chapter
from transformer.course.folder import Folder
from transformer.course.grade import grade
from transformer.course.judging import check_of
from transformer.course.lessons import LESSONS, REPOSITORY, available, lesson
from transformer.course.rows import BORROWED, BROKEN, YOURS, Row
from transformer.course.running import Limits
from transformer.course.workbook import start

pytestmark = pytest.mark.slow

NAMES = [one.id for one in all_exercises()]
MINUTES = 10


def examiner(path: Path) -> Examiner:
    """Return an examiner of what is saved in a folder, in this process."""
    home.forget(path.name)
    return Examiner(Folder.open(path), Bench(path, path.name, lambda name: None))


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    home.forget("mine")


# --- diagnosis ------------------------------------------------------------------------------------

TASKS = [one for one in all_exercises() if isinstance(one, WriteBlock | FindBug)]


def as_answers() -> Iterator[tuple[str, str]]:
    """Yield each member of the zoo that can be an answer, with the exercise that it answers."""
    for name in zoo.names():
        member = zoo.member(name)
        for task in TASKS:
            check, options = check_of(task)
            if check.__name__ == member.check and options == member.options:
                yield name, task.id
                break


def test_the_zoo_in_a_learners_folder_is_named_by_its_own_sentence(mine: Path) -> None:
    """Each is put into the module, and found by what it does there."""
    named, unnamed, wrongly = [], [], []
    for name, task in as_answers():
        row = answered(mine, name, task)
        sentences = [one for one in zoo.names() if zoo.member(one).sentence in row.diagnosis]
        found = {zoo.member(one).sentence for one in sentences}
        if row.state == BORROWED:
            continue  # the exercise is one method of a class, and the mistake is in another
        assert row.state == BROKEN, (name, row)
        right = zoo.member(name).sentence in found
        (named if right else wrongly if found else unnamed).append(name)
    total = len(named) + len(unnamed) + len(wrongly)
    print(f"{len(named)} of {total} are named, not {unnamed}")
    assert wrongly == []
    assert total > 100
    assert len(named) >= 0.8 * total


def answered(folder: Path, name: str, task: str) -> Row:
    """Return the row of an exercise that is answered with a member of the zoo."""
    path = module(folder, task)
    before = path.read_text(encoding="utf-8")
    target = exercise(task).name.partition(".")[0]
    given = f"from transformer import zoo\n\nclass_or_function = zoo.member({name!r}).wrong\n"
    hidden = (
        f'class {target}(class_or_function):\n    """Mine."""\n'
        if isinstance(zoo.member(name).wrong, type)
        else f"def {target}(*args, **options):\n    return class_or_function(*args, **options)\n"
    )
    path.write_text(f"{before}\n\n{given}{hidden}", encoding="utf-8")
    try:
        found = examiner(folder)
        row = found.row(exercise(task))
        return replace(row, diagnosis=found.diagnosis(row))
    finally:
        path.write_text(before, encoding="utf-8")


# --- chapters -------------------------------------------------------------------------------------


def test_the_checks_of_a_chapter_need_no_chapter_after_it(mine: Path) -> None:
    for name in NAMES:
        write(mine, name)
    for one in reversed([one for one in LESSONS if of_chapter(one.number)]):
        found = examiner(mine)
        rows = [found.row(task) for task in of_chapter(one.number)]
        assert [row for row in rows if row.state != YOURS] == []
        (mine / f"{one.module}.py").write_text("this is no Python")


@pytest.mark.parametrize("edition", ["learner", "course"])
def test_all_notebooks_run_in_ten_minutes_on_two_cores(edition: str, mine: Path) -> None:
    """Two kernels at a time. On a busy machine the time of the processors counts."""
    folder = mine / "notebooks" if edition == "learner" else REPOSITORY / "notebooks"
    begin = time.monotonic()
    before = os.times()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, [folder / f"{one.notebook}.ipynb" for one in available()]))
    after = os.times()
    busy = after.children_user + after.children_system
    busy -= before.children_user + before.children_system
    minutes = (time.monotonic() - begin) / 60
    print(f"{edition}: {minutes:.1f} minutes, {busy / 60:.1f} of one processor")
    assert min(minutes, busy / 60) <= MINUTES


# --- grade ----------------------------------------------------------------------------------------


def test_a_seeds_own_bugs_are_graded_over_all_chapters(tmp_path: Path, started: Path) -> None:
    folders = [start(tmp_path / name, seed)[0].path for name, seed in (("ada", 7), ("bob", 8))]
    for name in NAMES:
        write(folders[0], name)
    limits = Limits(120.0, 4.0, seed=3)
    results = grade(folders, limits, tmp_path / "rows.csv", tmp_path / "report.xml")
    assert [row for row in results[0].rows if row.state != YOURS] == []
    assert YOURS not in {row.state for row in results[1].rows}
    with open(tmp_path / "rows.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["exercise"] for row in rows] == 2 * NAMES
    assert {row["seed"] for row in rows} == {"7", "8"}
    ada, bob = ElementTree.parse(tmp_path / "report.xml").getroot()
    n = str(len(NAMES))
    assert (ada.get("tests"), ada.get("failures"), ada.get("skipped")) == (n, "0", "0")
    assert (bob.get("tests"), bob.get("failures"), bob.get("skipped")) == (n, "0", n)


# --- several at once ------------------------------------------------------------------------------


def begun(*arguments: str | Path, cwd: Path) -> subprocess.Popen:
    """Start a command of the course in a process of its own."""
    command = [sys.executable, "-m", "transformer", "course", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, cwd=cwd, env=environment, **pipes)


def test_commands_in_one_folder_at_once_all_end_well_and_lose_nothing(mine: Path) -> None:
    write(mine, "3.3")
    write(mine, "6.1")
    commands = (("check", "3.3"), ("check", "6.1"), ("hint", "1.1"), ("hint", "2.1"))
    processes = [begun(*one, cwd=mine) for one in (*commands, ("start", mine))]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, said
    state = Folder.open(mine).state
    assert state.passed == ["3.3", "6.1"]
    assert state.hints == {"1.1": 1, "2.1": 1}
    assert solution("3.3") in Folder.open(mine).module(lesson(3)).read_text(encoding="utf-8")


def test_two_that_start_one_folder_at_once_make_one_folder(tmp_path: Path) -> None:
    processes = [begun("start", "mine", cwd=tmp_path) for _ in range(3)]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, said
    assert sum("Nothing has changed" in text for text in said) == 2
    assert list(tmp_path.glob("mine/notebooks/*.new.ipynb")) == []
