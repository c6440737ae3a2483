"""Write the tables that pages and chapters take from data: `make pages`, from a clone.

A table stands between two comments, `<!-- name -->` and `<!-- /name -->`. The tests compare it with
what `TABLES` makes.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks is a package of the repository

from benchmarks.ablations import OUT, VARIANTS, table  # noqa: E402
from transformer.course.exercise import Exercise  # noqa: E402
from transformer.course.exercises import all_exercises, exercise, of_chapter  # noqa: E402
from transformer.course.lessons import lesson  # noqa: E402

__all__ = ["CORE", "CUTS", "OUT", "TABLES", "VARIANTS", "between", "replaced", "write"]

MISSING = "*write the test*"  # the kind that a week leaves out
KINDS = ("by hand", "predict, then run", "write the block", "find the bug", "write the test")
CORE = range(13)  # the chapters that everybody reads
OPTIONAL = (13,)  # the one beyond them that has exercises

# Chapters to be read, and exercises to be done. Everything else is borrowed from the library.
CUTS: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "90 minutes": ((3,), ("3.3", "3.2", "3.1")),
    "a day": ((0, 3, 4, 8), ("3.3", "3.1", "4.2", "4.1", "8.1", "8.2", "8.4", "12.2")),
    "a week": (
        tuple(CORE),
        tuple(
            task.id
            for task in all_exercises()
            if task.chapter in CORE and task.kind != "write the test"
        ),
    ),
    "ten evenings": (
        tuple(CORE),
        tuple(task.id for task in all_exercises() if task.chapter in CORE),
    ),
    "everything": ((*CORE, *OPTIONAL), tuple(task.id for task in all_exercises())),
}


def hours(minutes: int) -> str:
    """Return a time in hours and minutes, such as 1:35."""
    return f"{minutes // 60}:{minutes % 60:02}"


def total(tasks: Iterable[Exercise]) -> int:
    """Return the minutes of some exercises."""
    return sum(task.minutes for task in tasks)


def times() -> str:
    """Return the table of minutes: reading, the exercises by kind, and their sums."""
    rows = [("chapter", "reading", *KINDS, "exercises", "all"), ("---",) * 9]
    sums = [0] * 8
    for number in CORE:
        minutes = minutes_of(number)
        sums = [a + b for a, b in zip(sums, minutes, strict=True)]
        rows.append((titled(number), *(str(n or "") for n in minutes)))
    rows.append(("**0 to 12, in hours**", *(f"**{hours(n)}**" for n in sums)))
    for number in OPTIONAL:
        title = f"{titled(number)}, optional"
        rows.append((title, *(str(n or "") for n in minutes_of(number))))
    return lines(rows)


def minutes_of(number: int) -> list[int]:
    """Return the minutes of a chapter: reading, the exercises by kind, all of them, and the sum."""
    tasks = of_chapter(number)
    by_kind = [total(task for task in tasks if task.kind == kind) for kind in KINDS]
    reading = lesson(number).minutes
    return [reading, *by_kind, total(tasks), reading + total(tasks)]


def titled(number: int) -> str:
    """Return the number and title of a chapter, as a link."""
    about = lesson(number)
    return f"{number} · [{about.title}](notebooks/{about.notebook}.ipynb)"


def cuts() -> str:
    """Return the table of shorter courses."""
    rows = [("time", "chapters to read", "exercises", "reading", "exercises", "all"), ("---",) * 6]
    for name, (chapters, names) in CUTS.items():
        reading = sum(lesson(number).minutes for number in chapters)
        doing = total(map(exercise, names))
        read = ", ".join(map(str, chapters)) if len(chapters) < 10 else f"0 to {chapters[-1]}"
        times = map(hours, (reading, doing, reading + doing))
        rows.append((name, read, told(names), *times))
    return lines(rows)


def told(names: tuple[str, ...]) -> str:
    """Return which exercises these are, in words if they are many."""
    if len(names) < 12:
        return ", ".join(names)
    kinds = {exercise(name).kind for name in names}
    return f"all {len(names)}" if len(kinds) == len(KINDS) else f"{len(names)}: all but {MISSING}"


def ablations() -> str:
    """Return the table of translators without a part, and what it was measured with."""
    rows = json.loads(OUT.read_text(encoding="utf-8"))
    seeds = len({row["seed"] for row in rows})
    steps = sorted({row["steps"] for row in rows})
    how = f"Mean of {seeds} seeds, in brackets their range" if seeds > 1 else "One seed"
    return f"{table(rows)}\n\n{how}; {', '.join(map(str, steps))} steps each."


def lines(rows: Iterable[Iterable[str]]) -> str:
    """Return rows as a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


TABLES: dict[str, tuple[Callable[[], str], tuple[str, ...]]] = {
    "times": (times, ("INSTRUCTORS.md",)),
    "cuts": (cuts, ("INSTRUCTORS.md",)),
    "ablations": (ablations, ("transformer/model.py", "notebooks/09_model.ipynb")),
}
"""For each name, what makes the table, and the files in which it stands."""


def between(name: str, text: str) -> str:
    """Return what stands between the comments of a table; ValueError if there are none."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"there is no table {name}")
    return found[1].strip()


def replaced(name: str, text: str, new: str) -> str:
    """Return the text with another table between the comments."""
    between(name, text)
    start, _, rest = text.partition(f"<!-- {name} -->\n")
    _, _, end = rest.partition(f"<!-- /{name} -->")
    return f"{start}<!-- {name} -->\n\n{new}\n\n<!-- /{name} -->{end}"


def as_comment(text: str) -> str:
    """Return a cell's text as it stands in a module."""
    return "\n".join(f"# {line}".rstrip() for line in text.split("\n"))


def write(name: str, path: Path) -> None:
    """Write a table into a page, a chapter's module or its notebook."""
    new = TABLES[name][0]()
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if f"<!-- {name} -->" in cell.source:
                cell.source = replaced(name, cell.source, new)
        nbformat.write(notebook, path)
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        cell = re.search(rf"# <!-- {name} -->\n.*?# <!-- /{name} -->", text, re.DOTALL)
        if cell is None:
            raise ValueError(f"there is no table {name} in {path.name}")
        plain = re.sub(r"^# ?", "", cell[0], flags=re.MULTILINE)
        text = text.replace(cell[0], as_comment(replaced(name, plain, new)))
    else:
        text = replaced(name, text, new)
    path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Write every table where it stands."""
    for name, (_, places) in TABLES.items():
        for place in places:
            write(name, ROOT / place)
            print(f"{name}: {place}")


if __name__ == "__main__":
    main()
