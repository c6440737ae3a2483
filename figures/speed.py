"""The diagrams of chapter 15: the loss in chunks, and beams that stay where they are."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from canvas import EDGE, INK, MUTED, TONES, WHITE, Box, Canvas
from parts import heading, named, noise, noisy, note, operator, shade, softmax

# The last layer as small as it can be drawn: 2 features, 18 words of vocabulary, 4 chunks of 2 tokens.
FEATURES, WORDS, CELL, GAP = 2, 18, 10, 7
CHUNKS, ROWS, NOW = 4, 2, 1  # NOW is the chunk at work
LOGITS = [[5 * noise(i + 3, j + 1, 15) for j in range(WORDS)] for i in range(CHUNKS * ROWS)]
SOFTMAX = [softmax(row) for row in LOGITS]
LABELS = [int(WORDS * noise(i + 1, 5, 41)) for i in range(CHUNKS * ROWS)]


def _entry(kind: str, i: int, j: int) -> str:
    """Return the colour of one entry of the logits, the softmax or the gradient."""
    if kind == "logits":
        return shade("purple", 0.1 + 0.13 * LOGITS[i][j])
    if kind == "softmax":
        return shade("purple", min(1, 0.06 + 3.5 * SOFTMAX[i][j]))
    return shade("orange", min(1, 0.1 + 2.5 * abs(SOFTMAX[i][j] - (j == LABELS[i]))))


def chunks() -> Canvas:
    """Draw cross-entropy over all tokens at once, and beside it in chunks."""
    c = Canvas(
        900,
        506,
        "Cross-entropy at once holds logits, softmax and gradient of all tokens; in chunks those of 192 tokens are "
        "turned into the gradients of x and W and dropped",
    )
    heading(c, 30, 34, "all at once")
    heading(c, 468, 34, "in chunks of 192 tokens")
    c.line((446, 24), (446, 484), colour=EDGE)
    _at_once(c, 62, 136)
    _in_chunks(c, 500, 136)
    note(c, 30, 482, "the more tokens, the more memory", "start")
    note(c, 468, 482, "20 MB each, then dropped; what stays is as large as x and W", "start")
    return c


def _beside(c: Canvas, x: float, y: float, name: str, shape: str) -> None:
    """Write a name and its shape at the right of a matrix."""
    c.text(x, y - 9, name, 13, "bold", anchor="start")
    c.text(x, y + 9, shape, 11.5, "mono", MUTED, "start")


def _table(c: Canvas, x: float, y: float) -> Box:
    table = c.matrix(x, y, FEATURES, WORDS, CELL, noisy("rose", 2))
    _beside(c, x + table.w + 14, table.centre[1], "Wᵀ", "(128, 10,000)")
    return table


def _product(c: Canvas, x: Box, table: Box, out: Box) -> None:
    """Draw x times the table above: their arrows meet at a dot."""
    y = x.centre[1]
    dot = c.circle((x.x + x.w + out.x) / 2, y, 9)
    c.text(*dot.centre, "·", 17, "bold")
    c.arrow((x.x + x.w + 4, y), dot.left)
    c.arrow((table.x - 4, table.centre[1]), (dot.centre[0], table.centre[1]), dot.top)
    c.arrow(dot.right, (out.x - 3, y))


def _at_once(c: Canvas, x: float, y: float) -> None:
    """Draw three matrices of all tokens by the whole vocabulary, one below the other."""
    table = _table(c, x + 66, y - 62)
    states = c.matrix(x, y, CHUNKS * ROWS, FEATURES, CELL, noisy("blue", 6))
    named(c, states, "x", "(2,000, 128)")
    sizes = {"logits": "80 MB in float32,\nkept until the\nbackward pass", "softmax": "80 MB again",
             "gradient": "80 MB again"}  # fmt: skip
    places = [Box(table.x, y + 112 * i, table.w, CHUNKS * ROWS * CELL) for i in range(3)]
    for box, (kind, size) in zip(places, sizes.items(), strict=True):
        c.matrix(box.x, box.y, CHUNKS * ROWS, WORDS, CELL, lambda i, j, kind=kind: _entry(kind, i, j))
        lines = size.count("\n")
        top = box.centre[1] - 16 - 7.5 * lines
        _beside(c, box.x + box.w + 14, top + 7, kind, "(2,000, 10,000)")
        note(c, box.x + box.w + 14, top + 34 + 7.5 * lines, size, "start", 11.5)
    _product(c, states, table, places[0])
    for above, below in pairwise(places):
        c.arrow((above.bottom[0], above.y + above.h + 4), (below.top[0], below.y - 3))


def _bands(c: Canvas, x: float, y: float, fill: Callable[[int, int], str], full: int) -> list[Box]:
    """Draw a tall matrix cut into chunks, of which the first are full and the others outlines."""
    bands = [Box(x, y + i * (ROWS * CELL + GAP), FEATURES * CELL, ROWS * CELL) for i in range(CHUNKS)]
    for chunk, band in enumerate(bands):
        if chunk < full:
            c.matrix(x, band.y, ROWS, FEATURES, CELL, lambda i, j, chunk=chunk: fill(ROWS * chunk + i, j))
        else:
            c.box(*band, tone="grey", radius=2, dash="3 3")
    return bands


def _whole(bands: Sequence[Box]) -> Box:
    first, last = bands[0], bands[-1]
    return Box(first.x, first.y, first.w, last.y + last.h - first.y)


def _chunk(c: Canvas, kind: str, x: float, y: float) -> Box:
    """Draw the logits or the gradient of the chunk at work, named at the right."""
    box = c.matrix(x, y, ROWS, WORDS, CELL, lambda i, j: _entry(kind, ROWS * NOW + i, j))
    _beside(c, x + box.w + 36, box.centre[1], kind, "(192, 10,000)")
    return box


def _in_chunks(c: Canvas, x: float, y: float) -> None:
    """Draw one chunk on its way to the gradients; of the chunks before and after it there are only outlines."""
    table = _table(c, x + 66, y - 62)
    bands = _bands(c, x, y, noisy("blue", 6), CHUNKS)
    named(c, _whole(bands), "x", "(2,000, 128)")
    for chunk, band in enumerate(bands):
        if chunk != NOW:
            c.box(table.x, band.y, table.w, band.h, "used, then dropped" if chunk < NOW else "later", "grey", 10.5,
                  radius=2, dash="3 3")  # fmt: skip
    band = bands[NOW]
    c.frame(band.x - 2, band.y - 2, band.w + 4, band.h + 4, INK, radius=4, stroke=1.6)
    logits = _chunk(c, "logits", table.x, band.y)
    _product(c, band, table, logits)
    gradient = _chunk(c, "gradient", table.x, y + 190)
    bend = logits.x + logits.w + 20
    pill = operator(c, bend, y + 146, "softmax − label", "purple", 128)
    c.line((logits.x + logits.w + 4, logits.centre[1]), (bend, logits.centre[1]), pill.top)
    c.arrow(pill.bottom, (bend, gradient.centre[1]), (gradient.x + gradient.w + 3, gradient.centre[1]))
    _gradients(c, x, gradient)


def _gradients(c: Canvas, x: float, gradient: Box) -> None:
    """Draw what the gradient of the logits is used for at once: a band of one gradient, a part of the other."""
    colour = TONES["orange"].edge
    bands = _bands(c, x, gradient.y - NOW * (ROWS * CELL + GAP), noisy("orange", 8), NOW + 1)
    named(c, _whole(bands), "gradient of x", "(2,000, 128)")
    band = bands[NOW]
    c.frame(band.x - 2, band.y - 2, band.w + 4, band.h + 4, INK, radius=4, stroke=1.6)
    c.arrow((gradient.x - 4, gradient.centre[1]), (band.x + band.w + 5, band.centre[1]), colour=colour, stroke=1.6)
    c.text((gradient.x + band.x + band.w) / 2, band.y - 2, "· W", 11.5, "mono")
    total = c.matrix(gradient.x, gradient.y + 76, FEATURES, WORDS, CELL, noisy("orange", 4))
    plus = c.plus(total.centre[0], gradient.y + 52, "orange")
    c.arrow((plus.centre[0], gradient.y + gradient.h + 4), plus.top, colour=colour, stroke=1.6)
    c.text(plus.centre[0] + 10, gradient.y + 31, "xᵀ ·", 11.5, "mono", anchor="start")
    c.arrow(plus.bottom, (plus.centre[0], total.y - 3), colour=colour, stroke=1.6)
    bend = total.x + total.w + 20
    c.arrow((total.x + total.w + 4, total.centre[1]), (bend, total.centre[1]), (bend, plus.centre[1]), plus.right,
            colour=colour, stroke=1.6)  # fmt: skip
    c.text(bend + 16, plus.centre[1] + 12, "sum of the\nchunks", 11.5, colour=MUTED, anchor="start")
    c.text(total.centre[0], total.y + total.h + 14, "gradient of Wᵀ", 13, "bold")
    c.text(total.centre[0], total.y + total.h + 32, "(128, 10,000)", 11.5, "mono", MUTED)


# Three hypotheses: the word that each reads at every step, and who continues whom after a step.
READ = [["<s>", "<s>", "<s>"], ["ti", "amo", "io"], ["amo", "te", "ti"], ["amo", "molto", "tanto"]]
PARENTS = {3: [2, 0, 0]}
SLOTS, STEPS = 3, len(READ)
TONE = ("blue", "green", "orange")  # by the slot that wrote the cell

Cell = tuple[int, int]  # slot, step
Mask = frozenset[Cell]


def copied(steps: int) -> list[list[Cell]]:
    """Return what each row of the usual cache holds after so many steps: where its cells were written."""
    rows: list[list[Cell]] = [[] for _ in range(SLOTS)]
    for step in range(1, steps + 1):
        rows = [[*rows[parent], (slot, step)] for slot, parent in enumerate(PARENTS.get(step - 1, range(SLOTS)))]
    return rows


def masks(steps: int) -> list[Mask]:
    """Return which cells are the past of each hypothesis, when the cells stay and the masks change places."""
    family: list[Mask] = [frozenset()] * SLOTS
    for step in range(1, steps + 1):
        family = [family[parent] | {(slot, step)} for slot, parent in enumerate(PARENTS.get(step - 1, range(SLOTS)))]
    return family


def word(cell: Cell) -> str:
    slot, step = cell
    return READ[step - 1][slot]


CELL_SIZE, MASK_CELL = (50, 26), 15


def family() -> Canvas:
    """Draw a cache whose rows are copied when hypotheses change places, and one that stays, with masks."""
    c = Canvas(
        900,
        524,
        "When hypotheses change places, a usual cache copies its rows; here the cells stay where they were written, "
        "and three small masks change places",
    )
    heading(c, 30, 34, "the usual way: the cache is copied")
    note(c, 870, 34, "one cell = the key and the value of one word", "end")
    _copies(c, 94)
    c.line((30, 206), (870, 206), colour=EDGE)
    heading(c, 30, 238, "the way here: the cache stays, a mask says whose past it is")
    _stays(c, 300)
    note(c, 450, 500, "masks change places, keys and values do not; each step writes the next column")
    return c


def _cells(c: Canvas, x: float, y: float, rows: Sequence[Sequence[Cell]], used: Mask | None = None) -> list[Box]:
    """Draw rows of cached words, coloured by the slot that wrote them; what nobody uses is an outline."""
    w, h = CELL_SIZE
    for j in range(max(map(len, rows))):
        c.text(x + w * (j + 0.5), y - 10, str(j + 1), 10.5, "mono", MUTED)
    for i, row in enumerate(rows):
        c.text(x - 12, y + (h + 4) * i + h / 2, str(i), 11.5, "mono", MUTED, "end")
        for j, cell in enumerate(row):
            asleep = used is not None and cell not in used
            c.box(x + w * j + 3, y + (h + 4) * i, w - 6, h, word(cell), "grey" if asleep else TONE[cell[0]], 11,
                  "mono", radius=5, dash="3 3" if asleep else None)  # fmt: skip
    return [Box(x, y + (h + 4) * i, w * len(row), h) for i, row in enumerate(rows)]


def _newest(c: Canvas, rows: Sequence[Box]) -> None:
    """Frame the column that the last step wrote."""
    w, last = CELL_SIZE[0], rows[-1]
    c.frame(last.x + last.w - w, rows[0].y - 3, w, last.y + last.h - rows[0].y + 6, INK, radius=7, stroke=1.6)


def _turns(c: Canvas, starts: Sequence[Box], ends: Sequence[Box]) -> None:
    """Draw an arrow from each parent to the place that its child takes."""
    for slot, parent in enumerate(PARENTS[STEPS - 1]):
        (x0, y0), (x1, y1), colour = starts[parent].right, ends[slot].left, TONES[TONE[parent]].edge
        x0, x1 = x0 + 6, x1 - 28
        middle = (x0 + x1) / 2
        c.path(f"M{x0:g} {y0:g} C{middle:g} {y0:g} {middle:g} {y1:g} {x1 - 6:g} {y1:g}", colour, 2)
        c.head((x1, y1), (1, 0), 6.2, colour)


def _copies(c: Canvas, y: float) -> None:
    """Draw the cache before hypotheses change places, and after it, with one more step."""
    c.text(62, y - 32, f"after step {STEPS - 1}", 12, "bold", anchor="start")
    c.text(424, y - 32, f"after step {STEPS}", 12, "bold", anchor="start")
    before, after = _cells(c, 62, y, copied(STEPS - 1)), _cells(c, 424, y, copied(STEPS))
    _turns(c, before, after)
    c.text(304, y - 20, f"select({PARENTS[STEPS - 1]})", 11.5, "mono")
    _newest(c, after)
    note(c, 650, y + 43, "every cell of the past moves,\nin every layer, at every step", "start")


def _mask(c: Canvas, x: float, y: float, mask: Mask) -> Box:
    """Draw which cells are the past of one hypothesis, and the path that they form."""
    size = MASK_CELL
    box = c.matrix(x, y, SLOTS, STEPS, size, lambda i, j: TONES["teal"].edge if (i, j + 1) in mask else WHITE,
                   "#b6c2d1")  # fmt: skip
    path = [(x + size * (step - 0.5), y + size * (slot + 0.5)) for slot, step in _in_order(mask)]
    for start, end in pairwise(path):
        c.line(start, end, colour=INK, stroke=1.6)
    for dot in path:
        c.add("circle", cx=dot[0], cy=dot[1], r=2.4, fill=INK)
    return box


def _in_order(mask: Mask) -> list[Cell]:
    return sorted(mask, key=lambda cell: cell[1])


def _stays(c: Canvas, y: float) -> None:
    """Draw the cache that nobody moves, and the masks before and after hypotheses change places."""
    old, new, pitch = masks(STEPS - 1), masks(STEPS), SLOTS * MASK_CELL + 16
    c.text(62, y - 32, "the only cache", 12, "bold", anchor="start")
    cells = [[(slot, step) for step in range(1, STEPS + 1)] for slot in range(SLOTS)]
    cache = _cells(c, 62, y + 4, cells, frozenset().union(*new))
    _newest(c, cache)
    note(c, 65, y + 120, "row = slot · column = step\ndashed = nobody's past any more", "start", 11.5)
    for x, title in ((362, f"masks after step {STEPS - 1}"), (584, f"masks after step {STEPS}")):
        c.text(x, y - 32, title, 12, "bold", anchor="start")
    before = [_mask(c, 362, y + pitch * i, mask) for i, mask in enumerate(old)]
    after = [_mask(c, 584, y + pitch * i, mask) for i, mask in enumerate(new)]
    for i, (left, right) in enumerate(zip(before, after, strict=True)):
        for box in (left, right):
            c.text(box.x - 12, box.centre[1], str(i), 11.5, "mono", MUTED, "end")
        c.text(right.x + right.w + 18, right.centre[1], " ".join(map(word, _in_order(new[i]))), 12, "mono",
               anchor="start")  # fmt: skip
    _turns(c, before, after)
    c.text(494, y - 12, f"select({PARENTS[STEPS - 1]})", 11.5, "mono")


DIAGRAMS: dict[str, Callable[[], Canvas]] = {"15_chunks": chunks, "15_family": family}
