"""`course grade`: for instructors. Each folder is copied and examined in processes of its own.

The processes have limits of time and memory, so a submission that crashes, loops or allocates
without end is a row like any other. They are no prison: examine what you do not trust in a
container.
"""

import csv
import io
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from transformer.course import rows as states
from transformer.course.commands import chosen
from transformer.course.exercises import exercise
from transformer.course.folder import Folder
from transformer.course.rows import Row
from transformer.course.running import Limits, examine
from transformer.files import atomic_write

COLUMNS = ["folder", "seed", "exercise", "title", "kind", "difficulty", "minutes"]
COLUMNS += ["state", "claim", "diagnosis", "note"]


@dataclass(frozen=True)
class Graded:
    """A folder, the seed of its bugs, and its rows, or the reason why it has none."""

    folder: str
    seed: int = 0
    rows: tuple[Row, ...] = ()
    trouble: str = ""


def grade(
    folders: Sequence[Path],
    limits: Limits,
    csv_path: Path | None = None,
    junit_path: Path | None = None,
) -> list[Graded]:
    """Grade folders, print a line for each, and write the files that are asked for."""
    found = []
    width = max(len(str(folder)) for folder in folders)
    for folder in folders:
        result = graded(folder, limits)
        found.append(result)
        print(f"{result.folder:<{width}}  {line(result)}", flush=True)
    if csv_path:
        atomic_write(csv_path, table(found).encode())
    if junit_path:
        atomic_write(junit_path, junit(found))
    return found


def line(result: Graded) -> str:
    """Return a folder's result in one line."""
    if result.trouble:
        return result.trouble
    counted = states.count(result.rows)
    parts = [f"{n} {state}" for state, n in counted.items() if n]
    return f"{counted[states.YOURS]}/{len(result.rows)}  ({', '.join(parts)})"


def graded(path: Path, limits: Limits) -> Graded:
    """Examine a copy of a folder; the folder itself is only read."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        try:
            package = Folder.open(path).package
            copy = Path(place) / package
            copy_sources(Path(path), copy)
            folder = Folder.open(copy)
            rows = tuple(examine(folder, chosen(folder, ()), limits))
        except (ValueError, OSError) as error:
            return Graded(str(path), trouble=str(error))
    return Graded(str(path), folder.state.seed, rows)


def copy_sources(path: Path, target: Path) -> None:
    """Copy what is examined: modules, notebooks and what the folder remembers, with their times."""
    for pattern in (".course.json", "*.py", "notebooks/*.ipynb"):
        for source in path.glob(pattern):
            if source.is_file() and not source.is_symlink():
                copy = target / source.relative_to(path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy)


# --- files ----------------------------------------------------------------------------------------


def table(results: Iterable[Graded]) -> str:
    """Return the results as CSV, one line for each exercise of each folder."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        if result.trouble:
            writer.writerow([result.folder, *[""] * 6, states.BROKEN, result.trouble, "", ""])
        for row in result.rows:
            task = exercise(row.exercise)
            about = (task.title, task.kind, task.difficulty, task.minutes)
            found = (row.state, row.claim, row.diagnosis, row.note)
            writer.writerow([result.folder, result.seed, row.exercise, *about, *found])
    return text.getvalue()


def junit(results: Iterable[Graded]) -> bytes:
    """Return the results as a report in JUnit's XML: a suite for each folder, a case a row."""
    root = ElementTree.Element("testsuites", name="course")
    for result in results:
        rows = result.rows or (Row("", states.BROKEN, result.trouble),)
        failed = sum(row.state in (states.BROKEN, states.MISSING) for row in rows)
        skipped = sum(row.state in (states.BORROWED, states.EMPTY) for row in rows)
        numbers = dict(tests=str(len(rows)), failures=str(failed), skipped=str(skipped))
        suite = ElementTree.SubElement(root, "testsuite", {"name": result.folder, **numbers})
        for row in rows:
            add_case(suite, result.folder, row)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def add_case(suite: ElementTree.Element, folder: str, row: Row) -> None:
    """Add an exercise to a suite."""
    name = f"{row.exercise} {exercise(row.exercise).title}" if row.exercise else "folder"
    case = ElementTree.SubElement(suite, "testcase", classname=folder, name=name)
    if row.state in (states.BROKEN, states.MISSING):
        about = "\n".join(filter(None, (row.claim, row.diagnosis, row.note)))
        failure = ElementTree.SubElement(case, "failure", type=row.state, message=row.claim)
        failure.text = about
    elif row.state != states.YOURS:
        ElementTree.SubElement(case, "skipped", message=row.state)
