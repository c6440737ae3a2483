"""The style of the notebooks' plots: the colours of the course's diagrams."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

INK = "#1f2937"
MUTED = "#64748b"
GRID = "#e2e8f0"
COLOURS = ["#2f6fe0", "#e2761b", "#2f9150", "#7c4ddb", "#d64562", "#12908a", "#c99a06", "#64748b"]


def colormap(*colours: str) -> Colormap:
    """Return a colormap that passes through the colours at equal distances."""
    return LinearSegmentedColormap.from_list("course", colours)


WEIGHTS = colormap("#ffffff", "#c9b5f3", "#7c4ddb", "#36186f")
AMOUNTS = colormap("#ffffff", "#a9c6f7", "#2f6fe0", "#143573")
SIGNED = colormap("#a8500a", "#f0a566", "#ffffff", "#85acf0", "#1d4ea8")
MASK = colormap("#ffffff", "#12908a")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#94a3b8",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', {COLOURS})",
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
DPI = 90


@contextmanager
def shown() -> Iterator[Figure]:
    """Give an empty figure in the course's style, and show it when it has been drawn."""
    # Imported here because pyplot chooses a display, and writing a figure to a file needs none.
    from matplotlib import pyplot as plt

    with rc_context(STYLE):
        figure = plt.figure(dpi=DPI, layout="constrained")
        try:
            yield figure
            plt.show()
        finally:
            plt.close(figure)


def finish(axes: Axes, xlabel: str, ylabel: str, title: str | None = None) -> None:
    """Name the axes and put the grid behind the lines."""
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title or "", axisbelow=True)
    axes.grid(True)
