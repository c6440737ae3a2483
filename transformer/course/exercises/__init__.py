"""The exercises of all chapters, in order."""

import functools
import importlib
import pkgutil

from transformer.course.exercise import Exercise

__all__ = ["all_exercises", "exercise", "of_chapter"]


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
