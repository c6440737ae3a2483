"""Lines, bars and learning curves."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from transformer.plotting.style import COLOURS, DPI, STYLE, finish, shown

COVERED = 2.0
"""How near a point of a line must be to another line's to hide it, in pixels."""

Value = Tensor | float | int
Series = Tensor | Sequence[Value]
History = Sequence[Mapping[str, Any]]


def plot_lines(
    series: Mapping[str, Series],
    x: Series | None = None,
    xlabel: str = "",
    ylabel: str = "",
    title: str | None = None,
    logy: bool = False,
    among: Iterable[str] = (),
) -> None:
    """Show one line for each named series, over `x` or over 0, 1, 2 …

    `among` lists the names of all variants that a chapter compares. A variant has the colour of its
    place there, in every plot that is given the same list. Raises ValueError if there is no series,
    if a series is not as long as `x`, or if its name is not in `among`.
    """
    lines = {name: to_list(values) for name, values in series.items()}
    if not lines:
        raise ValueError("series is empty: give at least one name with its values")
    xs = None if x is None else to_list(x)
    for name, values in lines.items():
        if xs is not None and len(values) != len(xs):
            raise ValueError(f"series {name!r} has {len(values)} values, but x has {len(xs)}")
    colours = colours_of(lines, among)
    with shown() as figure:
        figure.set_size_inches(5.6, 2.8)
        axes = figure.add_subplot()
        for name, values in lines.items():
            places = range(len(values)) if xs is None else xs
            axes.plot(places, values, label=name, color=colours[name])
        finish(axes, xlabel, ylabel, title)
        if logy:
            axes.set_yscale("log")
        if xs is None or all(float(x).is_integer() for x in xs):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        dash_what_covers(axes)
        if len(lines) > 1:
            add_legend(figure, axes)


def plot_bars(values: Mapping[str, Value], ylabel: str = "", title: str | None = None) -> None:
    """Show one bar for each named value, with the value written above it.

    Raises ValueError if there is no value.
    """
    if not values:
        raise ValueError("values is empty: give at least one name with its value")
    heights = [float(value) for value in values.values()]
    with shown() as figure:
        figure.set_size_inches(min(1.2 + 1.1 * len(heights), 8), 2.6)
        axes = figure.add_subplot()
        bars = axes.bar(list(values), heights, color=COLOURS[0], width=0.6)
        axes.bar_label(bars, fmt="{:.4g}", padding=2, fontsize=8.5)
        axes.margins(y=0.15)
        finish(axes, "", ylabel, title)
        axes.xaxis.grid(False)


def plot_curves(history: History, path: str | Path | None = None) -> Path | None:
    """Plot the learning curves of a training run: losses above, the learning rate below.

    Each row of `history` has a `step` and may have `train_loss`, `val_loss` and `learning_rate`.
    With a `path` the figure is written to that file, without a display, and the path is returned;
    otherwise it is shown. Raises ValueError if no row has a loss.
    """
    if all(row.get("train_loss") is None and row.get("val_loss") is None for row in history):
        raise ValueError("history has no row with a train_loss or a val_loss: nothing to draw")
    if path is None:
        with shown() as figure:
            draw_curves(figure, history)
        return None
    with rc_context(STYLE):
        figure = Figure(dpi=DPI, layout="constrained")
        draw_curves(figure, history)
        figure.savefig(path)
    return Path(path)


def draw_curves(figure: Figure, history: History) -> None:
    """Draw the losses above and the learning rate below, over the same steps."""
    figure.set_size_inches(5.6, 4.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    curves = [
        ("train_loss", "training", "-", upper),
        ("val_loss", "validation", "o-", upper),
        ("learning_rate", None, "-", lower),
    ]
    for colour, (name, label, mark, axes) in zip(COLOURS, curves, strict=False):
        known = [row for row in history if row.get(name) is not None]
        if known:
            steps = [row["step"] for row in known]
            values = [row[name] for row in known]
            axes.plot(steps, values, mark, label=label, color=colour, markersize=3)
    upper.legend()
    finish(upper, "", "loss per token")
    finish(lower, "step", "learning rate")


def to_list(values: Series) -> list:
    """Return a series as a list of numbers."""
    return torch.as_tensor(values).detach().cpu().flatten().tolist()


def colours_of(names: Iterable[str], among: Iterable[str]) -> dict[str, str]:
    """Return the colour of each name: that of its place in `among`, or of its own place."""
    order = list(dict.fromkeys(among)) or list(names)
    missing = sorted(set(names) - set(order))
    if missing:
        raise ValueError(f"{', '.join(missing)} must be among {', '.join(order)}")
    return {name: COLOURS[order.index(name) % len(COLOURS)] for name in names}


def dash_what_covers(axes: Axes) -> None:
    """Dash each line that runs on top of an earlier one almost everywhere, so that both show."""
    seen: list[Tensor] = []
    for line in axes.lines:
        points = torch.as_tensor(line.get_transform().transform(line.get_xydata()))
        away = [(points - other).norm(dim=1) for other in seen if other.shape == points.shape]
        if any((distance < COVERED).float().mean() > 0.9 for distance in away):
            line.set_linestyle((0, (4, 4)))
        seen.append(points)


def add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend where no line passes: into the axes if there is room, or else beside them."""
    legend = axes.legend()
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    paths = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    if any(path.intersects_bbox(box, filled=False) for path in paths):
        legend.remove()
        figure.set_size_inches(7.2, 2.8)
        figure.legend(loc="outside right center")
