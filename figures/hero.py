"""The picture of the README: a notebook, its module, and the translator that they train."""

from collections.abc import Callable

from canvas import EDGE, INK, MUTED, TONES, WHITE, Box, Canvas, blend
from parts import noise, shade

CODE = [
    [("def ", "purple"), ("attention_weights", "blue"), ("(q, k, mask=None):", "")],
    [("    scores = ", ""), ("einsum", "blue"), ("(q, k, ", ""), ('"... q d_head,"', "green")],
    [('        " ... k d_head -> ... q k"', "green"), (")", "")],
    [("    scores = scores / math.", ""), ("sqrt", "blue"), ("(q.shape[-1])", "")],
    [("    if ", "purple"), ("mask ", ""), ("is None", "purple"), (":", "")],
    [("        return ", "purple"), ("scores.", ""), ("softmax", "blue"), ("(-1)", "")],
    [("    …", "")],
]


def hero() -> Canvas:
    """Draw notebook, module and translator from left to right."""
    c = Canvas(
        900,
        380,
        "A chapter's notebook and a module of the library are one source; "
        "together they train a translator",
    )
    notebook = _window(c, 24, 30, 266, 298, "03_attention.ipynb", "orange")
    module = _window(c, 346, 54, 284, 250, "transformer/attention.py", "blue")
    _notebook(c, notebook)
    _module(c, module)
    _between(c, notebook.x + notebook.w, module.x)
    _translator(c, 686, 92)
    c.arrow((module.x + module.w + 8, 177), (678, 177), colour=INK, stroke=2.2)
    c.text((module.x + module.w + 686) / 2, 160, "train", 12, "bold")
    for x, label in ((157, "work through it"), (488, "import it"), (784, "use it")):
        c.text(x, 354, label, 15, "bold", MUTED)
    return c


def _window(c: Canvas, x: float, y: float, w: float, h: float, name: str, tone: str) -> Box:
    """Draw a window with a soft shadow and a title bar."""
    for grow, share in ((6, 0.02), (3, 0.04)):
        c.frame(
            x - grow,
            y - grow + 4,
            w + 2 * grow,
            h + 2 * grow,
            "none",
            blend(WHITE, INK, share),
            radius=12 + grow,
        )
    box = c.frame(x, y, w, h, EDGE, WHITE, radius=12)
    c.path(
        f"M{x} {y + 30} V{y + 12} q0 -12 12 -12 H{x + w - 12} q12 0 12 12 V{y + 30} Z",
        EDGE,
        1.3,
        TONES[tone].fill,
    )
    for i, dot in enumerate(("rose", "yellow", "green")):
        c.add(
            "circle", cx=x + 18 + 15 * i, cy=y + 15, r=4.5, fill=blend(TONES[dot].edge, WHITE, 0.25)
        )
    c.text(x + 66, y + 15, name, 11.5, "monobold", anchor="start")
    return box


def _notebook(c: Canvas, window: Box) -> None:
    """Draw a heading, an equation, a code cell and its heat map."""
    x = window.x + 20
    y = window.y + 30
    c.text(x, y + 26, "3 · Attention", 17, "bold", anchor="start")
    c.text(x, y + 50, "What a word means depends", 11.5, colour=MUTED, anchor="start")
    c.text(x, y + 66, "on the words around it.", 11.5, colour=MUTED, anchor="start")
    c.text(window.centre[0], y + 94, "softmax(QKᵀ / √d_head) V", 14, "italic")
    c.text(x - 2, y + 127, "[3]:", 9.5, "mono", "#94a3b8", "start")
    c.box(x + 28, y + 113, 204, 28, tone="grey", radius=5)
    c.text(x + 36, y + 127, "plot_attention(weights)", 11, "mono", anchor="start")
    words = "there is a cat on the mat".split()
    heat = c.matrix(x + 92, y + 159, 7, 7, 13.2, _weight, EDGE)
    for i, word in enumerate(words):
        c.text(heat.x - 7, heat.y + 13.2 * i + 6.6, word, 9.5, "mono", MUTED, "end")


def _weight(i: int, j: int) -> str:
    """Return the colour of an attention weight, strong where words belong together."""
    together = {
        (0, 1),
        (1, 0),
        (2, 3),
        (3, 2),
        (3, 3),
        (3, 6),
        (4, 6),
        (5, 6),
        (6, 4),
        (6, 5),
        (1, 3),
    }
    return shade(
        "purple",
        0.55 + 0.45 * noise(i, j, 2) if (i, j) in together else 0.02 + 0.16 * noise(i, j, 3),
    )


def _module(c: Canvas, window: Box) -> None:
    """Draw the code of the module in colours."""
    for row, line in enumerate(CODE):
        x = window.x + 32
        y = window.y + 60 + 27 * row
        c.text(window.x + 18, y, str(row + 1), 9.5, "mono", "#94a3b8")
        column = 0
        for text, tone in line:
            colour = blend(TONES[tone].edge, INK, 0.15) if tone else INK
            c.text(x + column * 5.54, y, text, 9.2, "mono", colour, "start")
            column += len(text)


def _between(c: Canvas, left: float, right: float) -> None:
    """Draw the arrow that goes both ways."""
    middle = (left + right) / 2
    y = 177
    c.arrow((middle, y), (right - 7, y), colour=INK, stroke=2.2)
    c.arrow((middle, y), (left + 7, y), colour=INK, stroke=2.2)
    c.text(middle, y - 17, "one", 12, "bold")
    c.text(middle, y + 19, "source", 12, "bold")


def _translator(c: Canvas, x: float, y: float) -> None:
    """Draw a sentence and its translation as two bubbles."""
    c.text(x + 6, y - 8, "English", 11.5, colour=MUTED, anchor="start")
    c.box(x, y + 6, 196, 46, "I love you very much", "plain", 14, radius=14)
    c.arrow((x + 98, y + 58), (x + 98, y + 108), colour=TONES["green"].edge, stroke=2.4)
    c.text(x + 192, y + 172, "Italiano", 11.5, colour=MUTED, anchor="end")
    c.box(x, y + 114, 196, 46, "ti amo molto", "green", 16, "bold", radius=14)


DIAGRAMS: dict[str, Callable[[], Canvas]] = {"hero": hero}
