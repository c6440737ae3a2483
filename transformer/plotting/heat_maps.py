"""Heat maps of attention weights, masks and other matrices."""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from transformer.plotting.style import AMOUNTS, GRID, INK, MASK, SIGNED, WEIGHTS, shown

MAX_ANNOTATED = 100
"""The largest number of cells of a heat map that still get their values as text."""

Matrix = Tensor | Sequence[Sequence[float]]
Labels = Sequence[str] | None
Limits = tuple[float, float]


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
    matrices = to_matrices(weights)
    for matrix in matrices:
        check_labels(matrix, queries=queries, keys=keys)
    titles = titles_of(title, len(matrices))
    with shown() as figure:
        if len(matrices) > 1:
            draw_heads(figure, matrices, queries, keys, titles)
        else:
            resize(figure, matrices[0])
            axes = figure.add_subplot(title=titles[0] or "", xlabel="keys", ylabel="queries")
            image = heat_map(axes, matrices[0], WEIGHTS, (0.0, 1.0))
            label_cells(axes, queries, keys)
            annotate_cells(image, matrices[0], ".2f")


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
    values = to_matrix(matrix)
    check_labels(values, rows=rows, columns=columns)
    largest = float(values.abs().max()) or 1.0
    limits = (-largest, largest) if center else (float(values.min()), float(values.max()))
    with shown() as figure:
        resize(figure, values, margin=1.8)
        axes = figure.add_subplot(title=title or "")
        image = heat_map(axes, values, SIGNED if center else AMOUNTS, limits)
        label_cells(axes, rows, columns)
        figure.colorbar(image, shrink=0.8, pad=0.03).outline.set_visible(False)
        annotate_cells(image, values, ".2g")


def plot_mask(
    mask: Matrix, queries: Labels = None, keys: Labels = None, title: str = "filled: may attend"
) -> None:
    """Show a boolean mask of shape `q k`: where a cell is filled, the query may attend to the key.

    Raises ValueError if the labels do not fit the mask.
    """
    values = to_matrix(mask)
    check_labels(values, queries=queries, keys=keys)
    with shown() as figure:
        resize(figure, values, cell=0.3)
        axes = figure.add_subplot(title=title, xlabel="keys", ylabel="queries")
        heat_map(axes, values, MASK, (0.0, 1.0))
        label_cells(axes, queries, keys)


def to_matrix(values: Any) -> Tensor:
    """Return the values as a matrix of floats on the CPU; ValueError if they are not one."""
    matrix = torch.as_tensor(values).detach().cpu().float()
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(f"a matrix must have rows and columns, got shape {tuple(matrix.shape)}")
    return matrix


def to_matrices(weights: Matrix | Sequence[Matrix]) -> list[Tensor]:
    """Return a list of one matrix, or of one for each head."""
    if isinstance(weights, Tensor) and weights.ndim not in (2, 3):
        found = f"weights must be q k or h q k, got shape {tuple(weights.shape)}"
        raise ValueError(f"{found}: choose one sentence of the batch")
    if len(weights) == 0:
        raise ValueError("weights is empty: give at least one matrix")
    single = torch.as_tensor(weights[0]).ndim == 1
    return [to_matrix(matrix) for matrix in ([weights] if single else weights)]


def check_labels(matrix: Tensor, **labels: Labels) -> None:
    """Raise ValueError unless the first labels fit the rows and the second fit the columns."""
    sides = zip(labels.items(), matrix.shape, ("rows", "columns"), strict=True)
    for (name, words), size, side in sides:
        if words is not None and len(words) != size:
            raise ValueError(f"{name} has {len(words)} labels, but the matrix has {size} {side}")


def titles_of(title: str | Sequence[str] | None, count: int) -> list[str | None]:
    """Return the title of a single matrix, or a title for all followed by one for each."""
    if title is None or isinstance(title, str):
        return [title] if count == 1 else [title, *(f"head {head}" for head in range(count))]
    if len(title) != count:
        raise ValueError(f"title has {len(title)} names, but there are {count} matrices")
    return list(title) if count == 1 else [None, *title]


def resize(figure: Figure, matrix: Tensor, cell: float = 0.42, margin: float = 1.1) -> None:
    """Give each cell of a matrix `cell` inches at most, with a margin at the side for labels."""
    rows, columns = matrix.shape
    cell = min(cell, 6.4 / columns, 5.0 / rows)
    figure.set_size_inches(max(columns * cell, 1.2) + margin, max(rows * cell, 0.6) + 1.0)


def heat_map(axes: Axes, matrix: Tensor, colormap: Colormap, limits: Limits) -> AxesImage:
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


def draw_heads(
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
        heat_map(axes, head, WEIGHTS, (0.0, 1.0))
        label_cells(axes, queries, keys)
        left = number % columns == 0
        axes.tick_params(labelleft=left, labeltop=number < columns, labelsize=7.5)
        axes.set_xlabel(name or "", color=INK)
        axes.xaxis.set_label_position("bottom")


def label_cells(axes: Axes, rows: Labels, columns: Labels) -> None:
    """Write the labels beside the rows and above the columns."""
    if rows is not None:
        axes.set_yticks(range(len(rows)), rows)
    if columns is not None:
        long = max(len(str(column)) for column in columns) > 3
        alignment = "left" if long else "center"
        axes.set_xticks(range(len(columns)), columns, rotation=45 if long else 0, ha=alignment)


def annotate_cells(image: AxesImage, matrix: Tensor, form: str) -> None:
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
