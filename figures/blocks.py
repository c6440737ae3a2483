"""The diagrams of chapters 0 to 3: path length, embeddings, positions, attention."""

import math
from collections.abc import Callable
from itertools import pairwise

from canvas import EDGE, INK, LINE, MUTED, PALE, TONES, WHITE, Box, Canvas
from parts import (
    SOURCE,
    SOURCE_IDS,
    heading,
    named,
    noise,
    noisy,
    note,
    operator,
    shade,
    softmax,
    token_row,
)

HIDDEN = {5, 6}  # the keys that 03_attention masks: two tokens of padding


def attention() -> Canvas:
    """Draw scaled dot-product attention as matrices, for 5 queries and 7 keys."""
    c = Canvas(
        880,
        346,
        "Scaled dot-product attention: queries and keys give scores, "
        "scores give weights, weights mix the values",
    )
    top = 92
    cell = 16
    scores = [[round(4 * noise(i + 2, j + 3, 8) - 1.6, 1) for j in range(7)] for i in range(5)]
    weights = [
        softmax([s * 1.4 if j not in HIDDEN else -1e9 for j, s in enumerate(row)]) for row in scores
    ]
    q = c.matrix(36, top, 5, 4, cell, noisy("blue", 1))
    k = c.matrix(36, top + 148, 4, 7, (cell, 13), noisy("orange", 2))
    raw = c.matrix(
        166, top, 5, 7, cell, lambda i, j: shade("purple", 0.1 + 0.2 * (scores[i][j] + 1.6))
    )
    masked = c.matrix(
        364,
        top,
        5,
        7,
        cell,
        lambda i, j: PALE if j in HIDDEN else shade("purple", 0.1 + 0.2 * (scores[i][j] + 1.6)),
    )
    mixed = c.matrix(
        570,
        top,
        5,
        7,
        cell,
        lambda i, j: shade("purple", min(1, 1.7 * weights[i][j])) if j not in HIDDEN else WHITE,
    )
    v = c.matrix(616, top + 148, 7, 4, (cell, 11), noisy("green", 3))
    out = c.matrix(780, top, 5, 4, cell, noisy("green", 5))
    _attention_labels(c, q, k, raw, masked, mixed, v, out)
    _attention_flow(c, q, k, raw, masked, mixed, v, out)
    return c


def _attention_labels(
    c: Canvas, q: Box, k: Box, raw: Box, masked: Box, mixed: Box, v: Box, out: Box
) -> None:
    named(c, q, "Q", "(q, d_head)")
    named(c, k, "Kᵀ", "(d_head, k)")
    named(c, raw, "scores", "(q, k)")
    named(c, masked, "masked", "(q, k)")
    named(c, mixed, "weights", "(q, k)")
    named(c, v, "V", "(k, d_v)")
    named(c, out, "output", "(q, d_v)")
    for i in range(5):
        for j in HIDDEN:
            c.text(masked.x + 16 * j + 8, masked.y + 16 * i + 8, "−∞", 8.5, colour=MUTED)
    c.frame(mixed.x, mixed.y, mixed.w, mixed.h, EDGE, radius=0, stroke=0.8)
    for box in (q, raw, masked, mixed, out):
        c.frame(box.x - 1.5, box.y + 30.5, box.w + 3, 19, INK, radius=4, stroke=1.6)
    heading(c, 36, 34, "softmax(QKᵀ / √d_head) V")
    note(c, 844, 34, "one row = one query · one column = one key", "end")


def _attention_flow(
    c: Canvas, q: Box, k: Box, raw: Box, masked: Box, mixed: Box, v: Box, out: Box
) -> None:
    y = q.centre[1]
    dot = c.circle(136, y, 9)
    c.text(136, y, "·", 17, "bold")
    c.arrow((q.x + q.w + 5, y), dot.left)
    c.arrow((136, k.y - 4), dot.bottom)
    c.arrow(dot.right, (raw.x - 3, y))
    _through(c, raw, masked, y, [("scale", "plain")])
    _through(c, masked, mixed, y, [("softmax", "purple")])
    top_of_mask = 240
    mask = c.matrix(
        masked.x,
        top_of_mask,
        1,
        7,
        16,
        lambda _, j: WHITE if j in HIDDEN else TONES["teal"].edge,
        EDGE,
    )
    c.text(mask.x - 8, mask.centre[1], "mask", 12, "mono", anchor="end")
    note(c, mask.centre[0], mask.y + 29, "True = may attend", size=11.5)
    c.arrow((mask.centre[0], mask.y - 3), (mask.centre[0], masked.y + masked.h + 24))
    note(c, mixed.centre[0], mixed.y + mixed.h + 32, "every row sums to 1", size=11.5)
    times = c.circle(732, y, 9)
    c.text(732, y, "·", 17, "bold")
    c.arrow((mixed.x + mixed.w + 4, y), times.left)
    c.arrow((v.x + v.w + 4, v.centre[1]), (732, v.centre[1]), times.bottom)
    c.arrow(times.right, (out.x - 3, y))


def _through(c: Canvas, start: Box, end: Box, y: float, steps: list[tuple[str, str]]) -> None:
    """Draw an arrow from one matrix to the next through a pill."""
    middle = (start.x + start.w + end.x) / 2
    for label, tone in steps:
        pill = operator(c, middle, y, label, tone, 64)
        c.arrow((start.x + start.w + 4, y), pill.left)
        c.arrow(pill.right, (end.x - 3, y))


def path_length() -> Canvas:
    """Draw how far a signal travels between two words: in a recurrent network and in attention."""
    c = Canvas(
        880,
        292,
        "Seven words in a recurrent network, six steps apart, and in attention, one step apart",
    )
    heading(c, 30, 34, "recurrent network")
    heading(c, 470, 34, "attention")
    _chain(c, 30)
    _fan(c, 470)
    note(c, 217, 268, "t − 1 steps, one after the other")
    note(c, 657, 268, "1 step, and all words at the same time")
    c.line((440, 24), (440, 270), colour=EDGE)
    return c


def _chain(c: Canvas, x: float) -> None:
    words = token_row(c, x, 208, SOURCE, 48, tone=lambda i: "orange" if i in (0, 6) else "plain")
    states = [
        c.box(word.x + 4, 128, 40, 34, f"s{i + 1}", "orange", 12, "mono")
        for i, word in enumerate(words)
    ]
    for word, state in zip(words, states, strict=True):
        c.arrow(word.top, state.bottom, colour=TONES["orange"].edge if word is words[0] else LINE)
    for i, (state, following) in enumerate(pairwise(states)):
        middle = (state.x + state.w + following.x) / 2
        c.arrow(state.right, following.left, colour=TONES["orange"].edge, stroke=2)
        c.text(middle, 112, str(i + 1), 12, "bold", TONES["orange"].edge)
    c.text(states[3].centre[0], 80, "6 steps from there to mat", 13, "bold", TONES["orange"].edge)


def _fan(c: Canvas, x: float) -> None:
    words = token_row(c, x, 208, SOURCE, 48, tone=lambda i: "blue" if i in (0, 6) else "plain")
    above = [
        c.box(word.x + 4, 96, 40, 34, tone="blue" if word is words[-1] else "plain")
        for word in words
    ]
    for word in words:
        for target in above[:-1]:
            c.line(
                (word.top[0], word.y - 3),
                (target.bottom[0], target.y + 37),
                colour=EDGE,
                stroke=0.7,
            )
    for word in words[1:]:
        c.line(
            (word.top[0], word.y - 3),
            (above[-1].bottom[0], above[-1].y + 37),
            colour=TONES["blue"].edge,
            stroke=0.9,
        )
    c.arrow(
        (words[0].top[0], 205), (above[-1].bottom[0], 132), colour=TONES["blue"].edge, stroke=2.2
    )
    c.text(above[3].centre[0], 74, "1 step from there to mat", 13, "bold", TONES["blue"].edge)


def lookup() -> Canvas:
    """Draw a sentence on its way to vectors: tokens, ids, rows of the table."""
    c = Canvas(
        880,
        400,
        "A sentence becomes tokens, ids and rows of the embedding table, in all 7 by 24 numbers",
    )
    c.text(440, 32, " ".join(SOURCE), 15, "mono")
    columns = (
        ("tokens", "(7,)"),
        ("ids", "(7,)"),
        ("embedding table", "(588, 24)"),
        ("vectors", "(7, 24)"),
    )
    for x, (name, shape) in zip((80, 236, 474, 766), columns, strict=True):
        c.text(x, 70, name, 13, "bold")
        c.text(x, 374, shape, 12, "mono", MUTED)
    ids = dict(zip(SOURCE, SOURCE_IDS, strict=True))
    rows = _table(c, 384, 92, ids)
    # The word that is followed comes last, so that its line lies on top.
    for place, word in sorted(enumerate(SOURCE), key=lambda item: item[1] == "cat"):
        _look_up(c, 92 + 36 * place, word, ids[word], rows[ids[word]])
    return c


def _look_up(c: Canvas, y: float, word: str, number: int, row: Box) -> None:
    """Draw the way of one word; cat is the one to follow."""
    followed = word == "cat"
    tone = "rose" if followed else "plain"
    token = c.box(44, y, 72, 26, word, tone, 12, "mono", radius=5)
    index = c.box(216, y, 40, 26, str(number), tone, 12, "mono", radius=5)
    vector = c.matrix(676, y + 3, 1, 10, (18, 20), lambda _, j: noisy("rose", 7)(number, j))
    colour, stroke = (TONES["rose"].edge, 2.0) if followed else ("#a8b3c2", 1.0)
    c.arrow(token.right, index.left, colour=colour, stroke=stroke)
    c.arrow(index.right, (row.x - 38, row.centre[1]), colour=colour, stroke=stroke)
    c.arrow(
        (row.x + 184, row.centre[1]), (vector.x - 4, vector.centre[1]), colour=colour, stroke=stroke
    )


def _table(c: Canvas, x: float, y: float, ids: dict[str, int]) -> dict[int, Box]:
    """Draw those rows of the embedding table that the words look up, in the order of their ids."""
    rows = {
        number: c.matrix(
            x, y + 27 * i, 1, 10, (18, 22), lambda _, j, n=number: noisy("rose", 7)(n, j)
        )
        for i, number in enumerate(sorted(ids.values()))
    }
    c.matrix(
        x, y + 27 * 9 - 9, 1, 10, (18, 22), lambda _, j: shade("rose", 0.12 + 0.2 * noise(j, 9))
    )
    c.text(x + 90, y + 27 * 7 + 16, "⋮", 18, colour=MUTED)
    for word, i in ids.items():
        c.text(
            x - 8,
            rows[i].centre[1],
            str(i),
            11.5,
            "mono",
            TONES["rose"].edge if word == "cat" else MUTED,
            "end",
        )
    c.text(x - 8, y + 27 * 9 + 2, "587", 11.5, "mono", MUTED, "end")
    return rows


def rotation() -> Canvas:
    """Draw pairs (sin ωt, cos ωt) as clock hands, each turned by a shift of 3 positions."""
    c = Canvas(
        880,
        400,
        "A pair of sine and cosine is a clock hand; "
        "a shift by 3 positions is a turn by 3ω, wherever it starts",
    )
    heading(c, 40, 34, "each pair of features is a clock hand")
    note(c, 840, 34, "the hand of position t points to (sin ωt, cos ωt)", "end")
    for x, omega, name in ((160, 1.0, "pair 0"), (440, 10**-0.5, "pair 32"), (720, 0.1, "pair 64")):
        _clock(c, x, 172, 92, omega)
        c.text(x, 294, f"{name}: ω = {omega:.2g}", 12.5, "mono")
        note(c, x, 314, f"3 positions = a turn of {3 * omega:.2g} rad")
    _turn(c, 440, 360)
    return c


def _hand(x: float, y: float, r: float, angle: float) -> tuple[float, float]:
    return x + r * math.sin(angle), y - r * math.cos(angle)


def _clock(c: Canvas, x: float, y: float, r: float, omega: float) -> None:
    c.circle(x, y, r, "grey")
    for t in range(7):
        c.add(
            "circle",
            cx=_hand(x, y, r, omega * t)[0],
            cy=_hand(x, y, r, omega * t)[1],
            r=2.4,
            fill=MUTED,
        )
        if omega > 0.2 or t in (0, 2, 5):
            c.text(
                *_hand(x, y, r + 13, omega * t),
                str(t),
                11.5,
                "mono",
                INK if t in (0, 2, 3, 5) else MUTED,
            )
    for start, radius, tone in ((0, 0.42, "teal"), (2, 0.68, "orange")):
        for t in (start, start + 3):
            c.line(
                (x, y),
                _hand(x, y, r - 3, omega * t),
                colour=TONES[tone].edge,
                stroke=2.2,
                dash="4 3" if t == start else None,
            )
        _arc(c, x, y, r * radius, omega * start, omega * (start + 3), TONES[tone].edge)
    c.add("circle", cx=x, cy=y, r=3.4, fill=INK)


def _arc(c: Canvas, x: float, y: float, r: float, start: float, end: float, colour: str) -> None:
    """Draw a turn from one angle to another, with a head at its end."""
    size = 6.0
    stop = end - size / r
    x0, y0 = _hand(x, y, r, start)
    x1, y1 = _hand(x, y, r, stop)
    tip = _hand(x, y, r, end)
    c.path(
        f"M{x0:.2f} {y0:.2f} A{r:.2f} {r:.2f} 0 {int(stop - start > math.pi)} 1 {x1:.2f} {y1:.2f}",
        colour,
        1.8,
    )
    direction = end - size / r / 2
    c.head(tip, (math.cos(direction), math.sin(direction)), size, colour)


def _turn(c: Canvas, x: float, y: float) -> None:
    """Write the shift by s as a matrix product."""
    columns = (
        (-196, "sin ω(t+s)", "cos ω(t+s)", 45),
        (-46, " cos ωs  sin ωs", "−sin ωs  cos ωs", 66),
        (62, "sin ωt", "cos ωt", 30),
    )
    for dx, upper, lower, half in columns:
        c.text(x + dx, y - 10, upper, 12.5, "mono")
        c.text(x + dx, y + 10, lower, 12.5, "mono")
        for side in (-1, 1):
            edge = x + dx + side * half
            c.line(
                (edge - side * 5, y - 20),
                (edge, y - 20),
                (edge, y + 20),
                (edge - side * 5, y + 20),
                colour=INK,
            )
    c.text(x - 131, y, "=", 14, "mono")
    note(c, x + 112, y, "the same turn for every t", "start")


DIAGRAMS: dict[str, Callable[[], Canvas]] = {
    "00_path_length": path_length,
    "01_lookup": lookup,
    "02_rotation": rotation,
    "03_attention": attention,
}
