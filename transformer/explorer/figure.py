"""The still picture of a translation: the mean cross-attention of the last layer, as SVG.

It stands in where scripts do not run.
"""

from html import escape
from typing import Any

from transformer.explorer.translation import dequantised

CELL = 30
"""The side of a cell, in pixels."""
RAMP = ["#fbf9ff", "#d8caf6", "#b298ec", "#8a63da", "#6237b4", "#3b1680"]
"""From weight 0 to weight 1: lighter to darker in equal steps, readable without colour."""
INK = "#221f2e"
FONT = "font-family='ui-monospace, Menlo, Consolas, monospace' font-size='12'"


def still(translation: dict[str, Any]) -> str:
    """Return the picture as an SVG element with a title; `translation` is what the page shows."""
    weights = dequantised(translation["attention"]["cross"])[-1].mean(0).tolist()
    columns = translation["source"]["tokens"]
    rows = translation["target"]["tokens"]
    left = 20 + 7.3 * max(map(len, rows))
    top = 20 + 7.3 * max(map(len, columns))
    width = left + CELL * len(columns) + 0.7 * top
    height = top + CELL * len(rows) + 34
    title = f"{translation['source']['text']} → {translation['target']['text']}"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' "
        f"width='{width:.0f}' height='{height:.0f}' role='img' style='max-width:100%;height:auto'>",
        f"<title>Cross-attention: {escape(title)}</title>",
        f"<rect width='{width:.0f}' height='{height:.0f}' rx='10' fill='#ffffff'/>",
    ]
    for j, token in enumerate(columns):
        x = left + CELL * (j + 0.5)
        parts.append(text(x, top - 8, token, f"transform='rotate(-50 {x:.1f} {top - 8:.1f})'"))
    for i, token in enumerate(rows):
        y = top + CELL * i
        parts.append(text(left - 8, y + CELL / 2 + 4, token, "text-anchor='end'"))
        parts += [cell(left + CELL * j, y, weights[i][j]) for j in range(len(columns))]
    caption = "cross-attention of the last layer, mean of its heads"
    parts.append(text(left, height - 12, caption, "fill-opacity='0.75'"))
    return "".join([*parts, "</svg>"])


def cell(x: float, y: float, weight: float) -> str:
    """Return a cell, coloured by its weight, with the weight in percent if it is above 1 %."""
    shade = round(weight * (len(RAMP) - 1))
    side = CELL - 2
    square = (
        f"<rect x='{x + 1:.1f}' y='{y + 1:.1f}' width='{side}' height='{side}' rx='4' "
        f"fill='{RAMP[shade]}'/>"
    )
    percent = round(100 * weight)
    if percent < 1:
        return square
    colour = "#ffffff" if shade > 2 else INK
    return square + text(
        x + CELL / 2, y + CELL / 2 + 4, str(percent), "text-anchor='middle'", colour
    )


def text(x: float, y: float, words: str, more: str = "", colour: str = INK) -> str:
    """Return a text element."""
    return f"<text x='{x:.1f}' y='{y:.1f}' fill='{colour}' {FONT} {more}>{escape(words)}</text>"
