"""The result of each exercise, as `course check` finds it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from transformer.course.exercise import WriteBlock
from transformer.course.exercises import exercise

YOURS = "yours"
BORROWED = "borrowed"
EMPTY = "empty"
BROKEN = "broken"
MISSING = "missing"
STATES = (YOURS, BORROWED, EMPTY, BROKEN, MISSING)


@dataclass(frozen=True)
class Row:
    """An exercise's id and state, its first failing claim, what the mistake is, and a remark."""

    exercise: str
    state: str
    claim: str = ""
    diagnosis: str = ""
    note: str = ""


def count(rows: Iterable[Row]) -> dict[str, int]:
    """Count the rows of each state, in a fixed order."""
    found = Counter(row.state for row in rows)
    return {state: found[state] for state in STATES}


def share(rows: Iterable[Row]) -> int:
    """Return the percentage of the blocks that are the learner's own."""
    blocks = [row for row in rows if isinstance(exercise(row.exercise), WriteBlock)]
    mine = sum(row.state == YOURS for row in blocks)
    return round(100 * mine / len(blocks)) if blocks else 0
