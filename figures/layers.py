"""The diagrams of chapters 7 to 9: layers, masks, the whole model."""

from collections.abc import Callable

from canvas import EDGE, INK, MUTED, TONES, WHITE, Box, Canvas
from parts import SOURCE, heading, note, shade, token_row


def _sublayer(
    c: Canvas, x: float, y: float, label: str, tone: str, inputs: tuple[str, ...] = ()
) -> tuple[Box, Box]:
    """Draw a sublayer, its residual and norm; return the boxes of sublayer and norm."""
    box = c.box(x + 20, y - 34, 106, 68, tone=tone)
    c.text(box.centre[0] + (7 if inputs else 0), y, label, 12)
    total = c.plus(x + 145, y, "yellow")
    norm = c.box(x + 164, y - 17, 48, 34, "norm", "yellow", 12)
    if inputs:
        for i, name in enumerate(inputs):
            at = (box.x, y + 20 * (i - 1))
            c.arrow((x + 4, y), (x + 4, at[1]), at) if i != 1 else c.arrow((x, y), at)
            c.text(at[0] + 9, at[1], name, 11, "mono", TONES["orange"].edge)
    else:
        c.arrow((x, y), box.left)
    c.arrow(box.right, total.left)
    c.arrow(total.right, norm.left)
    gold = TONES["yellow"].edge
    c.arrow(
        (x - 4, y), (x - 4, y - 56), (total.centre[0], y - 56), total.top, colour=gold, stroke=1.6
    )
    return box, norm


def encoder_layer() -> Canvas:
    """Draw one encoder layer from left to right, and who may listen to whom."""
    c = Canvas(
        820,
        384,
        "An encoder layer: self-attention and feed-forward, each with add and norm; "
        "every word sees every word",
    )
    c.frame(124, 56, 548, 140, TONES["teal"].edge, shade("teal", 0.04))
    c.text(136, 40, "encoder layer, N times", 13, "bold", anchor="start")
    c.box(24, 120, 72, 36, "x", "rose", 14, "monobold")
    c.line((96, 138), (156, 138))
    _, norm_1 = _sublayer(c, 156, 138, "multi-head\nself-attention", "orange", ("q", "k", "v"))
    c.line(norm_1.right, (424, 138))
    _, norm_2 = _sublayer(c, 424, 138, "feed-forward", "blue")
    out = c.box(724, 120, 72, 36, "memory", "teal", 12, "mono")
    c.arrow(norm_2.right, out.left)
    for x in (60, 396, 760):
        c.text(x, 174 if x != 396 else 214, "b t d_model", 11.5, "mono", MUTED)
    c.line((396, 146), (396, 202), colour=EDGE, dash="2 3")
    _everyone(c, 240)
    return c


def _everyone(c: Canvas, y: float) -> None:
    """Draw what one word listens to in an encoder: past and future."""
    lower = token_row(c, 175, y + 76, SOURCE, 62, tone=lambda i: "orange" if i == 3 else "plain")
    upper = c.box(lower[3].x, y + 8, 62, 26, "cat", "orange", 11.5, "mono", radius=5)
    for i, word in enumerate(lower):
        c.arrow(
            (word.top[0], word.y - 2),
            (upper.bottom[0] + 7 * (i - 3), upper.y + 28),
            colour=TONES["orange"].edge,
        )
    c.text(lower[3].x - 14, upper.centre[1], "past", 12, colour=MUTED, anchor="end")
    c.text(lower[3].x + 76, upper.centre[1], "future", 12, colour=MUTED, anchor="start")
    note(c, 410, y + 122, "every word attends to every word, before it and after it")


def decoder_layer() -> Canvas:
    """Draw one decoder layer with its three sublayers and the memory that enters the second."""
    c = Canvas(
        888,
        330,
        "A decoder layer: masked self-attention, "
        "cross-attention to the encoder's output, feed-forward",
    )
    c.frame(76, 56, 698, 150, TONES["teal"].edge, shade("teal", 0.04))
    c.text(88, 40, "decoder layer, N times", 13, "bold", anchor="start")
    c.box(14, 120, 44, 36, "x", "rose", 14, "monobold")
    c.line((58, 138), (98, 138))
    _, norm_1 = _sublayer(c, 98, 138, "masked\nself-attention", "orange", ("q", "k", "v"))
    c.line(norm_1.right, (320, 138))
    cross, norm_2 = _sublayer(c, 320, 138, "cross-\nattention", "orange")
    c.text(cross.x + 9, 138, "q", 11, "mono", TONES["orange"].edge)
    c.line(norm_2.right, (542, 138))
    _, norm_3 = _sublayer(c, 542, 138, "feed-forward", "blue")
    out = c.box(828, 120, 44, 36, "out", "teal", 13, "mono")
    c.arrow(norm_3.right, out.left)
    c.text(36, 182, "b t\nd_model", 11.5, "mono", MUTED)
    c.text(850, 182, "b t\nd_model", 11.5, "mono", MUTED)
    _layer_inputs(c, cross)
    return c


def _layer_inputs(c: Canvas, cross: Box) -> None:
    """Draw the two masks and the memory under the layer."""
    x = cross.centre[0]
    memory = c.box(x - 52, 254, 104, 30, "memory", "teal", 12.5, "mono")
    c.text(x, 302, "b k d_model, from the encoder", 11.5, "mono", MUTED)
    for name, dx in (("k", -24), ("v", 24)):
        c.arrow(
            (x + dx, memory.y), (x + dx, cross.y + cross.h), colour=TONES["teal"].edge, stroke=1.7
        )
        c.text(x + dx, cross.y + cross.h - 9, name, 11, "mono", TONES["orange"].edge)
    left = cross.centre[0] - 222
    c.matrix(left - 24, 244, 4, 4, 12, lambda i, j: TONES["teal"].edge if j <= i else WHITE, EDGE)
    c.arrow((left, 241), (left, cross.y + cross.h))
    c.text(left, 308, "sees itself and the past", 11.5, colour=MUTED)
    note(c, x + 230, 268, "three sublayers,\nthree residuals")


def masks() -> Canvas:
    """Draw the causal mask, the padding mask of two sentences, and their conjunction."""
    c = Canvas(
        900,
        346,
        "The causal and the padding mask of two sentences, joined by and; "
        "rows are queries, columns are keys",
    )
    numbers = list("01234567")
    first = ["<s>", "c", "'", "è", "un", "gatto", "sul", "tappeto"]
    second = ["<s>", "ti", "amo", "molto", "</s>", "<pad>", "<pad>", "<pad>"]
    for x, name, shape in (
        (50, "causal", "q k"),
        (242, "padding", "b 1 1 k"),
        (484, "may attend = causal and padding", "b 1 q k"),
    ):
        heading(c, x, 32, name)
        c.text(x, 56, shape, 11.5, "mono", MUTED, "start")
    causal = _mask(c, 50, 130, lambda i, j: j <= i, 8, numbers, numbers)
    c.text(causal.x - 36, causal.centre[1], "queries", 11.5, colour=MUTED, turn=-90)
    c.text(causal.centre[0], causal.y - 34, "keys", 11.5, colour=MUTED)
    c.text(226, causal.centre[1], "∧", 20, "bold")
    _mask(c, 242, 150, lambda i, j: True, 1, first)
    _mask(c, 242, 250, lambda i, j: j < 5, 1, second)
    c.text(418, causal.centre[1], "=", 20, "bold")
    _mask(c, 484, 130, lambda i, j: j <= i, 8, first, first)
    _mask(c, 712, 130, lambda i, j: j <= i and j < 5, 8, second, second)
    _legend(c, 50, 322)
    note(c, 876, 322, "padding hides keys (columns), never queries (rows)", "end")
    return c


def _mask(
    c: Canvas,
    x: float,
    y: float,
    allowed: Callable[[int, int], bool],
    rows: int,
    keys: list[str],
    queries: list[str] | None = None,
) -> Box:
    """Draw a mask with its keys above and its queries at the left."""
    box = c.matrix(
        x, y, rows, 8, 20, lambda i, j: TONES["teal"].edge if allowed(i, j) else WHITE, "#b6c2d1"
    )
    for j, key in enumerate(keys):
        turned = max(map(len, keys)) > 2
        at = (x + 20 * j + 10, y - 8)
        c.text(
            *at,
            key,
            10.5,
            "mono",
            anchor="start" if turned else "middle",
            turn=-45 if turned else 0,
        )
    for i, query in enumerate(queries or []):
        c.text(x - 6, y + 20 * i + 10, query, 10.5, "mono", anchor="end")
    return box


def _legend(c: Canvas, x: float, y: float) -> None:
    c.matrix(x, y - 7, 1, 1, 14, lambda i, j: TONES["teal"].edge, EDGE)
    c.text(x + 22, y, "True: may attend", 11.5, colour=MUTED, anchor="start")


def model() -> Canvas:
    """Draw the shapes through the whole model."""
    c = Canvas(
        900,
        360,
        "The shapes through the whole model: 64 sentences of 8 tokens, 512 features, vocab tokens",
    )
    encoder = _lane(c, 96, "src", "encoder", "× 6 layers")
    decoder = _lane(c, 236, "tgt", "decoder", "× 6 layers")
    memory = c.box(652, 78, 92, 36, "memory", "teal", 13, "mono")
    c.text(698, 64, "(64, 8, 512)", 11.5, "mono", INK)
    c.arrow(encoder.right, memory.left)
    corners = [(698, 166), (decoder.centre[0], 166)]
    c.arrow(memory.bottom, *corners, decoder.top, colour=TONES["teal"].edge, stroke=1.8)
    note(c, 601, 154, "keys and values", size=11.5)
    _logits(c, decoder)
    sizes = "64 sentences · 8 tokens · d_model 512 = 8 heads of 64 · d_ff 2048"
    c.text(450, 334, f"{sizes} · vocab 37000", 12, colour=MUTED)
    return c


def _logits(c: Canvas, decoder: Box) -> None:
    """Draw what follows the decoder."""
    linear = c.box(652, 218, 76, 36, "linear", "purple", 13)
    softmax = c.box(772, 218, 84, 36, "softmax", "purple", 13)
    c.arrow(decoder.right, linear.left)
    c.arrow(linear.right, softmax.left)
    c.arrow(softmax.right, (886, 236))
    c.text(620, 276, "(64, 8, 512)", 11.5, "mono", INK)
    c.text(750, 276, "(64, 8, vocab)", 11.5, "mono", INK)
    c.text(750, 293, "logits", 11.5, "mono", MUTED)
    note(c, 814, 186, "in the loss and\nin decoding only", size=11.5)


def _lane(c: Canvas, y: float, name: str, stack: str, times: str) -> Box:
    """Draw one side of the model, from ids to the stack of layers."""
    ids = c.box(24, y - 18, 60, 36, name, "green", 13, "mono")
    embedding = c.box(138, y - 18, 112, 36, "embedding\n· √d_model", "rose", 12)
    total = c.plus(318, y, "teal", 10)
    for i in (2, 1, 0):
        block = c.box(438 + 5 * i, y - 30 - 5 * i, 122, 60, tone="teal")
    c.text(block.centre[0], y - 8, stack, 14, "bold")
    c.text(block.centre[0], y + 12, times, 12)
    c.arrow(ids.right, embedding.left)
    c.arrow(embedding.right, total.left)
    c.arrow(total.right, block.left)
    c.arrow((318, y + 34), total.bottom, colour=TONES["teal"].edge)
    c.text(318, y + 44, "positions (8, 512)", 11.5, "mono", MUTED)
    for x, shape in ((54, "(64, 8)"), (194, "(64, 8, 512)"), (380, "(64, 8, 512)")):
        c.text(x, y - 32, shape, 11.5, "mono", INK)
    return Box(block.x, block.y, block.w + 10, block.h)


DIAGRAMS: dict[str, Callable[[], Canvas]] = {
    "07_encoder_layer": encoder_layer,
    "08_decoder_layer": decoder_layer,
    "08_masks": masks,
    "09_model": model,
}
