"""The diagrams of chapters 10 to 12: batches, teacher forcing, the cache, the beam."""

import math
from collections.abc import Callable, Sequence

from canvas import EDGE, INK, MUTED, TONES, Box, Canvas
from parts import heading, noisy, note, token_row

# The two Italian sentences as transformer.example has them; the second is shorter and is padded.
IDS = {
    "<pad>": 0,
    "<s>": 1,
    "</s>": 2,
    "c": 43,
    "'": 4,
    "è": 30,
    "un": 101,
    "gatto": 348,
    "sul": 313,
    "tappeto": 314,
    "ti": 296,
    "amo": 561,
    "molto": 181,
}
FIRST = ["<s>", "c", "'", "è", "un", "gatto", "sul", "tappeto", "</s>"]
SECOND = ["<s>", "ti", "amo", "molto", "</s>", "<pad>", "<pad>", "<pad>", "<pad>"]
SOURCE_TOKENS = 8  # there is a cat on the mat </s>
SHORT = SECOND[1:4]
SPECIAL = {"<s>": "teal", "</s>": "teal", "<pad>": "grey"}


def batch() -> Canvas:
    """Draw two sentences on their way to a batch, and the shift from decoder input to labels."""
    c = Canvas(
        880,
        476,
        "Sentences become subwords with start, end and padding, then ids; "
        "decoder input and labels are one step apart",
    )
    _step(c, 52, "text", "")
    for y, line in ((40, "c'è un gatto sul tappeto"), (64, "ti amo molto")):
        c.text(176, y, line, 13, "mono", anchor="start")
    note(c, 800, 52, "a source has no <s>: it ends with </s>", "end")
    _step(c, 136, "subwords", "learned on the\ntraining split")
    _grid(c, 176, 108, [FIRST, SECOND], 66)
    _step(c, 236, "tgt", "(2, 9)")
    _grid(c, 176, 208, [FIRST, SECOND], 66, ids=True)
    _step(c, 346, "decoder input", "(2, 8) · tgt[:, :-1]")
    _grid(c, 176, 318, [FIRST[:-1], SECOND[:-1]], 66)
    _step(c, 432, "labels", "(2, 8) · tgt[:, 1:]")
    _grid(c, 176, 404, [FIRST[1:], SECOND[1:]], 66)
    for i in range(8):
        c.arrow((209 + 72 * i, 378), (209 + 72 * i, 401), colour=TONES["blue"].edge)
    note(c, 756, 390, "predict the next one", "start", 11.5, TONES["blue"].edge)
    note(c, 756, 448, "<pad> labels do\nnot count", "start", 11.5)
    c.line((30, 290), (850, 290), colour=EDGE)
    return c


def _step(c: Canvas, y: float, name: str, detail: str) -> None:
    c.text(30, y - (8 if detail else 0), name, 13, "bold", anchor="start")
    if detail:
        shape = detail.startswith("(")
        c.text(
            30,
            y + 10 + 5 * detail.count("\n"),
            detail,
            10.5 if shape else 11,
            "mono" if shape else "sans",
            MUTED,
            "start",
        )


def _grid(
    c: Canvas, x: float, y: float, rows: list[list[str]], w: float, ids: bool = False
) -> None:
    """Draw sentences as rows of tokens or of their ids."""
    for i, row in enumerate(rows):
        words = [str(IDS[token]) for token in row] if ids else row
        token_row(
            c, x, y + 30 * i, words, w, 25, tone=lambda j, row=row: SPECIAL.get(row[j], "green")
        )


def teacher_forcing() -> Canvas:
    """Draw training, with one pass for all positions, beside inference, with one for each token."""
    c = Canvas(
        900,
        372,
        "Training predicts every position in one pass; "
        "inference feeds each token back, a pass a token",
    )
    heading(c, 30, 34, "training: one pass")
    heading(c, 466, 34, "inference: one pass a token")
    c.line((442, 24), (442, 346), colour=EDGE)
    given = ["<s>", *SHORT]
    wanted = [*SHORT, "</s>"]
    low = token_row(c, 30, 262, given, 93, tone=lambda i: "teal" if i == 0 else "green", size=11)
    box = c.box(30, 168, 390, 44, "decoder, with the causal mask", "orange")
    high = token_row(c, 30, 92, wanted, 93, tone="purple", size=11)
    for below, above in zip(low, high, strict=True):
        c.arrow(below.top, (below.top[0], box.y + box.h))
        c.arrow((above.bottom[0], box.y), above.bottom)
    note(c, 225, 308, "the right words, whatever the model would have said")
    note(c, 225, 70, "all 4 predictions at once")
    for step in range(4):
        _pass(c, 466, 278 - 68 * step, step, given, wanted)
    note(c, 663, 342, "its own words, one after the other, until </s>")
    return c


def _pass(
    c: Canvas, x: float, y: float, step: int, given: Sequence[str], wanted: Sequence[str]
) -> None:
    """Draw one step of inference: the words so far, the decoder, the next word fed back."""
    c.text(x, y + 13, f"{step + 1}", 13, "bold", MUTED, "start")
    row = token_row(
        c,
        x + 18,
        y,
        given[: step + 1],
        52,
        tone=lambda i: "teal" if i == 0 else "green",
        gap=4,
        size=11,
    )
    decoder = c.box(x + 250, y, 76, 26, "decoder", "orange", 11.5)
    new = c.box(x + 350, y, 56, 26, wanted[step], "purple", 11, "mono", radius=5)
    c.arrow(row[-1].right, decoder.left)
    c.arrow(decoder.right, new.left)
    if step < 3:
        to = x + 18 + 56 * (step + 1) + 26
        c.arrow(
            new.top,
            (new.top[0], y - 20),
            (to, y - 20),
            (to, y - 42),
            colour=TONES["green"].edge,
            dash="4 3",
        )


def cache() -> Canvas:
    """Draw three steps of decoding: K and V of self-attention grow, those of the source stay."""
    c = Canvas(
        900,
        432,
        "Three steps of decoding at width 24: self-attention's keys and values grow, "
        "those of the source stay",
    )
    for step in range(1, 4):
        x = 30 + 290 * (step - 1)
        heading(c, x, 34, f"step {step}")
        c.text(x + 76, 34, " ".join(FIRST[:step]), 12, "mono", MUTED, "start")
        _self(c, x, 76, step)
        _cross(c, x, 244, step)
        if step > 1:
            c.line((x - 20, 24), (x - 20, 384), colour=EDGE)
    c.text(
        450,
        410,
        "K and V of the source are computed once; each step adds one row to the decoder's own",
        12,
        colour=MUTED,
    )
    return c


def _self(c: Canvas, x: float, y: float, step: int) -> None:
    """Draw self-attention of the newest token over the cached keys and values."""
    c.text(x, y, "self-attention", 12, "bold", TONES["orange"].edge, "start")
    _vector(c, x, y + 34, "q", "(1, 1, 24)", "blue", 1, 20 + step)
    _vector(c, x + 96, y + 34, "K", f"(1, {step}, 24)", "orange", step, 3)
    _vector(c, x + 182, y + 34, "V", f"(1, {step}, 24)", "green", step, 4)
    c.text(x, y + 128, f"weights (1, 4, 1, {step})  →  (1, 1, 24)", 11, "mono", INK, "start")


def _cross(c: Canvas, x: float, y: float, step: int) -> None:
    """Draw cross-attention of the newest token over the source."""
    c.text(x, y, "cross-attention", 12, "bold", TONES["teal"].edge, "start")
    n = SOURCE_TOKENS
    _vector(c, x, y + 34, "q", "(1, 1, 24)", "blue", 1, 30 + step)
    _vector(c, x + 96, y + 34, "K", f"(1, {n}, 24)", "orange", n, 5)
    _vector(c, x + 182, y + 34, "V", f"(1, {n}, 24)", "green", n, 6)
    c.text(x, y + 132, f"weights (1, 4, 1, {n})  →  (1, 1, 24)", 11, "mono", INK, "start")


def _vector(
    c: Canvas, x: float, y: float, name: str, shape: str, tone: str, rows: int, seed: int
) -> None:
    """Draw rows of features; the newest is framed, unless they are the source's."""
    source = rows == SOURCE_TOKENS
    height = 7 if source else 13
    c.text(x + 33, y - 12, name, 11.5, "monobold")
    box = c.matrix(x, y, rows, 6, (11, height), noisy(tone, seed))
    if not source:
        c.frame(x - 1.5, box.y + box.h - height - 1.5, 69, height + 3, INK, radius=3, stroke=1.6)
    c.text(x + 33, box.y + box.h + 14, shape, 10.5, "mono", MUTED)


# The chance of each next word after a beginning, for the tree of 12_beam.
CHANCES: dict[str, dict[str, float]] = {
    "": {"io": 0.48, "ti": 0.44, "amo": 0.08},
    "io": {"ti": 0.55, "amo": 0.3},
    "ti": {"amo": 0.9, "voglio": 0.05},
    "io ti": {"amo": 0.85, "voglio": 0.1},
    "ti amo": {"molto": 0.8, "tanto": 0.15},
    "io ti amo": {"molto": 0.75, "tanto": 0.2},
    "ti amo molto": {"</s>": 0.95, "!": 0.03},
}
WIDTH = 2


def beam_levels() -> list[list[tuple[str, float, bool]]]:
    """Return each level of the tree as (words so far, log-probability, kept), best first."""
    levels = []
    alive = [("", 0.0)]
    for _ in range(4):
        grown = [
            (f"{words} {word}".strip(), score + math.log(chance))
            for words, score in alive
            if words in CHANCES
            for word, chance in CHANCES[words].items()
        ]
        grown.sort(key=lambda item: -item[1])
        levels.append([(words, score, rank < WIDTH) for rank, (words, score) in enumerate(grown)])
        alive = grown[:WIDTH]
    return levels


def beam() -> Canvas:
    """Draw a beam search of width 2: every level grows, the best two stay."""
    c = Canvas(
        900,
        384,
        "A beam search of width 2: of all continuations "
        "the two with the best sum of log-probabilities are kept",
    )
    heading(c, 30, 34, "beam size 2")
    note(c, 870, 34, "the number is the sum of log-probabilities so far", "end")
    places: dict[str, Box] = {"": c.box(30, 176, 52, 34, "<s>", "teal", 12.5, "mono")}
    for depth, level in enumerate(beam_levels()):
        x = 142 + 192 * depth
        gap = 66
        top = 193 - gap * (len(level) - 1) / 2
        order = sorted(level, key=lambda item: (places[_parent(item[0])].y, -item[1]))
        # The pruned first, so that the lines that stay lie on top.
        for i, (words, score, kept) in sorted(enumerate(order), key=lambda item: item[1][2]):
            places[words] = _node(
                c, x, top + gap * i - 20, words, score, kept, places[_parent(words)]
            )
        note(c, x + 59, 330, f"best 2 of {'2 · ' if depth else ''}vocab", size=11.5)
    note(c, 450, 358, "greedy search would have followed io, and never found the better sentence")
    return c


def _parent(words: str) -> str:
    return words.rpartition(" ")[0]


def _node(c: Canvas, x: float, y: float, words: str, score: float, kept: bool, parent: Box) -> Box:
    """Draw one candidate and the line from the words it continues."""
    tone = "green" if words.startswith("ti amo molto </s>") else "blue" if kept else "grey"
    colour = TONES[tone].edge if kept else EDGE
    box = c.box(x, y, 118, 40, tone=tone, dash=None if kept else "4 3")
    c.text(
        x + 12, y + 20, words.rpartition(" ")[2], 12.5, "mono", INK if kept else "#94a3b8", "start"
    )
    c.text(
        x + 108,
        y + 20,
        f"{score:.2f}".replace("-", "−"),
        11,
        "mono",
        MUTED if kept else "#94a3b8",
        "end",
    )
    x0, y0 = parent.right
    x1, y1 = box.left
    middle = (x0 + x1) / 2
    c.path(
        f"M{x0} {y0:g} C{middle} {y0:g} {middle} {y1:g} {x1} {y1:g}",
        colour,
        2 if kept else 1.2,
        dash=None if kept else "4 3",
    )
    return box


DIAGRAMS: dict[str, Callable[[], Canvas]] = {
    "10_batch": batch,
    "11_teacher_forcing": teacher_forcing,
    "12_cache": cache,
    "12_beam": beam,
}
