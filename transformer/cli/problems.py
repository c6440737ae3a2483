"""Lines that cannot be translated: what the commands say about them, and print in their place."""

import sys

from transformer.data import BLANK
from transformer.reader import refuse

MOST_WARNINGS = 20
"""Lines that are named; further ones are only counted."""


class Problems:
    """Called with each problem of a group of lines; counts lines over all groups.

    A blank line has a blank translation. Another line that cannot be translated is named on
    standard error and has an empty one or, with `copy`, is its own. With `strict` the first
    problem, a blank line included, raises a ValueError.
    """

    def __init__(self, strict: bool = False, copy: bool = False):
        self.strict = strict
        self.copy = copy
        self.before = 0
        self.count = 0
        self.lines: list[str] = []

    def begin(self, lines: list[str]) -> None:
        """Begin a group of lines."""
        self.lines = lines

    def __call__(self, number: int, problem: str) -> None:
        """Refuse or name a line of the group; the first line has number 1."""
        line = self.before + number
        if self.strict:
            refuse(line, problem)
        if problem == BLANK:
            return
        self.count += 1
        if self.count <= MOST_WARNINGS:
            what = "is copied" if self.copy else "stays empty"
            print(f"warning: line {line} {problem}; its translation {what}", file=sys.stderr)
        if self.count == MOST_WARNINGS:
            print("warning: further such lines are not named", file=sys.stderr)

    def instead_of(self, i: int) -> str:
        """Return what stands in the place of the translation of line `i` of the group."""
        return self.lines[i] if self.copy else ""

    def end(self) -> None:
        """End a group of lines."""
        self.before += len(self.lines)
