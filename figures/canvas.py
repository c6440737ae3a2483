"""A small layer that writes SVG: boxes, arrows, matrices and text, in one palette.

Text is written as outlines of DejaVu, the font that comes with matplotlib. So a figure looks the
same everywhere, and drawing it again gives the same bytes.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

import matplotlib
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.ttLib import TTFont

INK = "#1f2937"
MUTED = "#64748b"
LINE = "#64748b"
EDGE = "#cbd5e1"
PALE = "#f4f6f9"
WHITE = "#ffffff"
FONTS = {
    "sans": "DejaVuSans",
    "bold": "DejaVuSans-Bold",
    "italic": "DejaVuSans-Oblique",
    "mono": "DejaVuSansMono",
    "monobold": "DejaVuSansMono-Bold",
}


class Tone(NamedTuple):
    """The colours of a block: its fill, its edge (and arrows), its text."""

    fill: str
    edge: str
    text: str = INK


TONES = {
    "plain": Tone(WHITE, "#94a3b8"),
    "grey": Tone(PALE, EDGE, "#94a3b8"),
    "rose": Tone("#fde4e8", "#d64562"),
    "teal": Tone("#d5f2ee", "#12908a"),
    "orange": Tone("#ffe8d1", "#e2761b"),
    "yellow": Tone("#fdf2c4", "#c99a06"),
    "blue": Tone("#dfeafe", "#2f6fe0"),
    "purple": Tone("#ece5fd", "#7c4ddb"),
    "green": Tone("#dcf3df", "#2f9150"),
}


class Box(NamedTuple):
    """A rectangle on the canvas; its sides are where arrows begin and end."""

    x: float
    y: float
    w: float
    h: float

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h / 2

    @property
    def top(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h

    @property
    def left(self) -> tuple[float, float]:
        return self.x, self.y + self.h / 2

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.w, self.y + self.h / 2


Point = tuple[float, float]


@cache
def _font(name: str) -> TTFont:
    return TTFont(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{FONTS[name]}.ttf")


@cache
def _glyph(name: str, character: str) -> tuple[str, int]:
    """Return the outline of a character in font units, and how far it moves the pen."""
    font = _font(name)
    if ord(character) not in font.getBestCmap():
        raise ValueError(f"the font {FONTS[name]} has no character {character!r}")
    glyph = font.getBestCmap()[ord(character)]
    pen = SVGPathPen(font.getGlyphSet(), ntos=lambda value: str(round(value)))
    font.getGlyphSet()[glyph].draw(pen)
    return pen.getCommands(), font["hmtx"][glyph][0]


def _number(value: float) -> str:
    short = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def text_width(string: str, size: float, font: str = "sans") -> float:
    """Return the width of one line of text in pixels."""
    return sum(_glyph(font, c)[1] for c in string) * size / 2048


def blend(colour: str, other: str, share: float) -> str:
    """Return the colour that lies `share` of the way from `colour` to `other`."""
    pairs = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


class Page:
    """Collect SVG elements and text, and write them as one document."""

    def __init__(self, width: int, height: int, title: str):
        self.width = width
        self.height = height
        self.title = title
        self.shapes: list[str] = []
        self.glyphs: dict[str, str] = {}

    def add(self, tag: str, **attributes: str | float | None) -> None:
        """Add one SVG element; underscores in names become hyphens, None is left out."""
        values = {
            name.replace("_", "-"): value if isinstance(value, str) else _number(value)
            for name, value in attributes.items()
            if value is not None
        }
        parts = [f"{name}={quoteattr(value)}" for name, value in values.items()]
        self.shapes.append(f"<{tag} {' '.join(parts)}/>")

    def text(
        self,
        x: float,
        y: float,
        string: str,
        size: float = 13,
        font: str = "sans",
        colour: str = INK,
        anchor: str = "middle",
        turn: float = 0,
        leading: float = 1.3,
    ) -> None:
        """Write text whose lines are centred on y; anchor is start, middle or end."""
        lines = string.split("\n")
        scale = f"scale({size / 2048:.6f} -{size / 2048:.6f})"
        for number, line in enumerate(lines):
            down = (number - (len(lines) - 1) / 2) * size * leading + size * 0.36
            left = -text_width(line, size, font) * {"start": 0, "middle": 0.5, "end": 1}[anchor]
            place = f"translate({_number(x + left)} {_number(y + down)})"
            if turn:
                place = f"translate({_number(x)} {_number(y)}) rotate({_number(turn)})"
                place += f" translate({_number(left)} {_number(down)})"
            self._line(line, f"{place} {scale}", font, colour)

    def _line(self, line: str, transform: str, font: str, colour: str) -> None:
        """Write one line of text as outlines, each of which is defined once."""
        uses = []
        pen = 0
        for character in line:
            outline, advance = _glyph(font, character)
            if outline:
                name = f"{font}-{ord(character):x}"
                self.glyphs[name] = outline
                uses.append(f'<use href="#{name}" x="{pen}"/>' if pen else f'<use href="#{name}"/>')
            pen += advance
        attributes = f'aria-label={quoteattr(line)} transform="{transform}" fill="{colour}"'
        self.shapes.append(f'<g role="img" {attributes}>{"".join(uses)}</g>')

    def svg(self) -> str:
        """Return the whole document."""
        defs = "".join(f'<path id="{name}" d="{d}"/>' for name, d in sorted(self.glyphs.items()))
        size = f'width="{self.width}" height="{self.height}"'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
            f'viewBox="0 0 {self.width} {self.height}" role="img">\n'
            f"<title>{escape(self.title)}</title>\n"
            f"<defs>{defs}</defs>\n"
            f'<rect {size} rx="10" fill="{WHITE}"/>\n'
        )
        return head + "\n".join(self.shapes) + "\n</svg>\n"


class Canvas(Page):
    """A page that knows boxes, arrows and matrices."""

    def box(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        label: str = "",
        tone: str | Tone = "plain",
        size: float = 13,
        font: str = "sans",
        radius: float = 7,
        dash: str | None = None,
        stroke: float = 1.3,
        colour: str | None = None,
    ) -> Box:
        """Draw a rounded box with its label in the middle."""
        fill, edge, ink = TONES[tone] if isinstance(tone, str) else tone
        box = self.frame(x, y, w, h, edge, fill, dash, radius, stroke)
        if label:
            self.text(x + w / 2, y + h / 2, label, size, font, colour or ink)
        return box

    def frame(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        colour: str = EDGE,
        fill: str = "none",
        dash: str | None = None,
        radius: float = 12,
        stroke: float = 1.3,
    ) -> Box:
        """Draw an outline around other shapes."""
        self.add(
            "rect",
            x=x,
            y=y,
            width=w,
            height=h,
            rx=radius,
            fill=fill,
            stroke=colour,
            stroke_width=stroke,
            stroke_dasharray=dash,
        )
        return Box(x, y, w, h)

    def circle(
        self, x: float, y: float, r: float, tone: str | Tone = "plain", stroke: float = 1.3
    ) -> Box:
        """Draw a circle and return the square around it."""
        fill, edge, _ = TONES[tone] if isinstance(tone, str) else tone
        self.add("circle", cx=x, cy=y, r=r, fill=fill, stroke=edge, stroke_width=stroke)
        return Box(x - r, y - r, 2 * r, 2 * r)

    def plus(self, x: float, y: float, tone: str | Tone = "plain", r: float = 9) -> Box:
        """Draw the circled plus of a sum."""
        edge = (TONES[tone] if isinstance(tone, str) else tone).edge
        box = self.circle(x, y, r, tone)
        for dx, dy in ((r * 0.55, 0), (0, r * 0.55)):
            self.add(
                "line", x1=x - dx, y1=y - dy, x2=x + dx, y2=y + dy, stroke=edge, stroke_width=1.5
            )
        return box

    def path(
        self,
        d: str,
        colour: str = LINE,
        stroke: float = 1.3,
        fill: str = "none",
        dash: str | None = None,
    ) -> None:
        """Draw an SVG path."""
        self.add(
            "path",
            d=d,
            fill=fill,
            stroke=colour,
            stroke_width=stroke,
            stroke_dasharray=dash,
            stroke_linecap="round",
            stroke_linejoin="round",
        )

    def line(
        self, *points: Point, colour: str = LINE, stroke: float = 1.3, dash: str | None = None
    ) -> None:
        """Draw a line through the points, its corners rounded."""
        self.path(_rounded(points), colour, stroke, dash=dash)

    def arrow(
        self, *points: Point, colour: str = LINE, stroke: float = 1.3, dash: str | None = None
    ) -> None:
        """Draw a line through the points with a head at the last."""
        (x0, y0), (x1, y1) = points[-2:]
        size = 4.2 + stroke
        length = math.hypot(x1 - x0, y1 - y0)
        ux = (x1 - x0) / length
        uy = (y1 - y0) / length
        base = (x1 - ux * size, y1 - uy * size)
        self.line(*points[:-1], base, colour=colour, stroke=stroke, dash=dash)
        self.head((x1, y1), (ux, uy), size, colour)

    def head(self, tip: Point, direction: Point, size: float, colour: str) -> None:
        """Draw the head of an arrow."""
        x, y = tip
        ux, uy = direction
        wing = size * 0.5
        back = size * 1.15
        corners = [
            (x, y),
            (x - ux * back - uy * wing, y - uy * back + ux * wing),
            (x - ux * back + uy * wing, y - uy * back - ux * wing),
        ]
        d = "M" + " L".join(f"{_number(a)} {_number(b)}" for a, b in corners) + " Z"
        self.add("path", d=d, fill=colour)

    def matrix(
        self,
        x: float,
        y: float,
        rows: int,
        columns: int,
        cell: float | tuple[float, float],
        fill: Callable[[int, int], str],
        edge: str = WHITE,
    ) -> Box:
        """Draw a matrix of coloured cells; `fill` gives the colour of row i, column j."""
        w, h = cell if isinstance(cell, tuple) else (cell, cell)
        for i in range(rows):
            for j in range(columns):
                self.add(
                    "rect",
                    x=x + j * w,
                    y=y + i * h,
                    width=w,
                    height=h,
                    fill=fill(i, j),
                    stroke=edge,
                    stroke_width=0.8,
                )
        return Box(x, y, columns * w, rows * h)


def _rounded(points: Sequence[Point], radius: float = 7) -> str:
    """Return an SVG path through the points that turns each corner on a small curve."""
    d = f"M{_number(points[0][0])} {_number(points[0][1])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        enter, leave = (_toward(corner, end, radius) for end in (before, after))
        d += f" L{_number(enter[0])} {_number(enter[1])} Q{_number(corner[0])} {_number(corner[1])}"
        d += f" {_number(leave[0])} {_number(leave[1])}"
    return d + f" L{_number(points[-1][0])} {_number(points[-1][1])}"


def _toward(start: Point, end: Point, distance: float) -> Point:
    length = math.hypot(end[0] - start[0], end[1] - start[1])
    share = min(distance, length / 2) / length if length else 0
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
