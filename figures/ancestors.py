"""The diagram of chapter 16: a cache that is copied, and one that stays under an ancestor mask."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from canvas import EDGE, INK, MUTED, TONES, WHITE, Box, Canvas
from parts import heading, note

# Three hypotheses: the token that each reads at every step, and which one each continues.
READ = [["<s>", "<s>", "<s>"], ["ti", "amo", "io"], ["amo", "te", "ti"], ["amo", "molto", "tanto"]]
PARENTS = {3: [2, 0, 0]}
HYPOTHESES = 3
STEPS = len(READ)
TONE = ("blue", "green", "orange")  # by the hypothesis that wrote the cell
CELL_SIZE = (50, 26)
MASK_CELL = 15

Cell = tuple[int, int]  # hypothesis, step
Mask = frozenset[Cell]


def parents(step: int) -> Sequence[int]:
    """Return which hypothesis each one continues after a step."""
    return PARENTS.get(step, range(HYPOTHESES))


def copied(steps: int) -> list[list[Cell]]:
    """Return the rows of the usual cache after some steps; a cell names where it was written."""
    rows: list[list[Cell]] = [[] for _ in range(HYPOTHESES)]
    for step in range(1, steps + 1):
        rows = [[*rows[parent], (i, step)] for i, parent in enumerate(parents(step - 1))]
    return rows


def ancestor_mask(steps: int) -> list[Mask]:
    """Return the rows of the ancestor mask after some steps: the cells that each may attend to."""
    rows: list[Mask] = [frozenset()] * HYPOTHESES
    for step in range(1, steps + 1):
        rows = [rows[parent] | {(i, step)} for i, parent in enumerate(parents(step - 1))]
    return rows


def token(cell: Cell) -> str:
    """Return the token whose key and value are in a cell."""
    hypothesis, step = cell
    return READ[step - 1][hypothesis]


def ancestors() -> Canvas:
    """Draw a cache that is copied when hypotheses change places, and one that stays."""
    c = Canvas(
        900,
        524,
        "When hypotheses change places, a usual cache copies its rows; "
        "here the cells stay where they were written, and rows of an ancestor mask change places",
    )
    heading(c, 30, 34, "the usual way: the cache is reordered")
    note(c, 870, 34, "one cell = the key and the value of one token", "end")
    _copies(c, 94)
    c.line((30, 206), (870, 206), colour=EDGE)
    heading(c, 30, 238, "the way here: the cache stays, and the ancestor mask is reordered")
    _stays(c, 300)
    note(c, 450, 500, "rows of the mask change places, keys and values do not")
    return c


def _cells(
    c: Canvas, x: float, y: float, rows: Sequence[Sequence[Cell]], used: Mask | None = None
) -> list[Box]:
    """Draw cached tokens, coloured by the hypothesis that wrote them; unused ones are outlines."""
    w, h = CELL_SIZE
    for j in range(max(map(len, rows))):
        c.text(x + w * (j + 0.5), y - 10, str(j + 1), 10.5, "mono", MUTED)
    for i, row in enumerate(rows):
        c.text(x - 12, y + (h + 4) * i + h / 2, str(i), 11.5, "mono", MUTED, "end")
        for j, cell in enumerate(row):
            asleep = used is not None and cell not in used
            c.box(
                x + w * j + 3,
                y + (h + 4) * i,
                w - 6,
                h,
                token(cell),
                "grey" if asleep else TONE[cell[0]],
                11,
                "mono",
                radius=5,
                dash="3 3" if asleep else None,
            )
    return [Box(x, y + (h + 4) * i, w * len(row), h) for i, row in enumerate(rows)]


def _newest(c: Canvas, rows: Sequence[Box]) -> None:
    """Frame the column that the last step wrote."""
    first = rows[0]
    last = rows[-1]
    width = CELL_SIZE[0]
    height = last.y + last.h - first.y + 6
    c.frame(last.x + last.w - width, first.y - 3, width, height, INK, radius=7, stroke=1.6)


def _turns(c: Canvas, starts: Sequence[Box], ends: Sequence[Box]) -> None:
    """Draw an arrow from each parent to the place that its child takes."""
    for child, parent in enumerate(parents(STEPS - 1)):
        colour = TONES[TONE[parent]].edge
        right, y0 = starts[parent].right
        left, y1 = ends[child].left
        x0 = right + 6
        x1 = left - 28
        middle = (x0 + x1) / 2
        c.path(f"M{x0:g} {y0:g} C{middle:g} {y0:g} {middle:g} {y1:g} {x1 - 6:g} {y1:g}", colour, 2)
        c.head((x1, y1), (1, 0), 6.2, colour)


def _reorder(c: Canvas, x: float, y: float) -> None:
    """Write the call that lets hypotheses change places."""
    c.text(x, y, f"reorder({[list(parents(STEPS - 1))]})", 11.5, "mono")


def _copies(c: Canvas, y: float) -> None:
    """Draw the cache before hypotheses change places, and after it, with one more step."""
    c.text(62, y - 32, f"after step {STEPS - 1}", 12, "bold", anchor="start")
    c.text(424, y - 32, f"after step {STEPS}", 12, "bold", anchor="start")
    before = _cells(c, 62, y, copied(STEPS - 1))
    after = _cells(c, 424, y, copied(STEPS))
    _turns(c, before, after)
    _reorder(c, 304, y - 20)
    _newest(c, after)
    note(c, 650, y + 43, "every cell of the past moves,\nin every layer, at every step", "start")


def _mask(c: Canvas, x: float, y: float, mask: Mask) -> Box:
    """Draw a row of the ancestor mask over the cells of the cache, and the path that they form."""
    size = MASK_CELL

    def fill(i: int, j: int) -> str:
        return TONES["teal"].edge if (i, j + 1) in mask else WHITE

    box = c.matrix(x, y, HYPOTHESES, STEPS, size, fill, "#b6c2d1")
    path = [(x + size * (step - 0.5), y + size * (i + 0.5)) for i, step in _in_order(mask)]
    for start, end in pairwise(path):
        c.line(start, end, colour=INK, stroke=1.6)
    for dot in path:
        c.add("circle", cx=dot[0], cy=dot[1], r=2.4, fill=INK)
    return box


def _in_order(mask: Mask) -> list[Cell]:
    return sorted(mask, key=lambda cell: cell[1])


def _stays(c: Canvas, y: float) -> None:
    """Draw the one cache, and the ancestor mask before and after hypotheses change places."""
    old = ancestor_mask(STEPS - 1)
    new = ancestor_mask(STEPS)
    pitch = HYPOTHESES * MASK_CELL + 16
    c.text(62, y - 32, "the cache", 12, "bold", anchor="start")
    cells = [[(i, step) for step in range(1, STEPS + 1)] for i in range(HYPOTHESES)]
    cache = _cells(c, 62, y + 4, cells, frozenset().union(*new))
    _newest(c, cache)
    rows = "row = hypothesis that wrote the cell\ncolumn = step; each writes a new one"
    note(c, 65, y + 128, f"{rows}\ndashed = nothing descends from it", "start", 11.5)
    for x, step in ((362, STEPS - 1), (584, STEPS)):
        c.text(x, y - 32, f"ancestor mask after step {step}", 12, "bold", anchor="start")
    before = [_mask(c, 362, y + pitch * i, mask) for i, mask in enumerate(old)]
    after = [_mask(c, 584, y + pitch * i, mask) for i, mask in enumerate(new)]
    for i, (left, right) in enumerate(zip(before, after, strict=True)):
        for box in (left, right):
            c.text(box.x - 12, box.centre[1], str(i), 11.5, "mono", MUTED, "end")
        past = " ".join(map(token, _in_order(new[i])))
        c.text(right.x + right.w + 18, right.centre[1], past, 12, "mono", anchor="start")
    _turns(c, before, after)
    _reorder(c, 494, y - 12)


DIAGRAMS: dict[str, Callable[[], Canvas]] = {"16_ancestors": ancestors}
