"""The exercises of all chapters, in order."""

import functools
import importlib
import pkgutil

from transformer.course.exercise import Exercise

__all__ = ["STARS", "all_exercises", "exercise", "exercise_table", "of_chapter"]

STARS = {1: "★☆☆", 2: "★★☆", 3: "★★★"}
"""How a difficulty is shown."""


@functools.cache
def all_exercises() -> tuple[Exercise, ...]:
    """Return every exercise, by chapter and number."""
    found: list[Exercise] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        found += importlib.import_module(f"{__name__}.{module.name}").EXERCISES
    return tuple(found)


def of_chapter(number: int) -> list[Exercise]:
    """List the exercises of a chapter."""
    return [found for found in all_exercises() if found.chapter == number]


def exercise(name: str) -> Exercise:
    """Return an exercise by its id, such as 3.2; ValueError if there is none."""
    for found in all_exercises():
        if found.id == name:
            return found
    raise ValueError(f"there is no exercise {name}: `course status` lists all")


def exercise_table(number: int) -> str:
    """Return the section of a chapter that lists its exercises, in markdown."""
    rows = [("", "exercise", "kind", "minutes", ""), ("---",) * 5]
    for found in of_chapter(number):
        rows.append(
            (found.id, found.title, found.kind, str(found.minutes), STARS[found.difficulty])
        )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""\
## Exercises

{table}

`python -m transformer course start mine` makes a folder of your own with all of them. There
`course check {number}` says what is wrong, and `course hint {number}.1` gives a hint."""
