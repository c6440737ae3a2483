"""Parts that several diagrams share: the running example, shaded matrices, rows of tokens."""

import math
from collections.abc import Callable, Sequence

from canvas import INK, MUTED, TONES, WHITE, Box, Canvas, blend

SOURCE = "there is a cat on the mat".split()
SOURCE_IDS = [132, 172, 41, 206, 152, 39, 222]  # those of transformer.example
TARGET = "c'è un gatto sul tappeto".split()


def noise(i: int, j: int, seed: int = 0) -> float:
    """Return a number in [0, 1) that looks random and is always the same."""
    value = (i * 73_856_093) ^ (j * 19_349_663) ^ (seed * 83_492_791 + 12_345)
    return (value * 2_654_435_761 % 2**32) / 2**32


def shade(tone: str, share: float) -> str:
    """Return the tone's colour at a strength from 0 (white) to 1."""
    return blend(WHITE, TONES[tone].edge, share)


def noisy(tone: str, seed: int = 0) -> Callable[[int, int], str]:
    """Return a fill for a matrix of arbitrary numbers."""
    return lambda i, j: shade(tone, 0.15 + 0.65 * noise(i + 1, j + 1, seed))


def softmax(row: Sequence[float]) -> list[float]:
    """Return the softmax of one row; a score of minus infinity gives 0."""
    powers = [math.exp(x) for x in row]
    return [p / sum(powers) for p in powers]


def named(c: Canvas, box: Box, name: str, shape: str, font: str = "bold") -> None:
    """Write a name above a shape and its size below."""
    c.text(box.top[0], box.y - 13, name, 13, font)
    c.text(box.bottom[0], box.y + box.h + 14, shape, 11.5, "mono", MUTED)


def token_row(
    c: Canvas,
    x: float,
    y: float,
    words: Sequence[str],
    w: float,
    h: float = 26,
    gap: float = 6,
    tone: Callable[[int], str] | str = "plain",
    size: float = 11.5,
) -> list[Box]:
    """Draw one box for each word, from left to right."""
    return [
        c.box(
            x + i * (w + gap),
            y,
            w,
            h,
            word,
            tone if isinstance(tone, str) else tone(i),
            size,
            "mono",
            radius=5,
        )
        for i, word in enumerate(words)
    ]


def operator(
    c: Canvas,
    x: float,
    y: float,
    label: str,
    tone: str = "plain",
    w: float = 54,
    font: str = "mono",
) -> Box:
    """Draw a pill that names an operation, centred on (x, y)."""
    return c.box(x - w / 2, y - 13, w, 26, label, tone, 12, font, radius=13)


def note(
    c: Canvas,
    x: float,
    y: float,
    text: str,
    anchor: str = "middle",
    size: float = 12,
    colour: str = MUTED,
) -> None:
    """Write a remark."""
    c.text(x, y, text, size, "sans", colour, anchor)


def heading(
    c: Canvas, x: float, y: float, text: str, anchor: str = "start", size: float = 15
) -> None:
    """Write the title of a panel."""
    c.text(x, y, text, size, "bold", INK, anchor)
