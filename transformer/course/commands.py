"""What the commands of `course` do with a folder, and what they say."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from transformer.course import report
from transformer.course.exercises import all_exercises, exercise, of_chapter
from transformer.course.folder import Folder
from transformer.course.lessons import lesson
from transformer.course.rows import BROKEN, MISSING, YOURS, Row
from transformer.course.running import Limits, examine
from transformer.course.workbook import start

SAID = {
    "new": "written",
    "updated": "brought up to date: you had not changed it",
    "restored": "restored: a form of it was missing",
    "beside": "has a new version, beside yours: notebooks/{notebook}.new.ipynb",
}


def started(path: Path, seed: int) -> str:
    """Write or update a folder, and return what was done in words."""
    folder, done = start(path, seed)
    by_action = defaultdict(list)
    for written in done:
        by_action[written.action].append(written.lesson)
    lines = []
    for action, words in SAID.items():
        found = by_action[action]
        if action == "beside":
            lines += [
                f"chapter {one.number} {words.format(notebook=one.notebook)}" for one in found
            ]
        elif found:
            numbers = ", ".join(str(one.number) for one in found)
            lines.append(f"chapters {numbers} {words}")
    lines = lines or ["Nothing has changed since it was written."]
    first = f"Begin with {folder.path.name}/notebooks, in Jupyter or in your editor."
    check = "`python -m transformer course next` shows the first exercise."
    return "\n".join([f"{folder.path.name}: {line}" for line in lines] + ["", first, check])


def chosen(folder: Folder, what: Sequence[str]) -> list[str]:
    """Return the exercises that are named by chapter or id; all of the folder's by default.

    Raises ValueError for a name that is neither.
    """
    numbers = {one.number for one in folder.lessons()}
    if not what:
        return [one.id for one in all_exercises() if one.chapter in numbers]
    names: list[str] = []
    for name in what:
        if "." in name:
            names.append(exercise(name).id)
        elif not name.isdecimal():
            raise ValueError(f"{name!r} is neither a chapter, such as 3, nor an exercise, as 3.2")
        else:
            found = of_chapter(lesson(int(name)).number)
            if not found:
                raise ValueError(f"chapter {name} has no exercises")
            names += [one.id for one in found]
    return list(dict.fromkeys(names))


def check(folder: Folder, what: Sequence[str], seconds: float = 60.0) -> int:
    """Print the table of some exercises, and return 1 if one is broken or missing, else 0."""
    names = chosen(folder, what)
    rows = examine(folder, names, Limits(seconds))
    print(report.table(rows))
    new = newly_passed(folder, rows)
    if new:
        print(f"\n{report.reasons(new)}")
    return int(any(row.state in (BROKEN, MISSING) for row in rows))


def newly_passed(folder: Folder, rows: Sequence[Row]) -> list[str]:
    """Return the exercises that are seen to be right for the first time, and remember them."""
    right = [row.exercise for row in rows if row.state == YOURS]
    new = [name for name in right if name not in folder.state.passed]
    folder.state.passed = sorted({*folder.state.passed, *new})
    folder.save()
    return new


def following(folder: Folder, seconds: float = 60.0) -> str:
    """Return the first exercise that is not the learner's yet, with its task."""
    for row in examine(folder, chosen(folder, ()), Limits(seconds)):
        if row.state != YOURS:
            task = exercise(row.exercise)
            where = folder.notebook(lesson(task.chapter)).relative_to(folder.path.parent)
            lines = report.row_lines(row)[1:]
            return "\n".join(
                [report.overview(task, folder.state), "", f"It is in {where}.", *lines]
            )
    return "Every exercise is yours."
