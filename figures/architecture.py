"""The map of the whole Transformer, with one chapter's block lit."""

from canvas import INK, MUTED, TONES, WHITE, Box, Canvas, Tone, blend

# What each chapter lights: the tags of its blocks.
LIT = {
    0: {"model", "text", "loss", "loop"},
    1: {"embedding"},
    2: {"position"},
    3: {"dot_product"},
    4: {"multi_head"},
    5: {"norm"},
    6: {"ffn"},
    7: {"encoder"},
    8: {"decoder"},
    9: {"model"},
    10: {"text"},
    11: {"loss"},
    12: {"loop"},
    13: {"model"},
    14: {"loss"},
    15: {"multi_head", "output"},
    16: {"decoder", "decoder_step", "loop"},
}
CAPTIONS = {
    0: "the Transformer",
    1: "embeddings",
    2: "positional encoding",
    3: "scaled dot-product attention",
    4: "multi-head attention",
    5: "residual and norm",
    6: "feed-forward",
    7: "the encoder",
    8: "the decoder",
    9: "the whole model",
    10: "text to ids",
    11: "the loss",
    12: "one token at a time",
    13: "everything that published weights fill",
    14: "the loss",
    15: "attention and the output layer",
    16: "the decoder and its loop",
}
SLEEP = "#c3ccd8"
LEFT = 98  # the encoder's column
RIGHT = 330  # the decoder's column
WIDTH = 164  # of a block
FIRST = 316  # the y of the first sublayers
BOTTOM = 466  # the y of the tokens
PITCH_FFN = 73  # a sublayer with its norm and the arrow to the next
PITCH_ATTENTION = 93


class Map(Canvas):
    """A canvas that knows which chapter is on."""

    def __init__(self, chapter: int):
        super().__init__(600, 518, f"The Transformer, with {CAPTIONS[chapter]} lit")
        self.chapter = chapter

    def lit(self, tags: str) -> bool:
        return bool(LIT[self.chapter] & set(tags.split()))

    def tone(self, name: str, tags: str) -> Tone:
        """Return the colours of a block: grey unless its chapter is on; chapter 0 is pale."""
        if not self.lit(tags):
            return TONES["grey"]
        fill, edge, text = TONES[name]
        return (
            Tone(blend(fill, WHITE, 0.25), blend(edge, WHITE, 0.45), text)
            if self.chapter == 0
            else TONES[name]
        )

    def ink(self, name: str, tags: str) -> str:
        """Return the colour of an arrow or a label."""
        if not self.lit(tags):
            return SLEEP
        return INK if name == "ink" else self.tone(name, tags).edge

    def flow(self, tags: str) -> str:
        """Return the colour of the arrows between blocks."""
        return MUTED if self.lit(tags) else SLEEP


def architecture(chapter: int) -> Canvas:
    """Draw the map for one chapter."""
    m = Map(chapter)
    frames = _frames(m)
    memory = _encoder(m)
    _decoder(m, memory)
    _repeats(m, *frames)
    return m


def _frames(m: Map) -> tuple[Box, Box]:
    shades = [
        blend(m.tone("teal", f"{side} model").fill, WHITE, 0.8) for side in ("encoder", "decoder")
    ]
    encoder = m.frame(
        LEFT - 34, FIRST - 108, WIDTH + 52, 176, m.ink("teal", "encoder model"), shades[0]
    )
    decoder = m.frame(
        RIGHT - 18, FIRST - 201, WIDTH + 52, 269, m.ink("teal", "decoder model"), shades[1]
    )
    return encoder, decoder


def _repeats(m: Map, encoder: Box, decoder: Box) -> None:
    m.text(
        encoder.x + 4, encoder.y - 14, "encoder", 13, "bold", m.ink("ink", "encoder model"), "start"
    )
    m.text(encoder.x - 24, encoder.centre[1], "N×", 17, "bold", m.ink("ink", "encoder model"))
    m.text(
        decoder.x + decoder.w - 4,
        decoder.y - 14,
        "decoder",
        13,
        "bold",
        m.ink("ink", "decoder model"),
        "end",
    )
    m.text(
        decoder.x + decoder.w + 24,
        decoder.centre[1],
        "N×",
        17,
        "bold",
        m.ink("ink", "decoder model"),
    )


def _attention(m: Map, x: float, y: float, label: str, side: str) -> Box:
    """Draw a multi-head attention box with the scaled dot-product inside."""
    box = m.box(x, y, WIDTH, 50, tone=m.tone("orange", f"multi_head {side} model"))
    m.text(
        x + WIDTH / 2,
        y + 13,
        label,
        11.5,
        colour=m.tone("orange", f"multi_head {side} model dot_product").text,
    )
    inner = m.tone("orange", f"dot_product multi_head {side} model")
    fill = inner.fill if m.lit("dot_product") else blend(inner.fill, WHITE, 0.6)
    m.box(
        x + 14,
        y + 25,
        WIDTH - 28,
        19,
        "scaled dot-product",
        inner._replace(fill=fill),
        10.5,
        radius=9,
        stroke=1.1,
    )
    return box


def _norm(m: Map, below: Box, side: str, outward: int) -> Box:
    """Draw add & norm on top of a sublayer, with the residual arrow that goes around it."""
    tags = f"norm {side} model"
    norm = m.box(
        below.x, below.y - 21, WIDTH, 17, "add & norm", m.tone("yellow", tags), 10.5, radius=6
    )
    edge = below.x if outward < 0 else below.x + WIDTH
    start = (below.x + WIDTH / 2, below.y + below.h + 9)
    bend = edge + outward * 13
    m.arrow(
        start,
        (bend, start[1]),
        (bend, norm.centre[1]),
        (edge, norm.centre[1]),
        colour=m.ink("yellow", tags),
    )
    m.line(below.top, norm.bottom, colour=m.flow(tags))
    return norm


def _input(m: Map, x: float, side: str, name: str, label: str) -> Box:
    """Draw text, ids, embedding and position; return the sum that enters the first layer."""
    outward = -1 if side == "encoder" else 1
    middle = x + WIDTH / 2
    tags = "text" if side == "encoder" else "text loop"
    around = f"model {side}_step"  # all that a step goes through outside the layers
    tokens = m.box(x - 4, BOTTOM, WIDTH + 8, 24, label, m.tone("green", tags), 10.5, "mono")
    m.text(middle, BOTTOM + 36, name, 11.5, "mono", m.ink("ink", tags))
    embedding = m.box(
        x, BOTTOM - 40, WIDTH, 26, "embedding", m.tone("rose", f"embedding {around}"), 12
    )
    m.arrow(
        tokens.top,
        embedding.bottom,
        colour=m.ink("green", "text") if m.lit("text") else m.flow(around),
    )
    total = m.plus(middle, BOTTOM - 58, m.tone("teal", f"position {around}"))
    m.arrow(embedding.top, total.bottom, colour=m.flow(f"embedding {around}"))
    wave = middle + outward * 62
    clock = m.circle(wave, BOTTOM - 58, 12, m.tone("teal", f"position {around}"))
    colour = m.ink("teal", f"position {around}")
    y = BOTTOM - 58
    m.path(f"M{wave - 8} {y} q4 -12 8 0 t8 0", colour, 1.5)
    m.arrow(
        clock.right if outward < 0 else clock.left,
        total.left if outward < 0 else total.right,
        colour=colour,
    )
    m.text(
        wave + outward * 18,
        y,
        "positional\nencoding",
        10.5,
        colour=m.ink("ink", f"position {around}"),
        anchor="end" if outward < 0 else "start",
    )
    return total


def _stack(m: Map, start: Box, blocks: list[Box], side: str) -> None:
    """Join the input to the first sublayer, and each norm to the next sublayer."""
    for below, above in zip([start, *blocks[1:-1:2]], blocks[::2], strict=True):
        m.arrow(below.top, above.bottom, colour=m.flow(f"{side} model"))


def _encoder(m: Map) -> Box:
    start = _input(m, LEFT, "encoder", "src", "there is a cat…")
    attention = _attention(m, LEFT, FIRST, "multi-head self-attention", "encoder")
    norm_1 = _norm(m, attention, "encoder", -1)
    ffn = m.box(
        LEFT, FIRST - PITCH_FFN, WIDTH, 30, "feed-forward", m.tone("blue", "ffn encoder model"), 12
    )
    norm_2 = _norm(m, ffn, "encoder", -1)
    _stack(m, start, [attention, norm_1, ffn, norm_2], "encoder")
    return norm_2


def _decoder(m: Map, memory: Box) -> None:
    start = _input(m, RIGHT, "decoder", "tgt", "<s> c'è un gatto…")
    masked = _attention(m, RIGHT, FIRST, "masked self-attention", "decoder")
    norm_1 = _norm(m, masked, "decoder", 1)
    cross = _attention(m, RIGHT, FIRST - PITCH_ATTENTION, "cross-attention", "decoder")
    norm_2 = _norm(m, cross, "decoder", 1)
    ffn = m.box(
        RIGHT,
        FIRST - PITCH_ATTENTION - PITCH_FFN,
        WIDTH,
        30,
        "feed-forward",
        m.tone("blue", "ffn decoder model"),
        12,
    )
    norm_3 = _norm(m, ffn, "decoder", 1)
    _stack(m, start, [masked, norm_1, cross, norm_2, ffn, norm_3], "decoder")
    _memory(m, memory, cross)
    _output(m, norm_3)


def _memory(m: Map, encoder: Box, cross: Box) -> None:
    """Draw the encoder's output on its way into the decoder."""
    x = (LEFT + WIDTH + RIGHT) / 2
    colour = m.ink("teal", "encoder decoder model")
    m.arrow(
        encoder.top,
        (encoder.top[0], 190),
        (x, 190),
        (x, cross.centre[1]),
        cross.left,
        colour=colour,
        stroke=1.6,
    )
    m.text(x - 10, 179, "memory", 11.5, "mono", m.ink("ink", "encoder decoder model"), "end")


def _output(m: Map, last: Box) -> None:
    """Draw the linear layer, softmax, the loss with its labels, and the loop back to the input."""
    linear = m.box(
        RIGHT, 60, WIDTH, 24, "linear", m.tone("purple", "model output decoder_step"), 12
    )
    softmax = m.box(RIGHT, 18, WIDTH, 24, "softmax", m.tone("purple", "model loop output"), 12)
    m.arrow(last.top, linear.bottom, colour=m.flow("model decoder_step"))
    m.arrow(linear.top, softmax.bottom, colour=m.flow("model output decoder_step"))
    colour = m.ink("rose", "loss")
    loss = m.box(194, 37, 74, 28, "loss", m.tone("rose", "loss"), 12, "bold")
    labels = m.box(28, 37, 126, 28, "c'è un gatto…", m.tone("green", "loss"), 10.5, "mono")
    m.text(labels.centre[0], 77, "labels", 11.5, "mono", m.ink("ink", "loss"))
    m.arrow(labels.right, loss.left, colour=colour)
    m.arrow((RIGHT + WIDTH / 2, 51), loss.right, colour=colour)
    _loop(m, softmax)


def _loop(m: Map, softmax: Box) -> None:
    x = 584
    colour = m.ink("green", "loop")
    stroke = 2 if m.lit("loop") else 1.3
    m.arrow(
        softmax.right,
        (x, softmax.right[1]),
        (x, BOTTOM + 12),
        (RIGHT + WIDTH + 4, BOTTOM + 12),
        colour=colour,
        stroke=stroke,
        dash="5 4",
    )
    m.text(x - 2, 18, "next token", 11, colour=m.ink("ink", "loop"), anchor="end")
