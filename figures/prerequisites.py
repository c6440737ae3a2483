"""The diagram of the instructors' page: which chapter needs which, in the text and in the code.

The text's needs are those of the lessons, which a test compares with the chapters; the code's are
the imports of the modules.
"""

import ast
from collections.abc import Callable, Iterable

from canvas import INK, MUTED, TONES, Box, Canvas

from transformer.course.lessons import LESSONS, PACKAGE, Lesson

Links = dict[int, set[int]]

ROW = 38
TOP = 74
WIDTH = 620
BOX = (180, 260, 30)  # left edge, width and height


def imported() -> Links:
    """Return for each chapter the chapters whose modules its library code imports."""
    numbers = {f"transformer.{one.module}": one.number for one in LESSONS}
    links: Links = {}
    for one in LESSONS:
        links[one.number] = set()
        if one.number:
            tree = ast.parse((PACKAGE / f"{one.module}.py").read_text(encoding="utf-8"))
            nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            links[one.number] = {numbers[n.module] for n in nodes if n.module in numbers}
    return links


def needed() -> Links:
    """Return for each chapter those that its text asks for."""
    return {one.number: set(one.needs) for one in LESSONS}


def direct(links: Links) -> Links:
    """Leave out what follows from other links."""

    def all_before(numbers: Iterable[int]) -> set[int]:
        return {n for number in numbers for n in {number} | all_before(links[number])}

    return {
        number: {n for n in before if n not in all_before(before - {n})}
        for number, before in links.items()
    }


def prerequisites() -> Canvas:
    """Draw the chapters below each other, what is read before on the left, imports on the right."""
    c = Canvas(
        WIDTH,
        TOP + ROW * len(LESSONS) + 14,
        "The chapters in order: on the left, which to read before which; "
        "on the right, whose code imports whose",
    )
    x, w, _ = BOX
    c.text(x - 24, 28, "to be read before", 14, "bold", TONES["blue"].edge, "end")
    c.text(x + w + 24, 28, "imported by", 14, "bold", TONES["orange"].edge, "start")
    c.text(x + w / 2, 54, "(arrows that follow from others are left out)", 11.5, colour=MUTED)
    boxes = {one.number: _chapter(c, one, row) for row, one in enumerate(LESSONS)}
    for links, side, tone in ((needed(), -1, "blue"), (imported(), 1, "orange")):
        for number, before in direct(links).items():
            for other in sorted(before):
                _arc(c, boxes[other], boxes[number], side, tone)
    return c


def _chapter(c: Canvas, one: Lesson, row: int) -> Box:
    """Draw a chapter with its number and its minutes."""
    x, w, h = BOX
    box = c.box(x, TOP + row * ROW, w, h, tone="plain" if one.number <= 12 else "grey")
    y = box.centre[1]
    c.text(x + 14, y, f"{one.number}", 13, "bold", INK, "start")
    c.text(x + 42, y, one.title, 13, "sans", INK, "start")
    c.text(x + w - 12, y, f"{one.minutes} min", 11.5, "sans", MUTED, "end")
    return box


def _arc(c: Canvas, start: Box, end: Box, side: int, tone: str) -> None:
    """Draw an arrow from one chapter down to a later one, at the left (-1) or the right (1)."""
    x = start.right[0] if side > 0 else start.left[0]
    y0 = start.centre[1] + 6
    y1 = end.centre[1] - 6
    reach = x + side * (18 + 0.42 * (y1 - y0))
    colour = TONES[tone].edge
    c.path(f"M{x} {y0} C{reach} {y0} {reach} {y1} {x + side * 7} {y1}", colour, 1.6)
    c.head((x + side * 1.5, y1), (-side, 0), 6.5, colour)


DIAGRAMS: dict[str, Callable[[], Canvas]] = {"prerequisites": prerequisites}
