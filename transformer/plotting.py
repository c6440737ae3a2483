"""Plots for the notebooks, in the colours of the course's diagrams.

Each function draws a figure, shows it and returns None, so that it can end a notebook cell without
printing. In plots of attention and of masks, rows are queries and columns are keys.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

INK = "#1f2937"
MUTED = "#64748b"
GRID = "#e2e8f0"
COLOURS = ["#2f6fe0", "#e2761b", "#2f9150", "#7c4ddb", "#d64562", "#12908a", "#c99a06", "#64748b"]


def _colormap(*colours: str) -> Colormap:
    """Return a colormap that passes through the colours at equal distances."""
    return LinearSegmentedColormap.from_list("course", colours)


WEIGHTS = _colormap("#ffffff", "#c9b5f3", "#7c4ddb", "#36186f")
AMOUNTS = _colormap("#ffffff", "#a9c6f7", "#2f6fe0", "#143573")
SIGNED = _colormap("#a8500a", "#f0a566", "#ffffff", "#85acf0", "#1d4ea8")
MASK = _colormap("#ffffff", "#12908a")
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
MAX_ANNOTATED = 100
"""The largest number of cells of a heat map that still get their values as text."""
COVERED = 2.0
"""How near a point of a line must be to another line's to hide it, in pixels."""

Value = Tensor | float | int
Series = Tensor | Sequence[Value]
Matrix = Tensor | Sequence[Sequence[float]]
Labels = Sequence[str] | None
Limits = tuple[float, float]
History = Sequence[Mapping[str, Any]]


def plot_attention(
    weights: Matrix | Sequence[Matrix],
    queries: Labels = None,
    keys: Labels = None,
    title: str | Sequence[str] | None = None,
) -> None:
    """Show attention weights as a heat map from white, 0, to dark, 1.

    Several matrices, a list or a tensor of shape `h q k`, become small multiples; `title` may then
    be a list with one title for each of them. Raises ValueError if the labels or titles do not fit
    the matrices.
    """
    matrices = _matrices(weights)
    for matrix in matrices:
        _check_labels(matrix, queries=queries, keys=keys)
    titles = _titles(title, len(matrices))
    with _shown() as figure:
        if len(matrices) > 1:
            _draw_heads(figure, matrices, queries, keys, titles)
        else:
            _resize(figure, matrices[0])
            axes = figure.add_subplot(title=titles[0] or "", xlabel="keys", ylabel="queries")
            image = _heat_map(axes, matrices[0], WEIGHTS, (0.0, 1.0))
            _label(axes, queries, keys)
            _annotate(image, matrices[0], ".2f")


def plot_matrix(
    matrix: Matrix,
    rows: Labels = None,
    columns: Labels = None,
    title: str | None = None,
    center: bool = False,
) -> None:
    """Show a matrix as a heat map with a colour bar.

    With `center`, white is 0, and positive and negative numbers have different colours. Raises
    ValueError if the labels do not fit the matrix.
    """
    values = _matrix(matrix)
    _check_labels(values, rows=rows, columns=columns)
    largest = float(values.abs().max()) or 1.0
    limits = (-largest, largest) if center else (float(values.min()), float(values.max()))
    with _shown() as figure:
        _resize(figure, values, margin=1.8)
        axes = figure.add_subplot(title=title or "")
        image = _heat_map(axes, values, SIGNED if center else AMOUNTS, limits)
        _label(axes, rows, columns)
        figure.colorbar(image, shrink=0.8, pad=0.03).outline.set_visible(False)
        _annotate(image, values, ".2g")


def plot_mask(
    mask: Matrix, queries: Labels = None, keys: Labels = None, title: str = "filled: may attend"
) -> None:
    """Show a boolean mask of shape `q k`: where a cell is filled, the query may attend to the key.

    Raises ValueError if the labels do not fit the mask.
    """
    values = _matrix(mask)
    _check_labels(values, queries=queries, keys=keys)
    with _shown() as figure:
        _resize(figure, values, cell=0.3)
        axes = figure.add_subplot(title=title, xlabel="keys", ylabel="queries")
        _heat_map(axes, values, MASK, (0.0, 1.0))
        _label(axes, queries, keys)


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
    lines = {name: _list(values) for name, values in series.items()}
    if not lines:
        raise ValueError("series is empty: give at least one name with its values")
    xs = None if x is None else _list(x)
    for name, values in lines.items():
        if xs is not None and len(values) != len(xs):
            raise ValueError(f"series {name!r} has {len(values)} values, but x has {len(xs)}")
    colours = _colours(lines, among)
    with _shown() as figure:
        figure.set_size_inches(5.6, 2.8)
        axes = figure.add_subplot()
        for name, values in lines.items():
            places = range(len(values)) if xs is None else xs
            axes.plot(places, values, label=name, color=colours[name])
        _finish(axes, xlabel, ylabel, title)
        if logy:
            axes.set_yscale("log")
        if xs is None or all(float(x).is_integer() for x in xs):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _dash_what_covers(axes)
        if len(lines) > 1:
            _add_legend(figure, axes)


def plot_bars(values: Mapping[str, Value], ylabel: str = "", title: str | None = None) -> None:
    """Show one bar for each named value, with the value written above it.

    Raises ValueError if there is no value.
    """
    if not values:
        raise ValueError("values is empty: give at least one name with its value")
    heights = [float(value) for value in values.values()]
    with _shown() as figure:
        figure.set_size_inches(min(1.2 + 1.1 * len(heights), 8), 2.6)
        axes = figure.add_subplot()
        bars = axes.bar(list(values), heights, color=COLOURS[0], width=0.6)
        axes.bar_label(bars, fmt="{:.4g}", padding=2, fontsize=8.5)
        axes.margins(y=0.15)
        _finish(axes, "", ylabel, title)
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
        with _shown() as figure:
            _draw_curves(figure, history)
        return None
    with rc_context(STYLE):
        figure = Figure(dpi=DPI, layout="constrained")
        _draw_curves(figure, history)
        figure.savefig(path)
    return Path(path)


@contextmanager
def _shown() -> Iterator[Figure]:
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


def _matrix(values: Any) -> Tensor:
    """Return the values as a matrix of floats on the CPU; ValueError if they are not one."""
    matrix = torch.as_tensor(values).detach().cpu().float()
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(f"a matrix must have rows and columns, got shape {tuple(matrix.shape)}")
    return matrix


def _matrices(weights: Matrix | Sequence[Matrix]) -> list[Tensor]:
    """Return a list of one matrix, or of one for each head."""
    if isinstance(weights, Tensor) and weights.ndim not in (2, 3):
        found = f"weights must be q k or h q k, got shape {tuple(weights.shape)}"
        raise ValueError(f"{found}: choose one sentence of the batch")
    if len(weights) == 0:
        raise ValueError("weights is empty: give at least one matrix")
    single = torch.as_tensor(weights[0]).ndim == 1
    return [_matrix(matrix) for matrix in ([weights] if single else weights)]


def _list(values: Series) -> list:
    """Return a series as a list of numbers."""
    return torch.as_tensor(values).detach().cpu().flatten().tolist()


def _colours(names: Iterable[str], among: Iterable[str]) -> dict[str, str]:
    """Return the colour of each name: that of its place in `among`, or of its own place."""
    order = list(dict.fromkeys(among)) or list(names)
    missing = sorted(set(names) - set(order))
    if missing:
        raise ValueError(f"{', '.join(missing)} must be among {', '.join(order)}")
    return {name: COLOURS[order.index(name) % len(COLOURS)] for name in names}


def _dash_what_covers(axes: Axes) -> None:
    """Dash each line that runs on top of an earlier one almost everywhere, so that both show."""
    seen: list[Tensor] = []
    for line in axes.lines:
        points = torch.as_tensor(line.get_transform().transform(line.get_xydata()))
        away = [(points - other).norm(dim=1) for other in seen if other.shape == points.shape]
        if any((distance < COVERED).float().mean() > 0.9 for distance in away):
            line.set_linestyle((0, (4, 4)))
        seen.append(points)


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend where no line passes: into the axes if there is room, or else beside them."""
    legend = axes.legend()
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    paths = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    if any(path.intersects_bbox(box, filled=False) for path in paths):
        legend.remove()
        figure.set_size_inches(7.2, 2.8)
        figure.legend(loc="outside right center")


def _check_labels(matrix: Tensor, **labels: Labels) -> None:
    """Raise ValueError unless the first labels fit the rows and the second fit the columns."""
    sides = zip(labels.items(), matrix.shape, ("rows", "columns"), strict=True)
    for (name, words), size, side in sides:
        if words is not None and len(words) != size:
            raise ValueError(f"{name} has {len(words)} labels, but the matrix has {size} {side}")


def _titles(title: str | Sequence[str] | None, count: int) -> list[str | None]:
    """Return the title of a single matrix, or a title for all followed by one for each."""
    if title is None or isinstance(title, str):
        return [title] if count == 1 else [title, *(f"head {head}" for head in range(count))]
    if len(title) != count:
        raise ValueError(f"title has {len(title)} names, but there are {count} matrices")
    return list(title) if count == 1 else [None, *title]


def _resize(figure: Figure, matrix: Tensor, cell: float = 0.42, margin: float = 1.1) -> None:
    """Give each cell of a matrix `cell` inches at most, with a margin at the side for labels."""
    rows, columns = matrix.shape
    cell = min(cell, 6.4 / columns, 5.0 / rows)
    figure.set_size_inches(max(columns * cell, 1.2) + margin, max(rows * cell, 0.6) + 1.0)


def _heat_map(axes: Axes, matrix: Tensor, colormap: Colormap, limits: Limits) -> AxesImage:
    """Draw the cells, with thin lines between them if the matrix is small."""
    image = axes.imshow(matrix.numpy(), cmap=colormap, clim=limits, aspect="equal")
    axes.spines[:].set_visible(True)
    axes.tick_params(which="both", length=0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    for axis, size in zip((axes.yaxis, axes.xaxis), matrix.shape, strict=True):
        axis.set_major_locator(MaxNLocator(integer=True))
        if max(matrix.shape) <= 32:
            axis.set_ticks(torch.arange(size + 1).sub(0.5).tolist(), minor=True)
            axis.grid(which="minor", color=GRID, linewidth=0.8)
    return image


def _draw_heads(
    figure: Figure, heads: list[Tensor], queries: Labels, keys: Labels, titles: list[str | None]
) -> None:
    """Draw one small heat map for each head, four in a row, labelled at the left and the top."""
    columns = min(4, len(heads))
    rows = -(-len(heads) // columns)
    n_queries, n_keys = heads[0].shape
    cell = min(0.24, 1.9 / n_keys)
    width = columns * (n_keys * cell + 0.35) + 0.7
    figure.set_size_inches(width, rows * (n_queries * cell + 0.35) + 0.9)
    figure.suptitle(titles[0] or "", fontsize=10)
    for number, (head, name) in enumerate(zip(heads, titles[1:], strict=True)):
        axes = figure.add_subplot(rows, columns, number + 1)
        _heat_map(axes, head, WEIGHTS, (0.0, 1.0))
        _label(axes, queries, keys)
        left = number % columns == 0
        axes.tick_params(labelleft=left, labeltop=number < columns, labelsize=7.5)
        axes.set_xlabel(name or "", color=INK)
        axes.xaxis.set_label_position("bottom")


def _label(axes: Axes, rows: Labels, columns: Labels) -> None:
    """Write the labels beside the rows and above the columns."""
    if rows is not None:
        axes.set_yticks(range(len(rows)), rows)
    if columns is not None:
        long = max(len(str(column)) for column in columns) > 3
        alignment = "left" if long else "center"
        axes.set_xticks(range(len(columns)), columns, rotation=45 if long else 0, ha=alignment)


def _annotate(image: AxesImage, matrix: Tensor, form: str) -> None:
    """Write each value into its cell, in white where the cell is dark, unless they are many."""
    if matrix.numel() > MAX_ANNOTATED:
        return
    for i, row in enumerate(matrix.tolist()):
        for j, value in enumerate(row):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.6
            colour = "white" if dark else INK
            text = image.axes.text(j, i, format(value, form), color=colour, fontsize=7.5)
            text.set(ha="center", va="center")


def _draw_curves(figure: Figure, history: History) -> None:
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
    _finish(upper, "", "loss per token")
    _finish(lower, "step", "learning rate")


def _finish(axes: Axes, xlabel: str, ylabel: str, title: str | None = None) -> None:
    """Name the axes and put the grid behind the lines."""
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title or "", axisbelow=True)
    axes.grid(True)
