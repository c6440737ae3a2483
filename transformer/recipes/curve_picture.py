"""The learning curve as an SVG picture, written without a plotting library.

It is drawn again at each validation, so a browser that reloads it shows how a run is going.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDTH = 640
HEIGHT = 360
LEFT = 56
RIGHT = 124
TOP = 36
BOTTOM = 44
TRAINING = "#2f6fe0"
VALIDATION = "#e2761b"
INK = "#1f2937"
MUTED = "#64748b"
GRID = "#e2e8f0"
MOST_POINTS = 400
"""Points of a line; of a longer curve every so-many-th is drawn."""

Number = int | float
Point = tuple[Number, Number]


def curve_svg(history: Sequence[Mapping[str, Any]]) -> str:
    """Return a picture of the training and validation loss by step.

    `history` has rows with step, train_loss and val_loss. The lowest validation loss is marked.
    """
    rows = thinned(history)
    losses = [row[name] for row in rows for name in ("train_loss", "val_loss")]
    plot = Plot(max(row["step"] for row in rows), min(losses), max(losses))
    parts = [*plot.frame()]
    ends = {}
    for name, colour in (("train_loss", TRAINING), ("val_loss", VALIDATION)):
        points = [plot.at(row["step"], row[name]) for row in rows]
        parts.append(line(points, colour))
        ends[name] = points[-1][1]
    parts += labels(ends["train_loss"], ends["val_loss"])
    best = min(history, key=lambda row: row["val_loss"])
    x, y = plot.at(best["step"], best["val_loss"])
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{VALIDATION}"/>')
    title = f"best validation loss {best['val_loss']:.3f} at step {best['step']:,}"
    parts.append(text(LEFT, 20, title, INK, "start", 13))
    style = 'font-family="sans-serif" font-size="11"'
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    body = "\n".join(parts)
    back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{back}\n{body}\n</svg>\n'


def thinned(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return at most `MOST_POINTS` rows, the last one among them."""
    stride = math.ceil(len(history) / MOST_POINTS)
    return list(history[::-stride])[::-1]


class Plot:
    """The scales of a plot: steps to the right from 0, nats a token upwards."""

    def __init__(self, last: Number, low: Number, high: Number):
        self.last = last
        self.y_ticks = ticks(low, high)
        self.low = min(low, self.y_ticks[0])
        self.high = max(high, self.y_ticks[-1])

    def at(self, step: Number, loss: Number) -> Point:
        """Return the place of a point in pixels."""
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / self.last
        share = (self.high - loss) / ((self.high - self.low) or 1.0)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * share

    def frame(self) -> Iterator[str]:
        """Yield the grid, the numbers on both axes and their names."""
        for tick in self.y_ticks:
            x, y = self.at(0, tick)
            end = WIDTH - RIGHT
            yield f'<path d="M{x:.1f} {y:.1f}H{end}" stroke="{GRID}"/>'
            yield text(x - 6, y + 4, f"{tick:g}", MUTED, "end")
        for tick in ticks(0, self.last):
            x, _ = self.at(tick, self.low)
            yield text(x, HEIGHT - BOTTOM + 18, f"{tick:,g}", MUTED, "middle")
        yield text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "step", MUTED, "middle")
        yield text(LEFT - 6, TOP - 8, "nats", MUTED, "end")


def ticks(low: Number, high: Number) -> list[Number]:
    """Return three to eight round numbers that span most of the range from `low` to `high`."""
    distance = (high - low) or abs(high) or 1.0
    unit = 10 ** math.floor(math.log10(distance / 4))
    stride = next(unit * n for n in (1, 2, 5, 10) if distance / (unit * n) <= 6)
    first = math.ceil(low / stride - 1e-9)
    last = math.floor(high / stride + 1e-9)
    digits = max(0, -math.floor(math.log10(stride)))
    return [round(n * stride, digits) for n in range(first, last + 1)] or [low]


def line(points: Sequence[Point], colour: str) -> str:
    """Return a line through points; a single point is a dot."""
    if len(points) == 1:
        x, y = points[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>'
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'


def labels(train_y: Number, val_y: Number) -> list[str]:
    """Return the names of the two lines at their ends, not on top of each other."""
    middle = (train_y + val_y) / 2
    if abs(train_y - val_y) < 14:
        down = 7 if train_y >= val_y else -7
        train_y = middle + down
        val_y = middle - down
    x = WIDTH - RIGHT + 8
    return [
        text(x, train_y + 4, "training loss", TRAINING, "start"),
        text(x, val_y + 4, "validation loss", VALIDATION, "start"),
    ]


def text(x: Number, y: Number, words: str, colour: str, anchor: str, size: int = 11) -> str:
    """Return a line of text at a point."""
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} fill="{colour}" text-anchor="{anchor}" font-size="{size}">{words}</text>'
