"""The diagrams of chapters 4 to 6: heads, residual and norm, feed-forward."""

from collections.abc import Callable

from canvas import EDGE, LINE, MUTED, TONES, WHITE, Box, Canvas, Tone, blend
from parts import SOURCE, heading, named, noise, noisy, note, operator, shade

HEADS = ["#2f6fe0", "#12908a", "#2f9150", "#c99a06", "#e2761b", "#d64562", "#b14fc5", "#7c4ddb"]


def heads() -> Canvas:
    """Draw 512 features split over 8 heads of 64, attention in each, and the way back."""
    c = Canvas(
        880,
        400,
        "Queries, keys and values are split over 8 heads of 64 features, "
        "each head attends, and the results are joined",
    )
    x = c.matrix(28, 160, 7, 8, (9, 11), noisy("rose", 4))
    named(c, x, "x", "(b, t, 512)")
    _projections(c, x)
    for h, colour in enumerate(HEADS):
        box = c.box(
            386,
            44 + 40 * h,
            164,
            30,
            f"attention, head {h}",
            Tone(blend(colour, WHITE, 0.84), colour),
            12,
        )
        c.arrow((332, box.centre[1]), box.left, colour=colour)
        c.line(box.right, (580, box.centre[1]), colour=colour)
    _join(c, 198.5)
    for middle, shape in (
        (220, "b t (h d_head) → b h t d_head"),
        (468, "(b, h, t, 64)"),
        (656, "b h t d_head → b t (h d_head)"),
    ):
        c.text(middle, 380, shape, 11.5, "mono", MUTED)
    return c


def _striped(c: Canvas, x: float, y: float, seed: int) -> Box:
    """Draw a matrix whose columns are coloured by head."""
    return c.matrix(
        x, y, 7, 8, (11, 11), lambda i, j: blend(WHITE, HEADS[j], 0.3 + 0.5 * noise(i, j, seed))
    )


def _join(c: Canvas, y: float) -> None:
    """Draw the heads' results side by side, and the last projection."""
    joined = _striped(c, 612, 160, 6)
    out = c.matrix(788, 160, 7, 8, (8, 11), noisy("orange", 9))
    pill = operator(c, 744, y, "w_o", "orange", 44)
    c.line((580, 59), (580, 339), stroke=2)
    c.arrow((580, y), (joined.x - 3, y))
    c.arrow((joined.x + joined.w + 4, y), pill.left)
    c.arrow(pill.right, (out.x - 3, y))
    named(c, joined, "joined", "(b, t, 512)")
    named(c, out, "output", "(b, t, 512)")


def _projections(c: Canvas, x: Box) -> None:
    """Draw the three projections, their columns coloured by head, and the lines that leave them."""
    for name, y in (("q", 60), ("k", 160), ("v", 260)):
        pill = operator(c, 156, y + 38.5, f"w_{name}", "orange", 44)
        made = _striped(c, 206, y, y)
        start = (x.x + x.w + 4, x.centre[1])
        if y == 160:
            c.arrow(start, pill.left)
        else:
            c.arrow(start, (118, start[1]), (118, pill.centre[1]), pill.left)
        c.arrow(pill.right, (made.x - 3, pill.centre[1]))
        c.text(made.centre[0], y - 12, name, 13, "monobold")
        c.line((made.x + made.w + 4, pill.centre[1]), (332, pill.centre[1]))
    c.line((332, 59), (332, 339), stroke=2)


def residual() -> Canvas:
    """Draw one sublayer with its residual and norm in both orders."""
    c = Canvas(
        780,
        400,
        "Post-norm has its norm after the sum, on the main path; "
        "pre-norm before the sublayer, in the branch",
    )
    heading(c, 200, 34, "post-norm (the paper, our default)", "middle")
    heading(c, 590, 34, "pre-norm", "middle")
    c.line((390, 24), (390, 376), colour=EDGE)
    _residual(c, 210, ["sublayer", "dropout", "+", "norm"], 316)
    c.text(210, 374, "norm(x + dropout(sublayer(x)))", 12, "mono")
    _residual(c, 600, ["norm", "sublayer", "dropout", "+"], 316)
    c.text(600, 374, "x + dropout(sublayer(norm(x)))", 12, "mono")
    note(c, 62, 206, "every layer's\nnorm is on\nthe way", size=11.5)
    note(c, 452, 206, "nothing is\non the way;\none last norm\nat the end", size=11.5)
    return c


def _residual(c: Canvas, x: float, blocks: list[str], y: float) -> None:
    """Draw the blocks from bottom to top, and the path of x around the branch."""
    tones = {"sublayer": "blue", "dropout": "plain", "norm": "yellow"}
    path = TONES["rose"].edge
    below = (x, y + 18)
    joint = (x, y)
    c.text(x, y + 30, "x", 14, "monobold")
    for i, block in enumerate(blocks):
        at = y - 46 - 58 * i
        if block == "+":
            box = c.plus(x, at + 2, "rose", 10)
            total = box
        else:
            box = c.box(x - 62, at - 15, 124, 32, block, tones[block])
        on_path = block == "norm" and i == 3
        colour = path if on_path else LINE
        c.arrow(below, box.bottom, colour=colour, stroke=2.2 if on_path else 1.3)
        below = box.top
    c.line((x, y + 18), joint, colour=path, stroke=2.2)
    beside = [(x - 88, y), (x - 88, total.centre[1])]
    c.arrow(joint, *beside, total.left, colour=path, stroke=2.2)
    c.arrow(below, (x, 58), colour=path, stroke=2.2)


def feed_forward() -> Canvas:
    """Draw the feed-forward network at each of seven positions, with the same weights."""
    c = Canvas(
        880, 372, "At every position the same two linear layers: 512 features, 2048 with ReLU, 512"
    )
    for y, height, label in ((86, 68, "w_2"), (210, 68, "w_1")):
        c.frame(20, y, 750, height, TONES["blue"].edge, shade("blue", 0.05), "4 4", 10)
        c.text(784, y + height / 2 - 9, label, 13, "monobold", TONES["blue"].edge, "start")
        note(c, 784, y + height / 2 + 9, "same weights", "start", 11)
    c.text(784, 182, "ReLU", 13, "bold", TONES["blue"].edge, "start")
    for i, word in enumerate(SOURCE):
        _column(c, 74 + 107 * i, word)
    note(c, 395, 32, "no arrow leads from one position to another", size=13)
    return c


def _column(c: Canvas, x: float, word: str) -> None:
    """Draw one position: narrow, wide, narrow."""
    c.box(x - 30, 332, 60, 26, word, "plain", 12, "mono", radius=5)
    c.arrow((x, 331), (x, 308))
    for low, high, y0, y1 in ((16, 46, 272, 216), (46, 16, 148, 92)):
        d = f"M{x - low} {y0} L{x - high} {y1} L{x + high} {y1} L{x + low} {y0} Z"
        c.path(d, blend(WHITE, TONES["blue"].edge, 0.45), 0.9, shade("blue", 0.2))
    c.box(x - 22, 282, 44, 22, "512", "blue", 11.5, "mono", radius=5)
    c.box(x - 48, 170, 96, 24, "2048", "blue", 11.5, "mono", radius=5)
    c.box(x - 22, 60, 44, 22, "512", "blue", 11.5, "mono", radius=5)
    for start, end in ((281, 273), (215, 196), (169, 150), (91, 84)):
        c.line((x, start), (x, end))


DIAGRAMS: dict[str, Callable[[], Canvas]] = {
    "04_heads": heads,
    "05_residual": residual,
    "06_feed_forward": feed_forward,
}
