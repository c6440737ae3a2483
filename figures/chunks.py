"""The diagram of chapter 15: the loss in chunks."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from canvas import EDGE, INK, MUTED, TONES, Box, Canvas
from parts import heading, named, noise, noisy, note, operator, shade, softmax

# The sizes that are written beside the matrices: those of the chapter's small model.
TOKENS = 2_000
WIDTH = 128
VOCAB = 10_000
CHUNK = 192  # tokens, as in chunked_cross_entropy

# The last layer, drawn as small as possible.
FEATURES = 2
WORDS = 18  # in the vocabulary
CHUNKS = 4
ROWS = 2  # tokens in a chunk
NOW = 1  # the chunk at work
CELL = 10
GAP = 7
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


def _shape(rows: int, columns: int) -> str:
    return f"({rows:,}, {columns:,})"


def _megabytes(rows: int, columns: int) -> str:
    """Return the size of a matrix in float32, such as 80 MB or 7.7 MB."""
    return f"{4 * rows * columns / 1e6:.2g} MB"


def chunks() -> Canvas:
    """Draw cross-entropy over all tokens at once, and beside it in chunks."""
    c = Canvas(
        900,
        506,
        "Cross-entropy at once makes logits, log-softmax and gradient of all tokens; "
        "in chunks those of a few tokens are turned into the gradients of x and W and dropped",
    )
    heading(c, 30, 34, "all at once")
    heading(c, 468, 34, f"in chunks of {CHUNK} tokens")
    c.line((446, 24), (446, 484), colour=EDGE)
    _at_once(c, 62, 136)
    _in_chunks(c, 500, 136)
    note(c, 30, 482, "the more tokens, the more memory", "start")
    size = _megabytes(CHUNK, VOCAB)
    note(c, 468, 482, f"{size} each, then dropped; what stays is as large as x and W", "start")
    return c


def _beside(c: Canvas, x: float, y: float, name: str, shape: str) -> None:
    """Write a name and its shape at the right of a matrix."""
    c.text(x, y - 9, name, 13, "bold", anchor="start")
    c.text(x, y + 9, shape, 11.5, "mono", MUTED, "start")


def _table(c: Canvas, x: float, y: float) -> Box:
    table = c.matrix(x, y, FEATURES, WORDS, CELL, noisy("rose", 2))
    _beside(c, x + table.w + 14, table.centre[1], "Wᵀ", _shape(WIDTH, VOCAB))
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
    named(c, states, "x", _shape(TOKENS, WIDTH))
    size = _megabytes(TOKENS, VOCAB)
    names = {"logits": "logits", "softmax": "log-softmax", "gradient": "gradient"}
    sizes = {
        "logits": f"{size} in float32",
        "softmax": f"{size} again,\nkept until the\nbackward pass",
        "gradient": f"{size} again",
    }
    places = [Box(table.x, y + 112 * i, table.w, CHUNKS * ROWS * CELL) for i in range(3)]
    for box, (kind, size) in zip(places, sizes.items(), strict=True):
        c.matrix(
            box.x, box.y, CHUNKS * ROWS, WORDS, CELL, lambda i, j, kind=kind: _entry(kind, i, j)
        )
        lines = size.count("\n")
        top = box.centre[1] - 16 - 7.5 * lines
        _beside(c, box.x + box.w + 14, top + 7, names[kind], _shape(TOKENS, VOCAB))
        note(c, box.x + box.w + 14, top + 34 + 7.5 * lines, size, "start", 11.5)
    _product(c, states, table, places[0])
    for above, below in pairwise(places):
        c.arrow((above.bottom[0], above.y + above.h + 4), (below.top[0], below.y - 3))


def _bands(c: Canvas, x: float, y: float, fill: Callable[[int, int], str], full: int) -> list[Box]:
    """Draw a tall matrix cut into chunks, of which the first are full and the others outlines."""
    bands = [
        Box(x, y + i * (ROWS * CELL + GAP), FEATURES * CELL, ROWS * CELL) for i in range(CHUNKS)
    ]
    for chunk, band in enumerate(bands):
        if chunk < full:
            c.matrix(
                x, band.y, ROWS, FEATURES, CELL, lambda i, j, chunk=chunk: fill(ROWS * chunk + i, j)
            )
        else:
            c.box(*band, tone="grey", radius=2, dash="3 3")
    return bands


def _whole(bands: Sequence[Box]) -> Box:
    first = bands[0]
    last = bands[-1]
    return Box(first.x, first.y, first.w, last.y + last.h - first.y)


def _chunk(c: Canvas, kind: str, x: float, y: float) -> Box:
    """Draw the logits or the gradient of the chunk at work, named at the right."""
    box = c.matrix(x, y, ROWS, WORDS, CELL, lambda i, j: _entry(kind, ROWS * NOW + i, j))
    _beside(c, x + box.w + 36, box.centre[1], kind, _shape(CHUNK, VOCAB))
    return box


def _in_chunks(c: Canvas, x: float, y: float) -> None:
    """Draw one chunk on its way to the gradients; the chunks before and after it are outlines."""
    table = _table(c, x + 66, y - 62)
    bands = _bands(c, x, y, noisy("blue", 6), CHUNKS)
    named(c, _whole(bands), "x", _shape(TOKENS, WIDTH))
    for chunk, band in enumerate(bands):
        if chunk != NOW:
            c.box(
                table.x,
                band.y,
                table.w,
                band.h,
                "used, then dropped" if chunk < NOW else "later",
                "grey",
                10.5,
                radius=2,
                dash="3 3",
            )
    band = bands[NOW]
    c.frame(band.x - 2, band.y - 2, band.w + 4, band.h + 4, INK, radius=4, stroke=1.6)
    logits = _chunk(c, "logits", table.x, band.y)
    _product(c, band, table, logits)
    gradient = _chunk(c, "gradient", table.x, y + 190)
    bend = logits.x + logits.w + 20
    pill = operator(c, bend, y + 146, "softmax − label", "purple", 128)
    c.line((logits.x + logits.w + 4, logits.centre[1]), (bend, logits.centre[1]), pill.top)
    c.arrow(
        pill.bottom, (bend, gradient.centre[1]), (gradient.x + gradient.w + 3, gradient.centre[1])
    )
    _gradients(c, x, gradient)


def _gradients(c: Canvas, x: float, gradient: Box) -> None:
    """Draw the use of the logits' gradient: a band of one gradient, a summand of the other."""
    colour = TONES["orange"].edge
    bands = _bands(c, x, gradient.y - NOW * (ROWS * CELL + GAP), noisy("orange", 8), NOW + 1)
    named(c, _whole(bands), "gradient of x", _shape(TOKENS, WIDTH))
    band = bands[NOW]
    c.frame(band.x - 2, band.y - 2, band.w + 4, band.h + 4, INK, radius=4, stroke=1.6)
    c.arrow(
        (gradient.x - 4, gradient.centre[1]),
        (band.x + band.w + 5, band.centre[1]),
        colour=colour,
        stroke=1.6,
    )
    c.text((gradient.x + band.x + band.w) / 2, band.y - 2, "· W", 11.5, "mono")
    total = c.matrix(gradient.x, gradient.y + 76, FEATURES, WORDS, CELL, noisy("orange", 4))
    plus = c.plus(total.centre[0], gradient.y + 52, "orange")
    c.arrow((plus.centre[0], gradient.y + gradient.h + 4), plus.top, colour=colour, stroke=1.6)
    c.text(plus.centre[0] + 10, gradient.y + 31, "xᵀ ·", 11.5, "mono", anchor="start")
    c.arrow(plus.bottom, (plus.centre[0], total.y - 3), colour=colour, stroke=1.6)
    bend = total.x + total.w + 20
    c.arrow(
        (total.x + total.w + 4, total.centre[1]),
        (bend, total.centre[1]),
        (bend, plus.centre[1]),
        plus.right,
        colour=colour,
        stroke=1.6,
    )
    c.text(bend + 16, plus.centre[1] + 12, "sum of the\nchunks", 11.5, colour=MUTED, anchor="start")
    c.text(total.centre[0], total.y + total.h + 14, "gradient of Wᵀ", 13, "bold")
    c.text(total.centre[0], total.y + total.h + 32, _shape(WIDTH, VOCAB), 11.5, "mono", MUTED)


DIAGRAMS: dict[str, Callable[[], Canvas]] = {"15_chunks": chunks}
