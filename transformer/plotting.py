"""Pictures for the notebooks, in the colours of the course's diagrams.

Each function draws, shows and returns None, so that a notebook cell can end with it. Rows are queries and columns are keys.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

INK, MUTED, GRID = "#1f2937", "#64748b", "#e2e8f0"
COLOURS = ["#2f6fe0", "#e2761b", "#2f9150", "#7c4ddb", "#d64562", "#12908a", "#c99a06", "#64748b"]
WEIGHTS = LinearSegmentedColormap.from_list("weights", ["#ffffff", "#c9b5f3", "#7c4ddb", "#36186f"])
AMOUNTS = LinearSegmentedColormap.from_list("amounts", ["#ffffff", "#a9c6f7", "#2f6fe0", "#143573"])
SIGNED = LinearSegmentedColormap.from_list("signed", ["#a8500a", "#f0a566", "#ffffff", "#85acf0", "#1d4ea8"])
MASK = LinearSegmentedColormap.from_list("mask", ["#ffffff", "#12908a"])
STYLE = {
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
WRITTEN = 100  # the largest number of cells whose values are written into them

Number = float | int
Matrix = Tensor | Sequence[Sequence[Number]]
Series = Tensor | Sequence[Number | Tensor]
Labels = Sequence[str] | None


def plot_attention(
    weights: Matrix | Sequence[Matrix],
    queries: Labels = None,
    keys: Labels = None,
    title: str | Sequence[str] | None = None,
) -> None:
    """Show attention weights as a heat map: one row for each query, one column for each key, white is 0 and dark is 1.

    Several matrices, a list or a tensor of shape `h q k`, become small multiples; `title` may then name each of them.
    Raises ValueError if the labels do not fit the matrix.
    """
    matrices = _matrices(weights)
    for matrix in matrices:
        _check_labels(matrix, queries=queries, keys=keys)
    titles = _titles(title, len(matrices))
    if len(matrices) > 1:
        _show(lambda figure: _draw_heads(figure, matrices, queries, keys, titles))
    else:
        _show(lambda figure: _draw_weights(figure, matrices[0], queries, keys, titles[0]))


def plot_matrix(
    matrix: Matrix,
    rows: Labels = None,
    columns: Labels = None,
    title: str | None = None,
    center: bool = False,
) -> None:
    """Show a matrix as a heat map with a colour bar; `center` puts white at 0 and gives each sign its colour.

    Raises ValueError if the labels do not fit the matrix.
    """
    values = _matrix(matrix)
    _check_labels(values, rows=rows, columns=columns)
    _show(lambda figure: _draw_matrix(figure, values, rows, columns, title, center))


def plot_mask(mask: Matrix, queries: Labels = None, keys: Labels = None, title: str | None = None) -> None:
    """Show a boolean mask of shape `q k`: a filled cell is True, the query of its row may attend to the key of its column.

    Raises ValueError if the labels do not fit the mask.
    """
    values = _matrix(mask)
    _check_labels(values, queries=queries, keys=keys)
    _show(lambda figure: _draw_mask(figure, values, queries, keys, title or "filled: may attend"))


def plot_lines(
    series: Mapping[str, Series],
    x: Series | None = None,
    xlabel: str = "",
    ylabel: str = "",
    title: str | None = None,
    logy: bool = False,
) -> None:
    """Show one line for each named series, over `x` or over 0, 1, 2 …

    Raises ValueError if there is no series, or if one is not as long as `x`.
    """
    lines = {name: _list(values) for name, values in series.items()}
    if not lines:
        raise ValueError("series is empty: give at least one name with its values")
    places = None if x is None else _list(x)
    for name, values in lines.items():
        if places is not None and len(values) != len(places):
            raise ValueError(f"series {name!r} has {len(values)} values, but x has {len(places)}")
    _show(lambda figure: _draw_lines(figure, lines, places, (xlabel, ylabel), title, logy))


def plot_bars(values: Mapping[str, Number | Tensor], ylabel: str = "", title: str | None = None) -> None:
    """Show one bar for each named value, with the value written above it.

    Raises ValueError if there is no value.
    """
    if not values:
        raise ValueError("values is empty: give at least one name with its value")
    bars = {name: float(value) for name, value in values.items()}
    _show(lambda figure: _draw_bars(figure, bars, ylabel, title))


def plot_curves(history: Sequence[Mapping[str, Any]], path: str | Path | None = None) -> Path | None:
    """Draw the learning curves of a training run: the losses above, the learning rate below.

    Each row of `history` has a `step` and may have `train_loss`, `val_loss` and `learning_rate`. With a `path` the
    picture is written there, without a display, and the path is returned; else it is shown.
    Raises ValueError if no row has a loss.
    """
    rows = [dict(row) for row in history]
    if not any(row.get(name) is not None for row in rows for name in ("train_loss", "val_loss")):
        raise ValueError("history has no row with a train_loss or a val_loss: nothing to draw")
    if path is None:
        return _show(lambda figure: _draw_curves(figure, rows))
    with rc_context(STYLE):
        figure = Figure(dpi=DPI, layout="constrained")
        _draw_curves(figure, rows)
        figure.savefig(path)
    return Path(path)


def _show(draw: Callable[[Figure], None]) -> None:
    """Draw in the course's style and hand the figure to the front end."""
    # Imported here because pyplot chooses a display, and writing a picture to a file needs none.
    from matplotlib import pyplot as plt

    with rc_context(STYLE):
        figure = plt.figure(dpi=DPI, layout="constrained")
        draw(figure)
        plt.show()
    plt.close(figure)


def _matrix(values: Matrix) -> Tensor:
    """Return the values as a matrix of floats on the CPU."""
    matrix = torch.as_tensor(values).detach().cpu().float()
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(f"expected a matrix with rows and columns, got shape {tuple(matrix.shape)}")
    return matrix


def _matrices(weights: Matrix | Sequence[Matrix]) -> list[Tensor]:
    """Return one matrix, or one for each head."""
    if isinstance(weights, Tensor) and weights.ndim not in (2, 3):
        raise ValueError(
            f"weights must be q k or h q k, got shape {tuple(weights.shape)}: choose one sentence of the batch"
        )
    if len(weights) == 0:
        raise ValueError("weights is empty: give at least one matrix")
    depth = weights.ndim if isinstance(weights, Tensor) else 1 + torch.as_tensor(weights[0]).ndim
    return [_matrix(weights)] if depth == 2 else [_matrix(head) for head in weights]


def _list(values: Series) -> list[Number]:
    return torch.as_tensor(values).detach().cpu().flatten().tolist()


def _check_labels(matrix: Tensor, **labels: Labels) -> None:
    """Raise ValueError unless the first labels fit the rows and the second fit the columns."""
    for (name, words), size, side in zip(labels.items(), matrix.shape, ("rows", "columns"), strict=True):
        if words is not None and len(words) != size:
            raise ValueError(f"{name} has {len(words)} labels, but the matrix has {size} {side}")


def _titles(title: str | Sequence[str] | None, count: int) -> list[str | None]:
    """Return a title for each matrix; several are heads unless they are named."""
    if title is None or isinstance(title, str):
        return [title] if count == 1 else [title, *(f"head {head}" for head in range(count))]
    if len(title) != count:
        raise ValueError(f"title has {len(title)} names, but there are {count} matrices")
    return list(title) if count == 1 else [None, *title]


def _heat_map(axes: Axes, matrix: Tensor, colours: LinearSegmentedColormap, limits: tuple[Number, Number]) -> AxesImage:
    """Draw the cells, with thin white lines between them while they are large enough."""
    image = axes.imshow(matrix.numpy(), cmap=colours, vmin=limits[0], vmax=limits[1], aspect="equal")
    axes.spines[:].set_visible(True)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    if max(matrix.shape) <= 32:
        axes.set_xticks(torch.arange(matrix.shape[1] + 1).sub(0.5).tolist(), minor=True)
        axes.set_yticks(torch.arange(matrix.shape[0] + 1).sub(0.5).tolist(), minor=True)
        axes.grid(which="minor", axis="both", color=GRID, linewidth=0.8)
        axes.tick_params(which="minor", length=0)
    return image


def _label(axes: Axes, rows: Labels, columns: Labels, names: tuple[str, str] = ("", "")) -> None:
    """Write the labels beside the rows and above the columns."""
    if rows is not None:
        axes.set_yticks(range(len(rows)), list(rows))
    if columns is not None:
        long = max(len(str(column)) for column in columns) > 3
        axes.set_xticks(range(len(columns)), list(columns), rotation=45 if long else 0, ha="left" if long else "center")
    axes.set_ylabel(names[0])
    axes.set_xlabel(names[1])


def _write(axes: Axes, image: AxesImage, matrix: Tensor, form: str) -> None:
    """Write each value into its cell, in white where the cell is dark."""
    for i, row in enumerate(matrix.tolist()):
        for j, value in enumerate(row):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.6
            axes.text(j, i, format(value, form), ha="center", va="center", fontsize=7.5, color="white" if dark else INK)


def _size(figure: Figure, matrix: Tensor, cell: float = 0.42, width: float = 1.1, height: float = 1.0) -> None:
    """Give each cell its place, between a thumbnail and the width of a page."""
    rows, columns = matrix.shape
    cell = min(cell, 6.4 / columns, 5.0 / rows)
    figure.set_size_inches(max(columns * cell, 1.2) + width, max(rows * cell, 0.6) + height)


def _draw_weights(figure: Figure, matrix: Tensor, queries: Labels, keys: Labels, title: str | None) -> None:
    _size(figure, matrix)
    axes = figure.add_subplot()
    image = _heat_map(axes, matrix, WEIGHTS, (0, 1))
    _label(axes, queries, keys, ("queries", "keys"))
    axes.set_title(title or "")
    if matrix.numel() <= WRITTEN:
        _write(axes, image, matrix, ".2f")


def _draw_heads(figure: Figure, heads: list[Tensor], queries: Labels, keys: Labels, titles: list[str | None]) -> None:
    """Draw one small heat map for each head, four in a row, with labels at the left and at the top only."""
    columns = min(4, len(heads))
    rows = -(-len(heads) // columns)
    shape = heads[0].shape
    cell = min(0.24, 1.9 / shape[1])
    figure.set_size_inches(columns * (shape[1] * cell + 0.35) + 0.7, rows * (shape[0] * cell + 0.35) + 0.9)
    figure.suptitle(titles[0] or "", fontsize=10)
    for number, (head, name) in enumerate(zip(heads, titles[1:], strict=True)):
        axes = figure.add_subplot(rows, columns, number + 1)
        _heat_map(axes, head, WEIGHTS, (0, 1))
        _label(axes, queries, keys)
        axes.tick_params(labelleft=number % columns == 0, labeltop=number < columns, labelsize=7.5)
        axes.set_xlabel(name or "", color=INK)
        axes.xaxis.set_label_position("bottom")


def _draw_matrix(
    figure: Figure, matrix: Tensor, rows: Labels, columns: Labels, title: str | None, center: bool
) -> None:
    _size(figure, matrix, width=1.8)
    largest = float(matrix.abs().max()) or 1.0
    limits = (-largest, largest) if center else (float(matrix.min()), float(matrix.max()))
    axes = figure.add_subplot()
    image = _heat_map(axes, matrix, SIGNED if center else AMOUNTS, limits)
    _label(axes, rows, columns)
    axes.set_title(title or "")
    figure.colorbar(image, ax=axes, shrink=0.8, pad=0.03).outline.set_visible(False)
    if matrix.numel() <= WRITTEN:
        _write(axes, image, matrix, ".2g")


def _draw_mask(figure: Figure, mask: Tensor, queries: Labels, keys: Labels, title: str) -> None:
    _size(figure, mask, cell=0.3)
    axes = figure.add_subplot()
    _heat_map(axes, mask, MASK, (0, 1))
    _label(axes, queries, keys, ("queries", "keys"))
    axes.set_title(title)


def _draw_lines(
    figure: Figure,
    lines: Mapping[str, list[Number]],
    places: list[Number] | None,
    names: tuple[str, str],
    title: str | None,
    logy: bool,
) -> None:
    figure.set_size_inches(5.6, 2.8)
    axes = figure.add_subplot()
    for name, values in lines.items():
        axes.plot(range(len(values)) if places is None else places, values, label=name)
    _finish(axes, names, title, logy)
    if places is None:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(lines) > 1:
        axes.legend()


def _draw_bars(figure: Figure, values: Mapping[str, Number], ylabel: str, title: str | None) -> None:
    figure.set_size_inches(min(1.2 + 1.1 * len(values), 8), 2.6)
    axes = figure.add_subplot()
    bars = axes.bar(list(values), list(values.values()), color=COLOURS[0], width=0.6)
    axes.bar_label(bars, fmt="{:.4g}", padding=2, fontsize=8.5)
    axes.margins(y=0.15)
    _finish(axes, ("", ylabel), title)


def _draw_curves(figure: Figure, rows: list[dict[str, Any]]) -> None:
    figure.set_size_inches(5.6, 4.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for name, axes, colour in (
        ("train_loss", upper, COLOURS[0]),
        ("val_loss", upper, COLOURS[1]),
        ("learning_rate", lower, COLOURS[2]),
    ):
        known = [row for row in rows if row.get(name) is not None]
        if known:
            mark = "o-" if name == "val_loss" else "-"
            label = {"train_loss": "training", "val_loss": "validation"}.get(name)
            axes.plot(
                [row["step"] for row in known],
                [row[name] for row in known],
                mark,
                label=label,
                color=colour,
                markersize=3,
            )
    upper.legend()
    _finish(upper, ("", "loss per token"))
    _finish(lower, ("step", "learning rate"))


def _finish(axes: Axes, names: tuple[str, str], title: str | None = None, logy: bool = False) -> None:
    """Name the axes and put the grid behind the lines."""
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_title(title or "")
    axes.grid(True)
    axes.set_axisbelow(True)
    if logy:
        axes.set_yscale("log")
