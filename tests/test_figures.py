"""The diagrams are what the code draws, uncut; the notebooks' pictures are the right way round."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

pytest.importorskip("matplotlib", reason="the pictures need the extra 'course'")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transformer import plotting

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "figures"))

import canvas  # noqa: E402
import draw  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
each_figure = pytest.mark.parametrize("name", draw.FIGURES)


# --- the diagrams ---------------------------------------------------------------------------------


@each_figure
def test_figure_is_what_the_code_draws(name: str) -> None:
    stored = (ROOT / "figures" / f"{name}.svg").read_bytes().decode()
    assert stored == draw.FIGURES[name]().svg(), "run: make figures"


def test_no_figure_is_left_over() -> None:
    assert {path.stem for path in (ROOT / "figures").glob("*.svg")} == set(draw.FIGURES)


def test_every_figure_is_used_and_every_used_figure_exists() -> None:
    pages = [ROOT / "README.md", ROOT / "INSTRUCTORS.md"]
    pages += sorted((ROOT / "notebooks").glob("*.ipynb"))
    texts = [page.read_text(encoding="utf-8") for page in pages]
    used = {name for text in texts for name in re.findall(r"figures/(\w+)\.svg", text)}
    assert used == set(draw.FIGURES)


@each_figure
def test_figure_fits_a_notebook(name: str) -> None:
    text = draw.FIGURES[name]().svg()
    assert len(text.encode()) < 150_000
    assert float(ElementTree.fromstring(text).get("width")) <= 900


def cut_off(svg: str) -> list[str]:
    """Return the level texts of a figure that leave its canvas."""
    root = ElementTree.fromstring(svg)
    width = float(root.get("width"))
    height = float(root.get("height"))
    lost = []
    for group in root.iter(f"{SVG}g"):
        place = re.fullmatch(r"translate\((\S+) (\S+)\) scale\((\S+) \S+\)", group.get("transform"))
        if place:
            x, y, scale = map(float, place.groups())
            font = next(group.iter(f"{SVG}use")).get("href").lstrip("#").split("-")[0]
            end = x + canvas.text_width(group.get("aria-label"), scale * 2048, font)
            if x < 2 or end > width - 2 or not 8 < y < height - 2:
                lost.append(group.get("aria-label"))
    return lost


@each_figure
def test_no_text_of_a_figure_is_cut_off(name: str) -> None:
    assert cut_off(draw.FIGURES[name]().svg()) == []


def test_text_that_is_cut_off_is_found() -> None:
    drawing = canvas.Canvas(100, 40, "too small")
    drawing.text(50, 20, "fits")
    drawing.text(90, 20, "too long")
    assert cut_off(drawing.svg()) == ["too long"]


def test_unknown_figure_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert draw.main(["architecture_99"]) == 2
    assert "architecture_99" in capsys.readouterr().err


def test_a_character_without_a_glyph_is_named() -> None:
    with pytest.raises(ValueError, match="has no character '猫'"):
        canvas.Canvas(100, 40, "cat").text(50, 20, "猫")


# --- the notebooks' pictures ----------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """Collect the figures that are shown."""
    figures: list[Figure] = []

    def show() -> None:
        figures.append(plt.gcf())
        figures[-1].canvas.draw()

    monkeypatch.setattr(plt, "show", show)
    yield figures
    plt.close("all")


def words(axes: Axes) -> tuple[list[str], list[str]]:
    """Return the labels of the rows and of the columns."""
    rows = [label.get_text() for label in axes.get_yticklabels()]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    return rows, columns


QUERIES = ["c'è", "un", "gatto"]
KEYS = ["there", "is", "a", "cat"]


def test_rows_are_queries_and_columns_are_keys(shown: list[Figure]) -> None:
    weights = torch.zeros(3, 4)
    weights[2, 3] = 1.0
    assert plotting.plot_attention(weights, QUERIES, KEYS) is None
    axes = shown[0].axes[0]
    assert words(axes) == (QUERIES, KEYS)
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("queries", "keys")
    assert axes.images[0].get_array()[2, 3] == 1.0
    assert axes.yaxis_inverted(), "the first query is the top row"


def test_mask_has_rows_of_queries_and_fills_what_is_true(shown: list[Figure]) -> None:
    plotting.plot_mask(torch.ones(3, 4).tril().bool(), QUERIES, KEYS)
    axes = shown[0].axes[0]
    assert words(axes) == (QUERIES, KEYS)
    image = axes.images[0]
    assert image.cmap(image.norm(1.0))[:3] != image.cmap(image.norm(0.0))[:3] == (1.0, 1.0, 1.0)
    assert image.get_array().tolist() == torch.ones(3, 4).tril().tolist()


@pytest.mark.parametrize(
    "weights", [torch.full((5, 3, 4), 0.25), [torch.full((3, 4), 0.25)] * 5], ids=["tensor", "list"]
)
def test_heads_are_drawn_side_by_side_on_one_scale(
    shown: list[Figure], weights: torch.Tensor | list
) -> None:
    plotting.plot_attention(weights, QUERIES, KEYS, title="five heads")
    assert [axes.get_xlabel() for axes in shown[0].axes] == [f"head {head}" for head in range(5)]
    assert {axes.images[0].get_clim() for axes in shown[0].axes} == {(0, 1)}


@pytest.mark.parametrize(
    "plot", [plotting.plot_attention, plotting.plot_matrix, plotting.plot_mask]
)
def test_labels_that_do_not_fit_are_refused(plot, shown: list[Figure]) -> None:
    with pytest.raises(ValueError, match="has 4 labels, but the matrix has 3 rows"):
        plot(torch.zeros(3, 4), KEYS, QUERIES)
    with pytest.raises(ValueError, match="has 3 labels, but the matrix has 4 columns"):
        plot(torch.zeros(3, 4), QUERIES, QUERIES)
    assert not shown


def test_a_whole_batch_of_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one sentence"):
        plotting.plot_attention(torch.zeros(2, 8, 3, 4))


def test_centred_matrix_is_white_at_zero(shown: list[Figure]) -> None:
    plotting.plot_matrix(torch.tensor([[-1.0, 3.0]]), center=True)
    image = shown[0].axes[0].images[0]
    assert image.get_clim() == (-3.0, 3.0)
    assert min(image.cmap(image.norm(0.0))[:3]) > 0.99


def test_lines_and_bars_show_their_values(shown: list[Figure]) -> None:
    series = {"with": [3.0, 2.0, 1.0], "without": torch.tensor([3.0, 3.0, 3.0])}
    plotting.plot_lines(series, x=[10, 20, 30], logy=True)
    plotting.plot_bars({"with": 1, "without": torch.tensor(3.5)}, "loss")
    lines = shown[0].axes[0].get_lines()
    assert [line.get_ydata().tolist() for line in lines] == [[3.0, 2.0, 1.0], [3.0, 3.0, 3.0]]
    assert [bar.get_height() for bar in shown[1].axes[0].patches] == [1.0, 3.5]
    with pytest.raises(ValueError, match="'with' has 2 values, but x has 3"):
        plotting.plot_lines({"with": [1.0, 2.0]}, x=[1, 2, 3])


def crossed(figure: Figure) -> list[str]:
    """List the lines that pass through the legend of a figure."""
    axes = figure.axes[0]
    legend = axes.get_legend() or figure.legends[0]
    box = legend.get_window_extent()
    paths = {
        line.get_label(): line.get_transform().transform_path(line.get_path())
        for line in axes.lines
    }
    return [name for name, path in paths.items() if path.intersects_bbox(box, filled=False)]


def test_no_line_passes_through_the_legend(shown: list[Figure]) -> None:
    steps = torch.arange(64)
    plotting.plot_lines({f"wave {n}": (steps / n).sin() for n in (1, 3, 10, 40)})
    plotting.plot_lines({"low": 0 * steps, "rises": steps})
    assert [crossed(figure) for figure in shown] == [[], []]
    assert [bool(figure.legends) for figure in shown] == [True, False], "beside, where it must be"


def test_a_variant_has_the_same_colour_in_every_plot(shown: list[Figure]) -> None:
    series = {"none": [1, 2], "sum": [2, 3], "norm": [4, 4]}
    plotting.plot_lines(series, among=series)
    plotting.plot_lines({"norm": [4, 4]}, among=series)
    plotting.plot_lines({"norm": [4, 4]})
    plotting.plot_lines({"mean": [1, 2]}, among=[*series, *series, "mean"])
    every, one, alone, more = ([line.get_color() for line in f.axes[0].lines] for f in shown)
    assert len(set(every)) == 3
    assert one == every[2:] != alone
    assert more[0] not in every, "a name that is listed twice has one colour"
    with pytest.raises(ValueError, match="mean must be among none, sum, norm"):
        plotting.plot_lines({"mean": [1, 2]}, among=series)


def test_a_line_that_covers_another_is_dashed(shown: list[Figure]) -> None:
    rises = torch.arange(20.0)
    plotting.plot_lines({"a": rises, "b": 20 - rises, "c": rises + 0.01})
    plotting.plot_lines({"a": 10 ** (-rises), "b": 10 ** (-rises / 2)}, logy=True)
    styles = [[line.get_linestyle() != "-" for line in figure.axes[0].lines] for figure in shown]
    assert styles == [[False, False, True], [False, False]]


HISTORY = [
    {"step": 0, "train_loss": 5.0, "val_loss": 5.1, "learning_rate": 0.0},
    {"step": 10, "train_loss": 4.0, "learning_rate": 1e-3},
    {"step": 20, "train_loss": 3.0, "val_loss": 3.2, "learning_rate": 7e-4},
]


def test_curves_skip_steps_without_validation(shown: list[Figure]) -> None:
    plotting.plot_curves(HISTORY)
    train, val = shown[0].axes[0].get_lines()
    assert train.get_xdata().tolist() == [0, 10, 20]
    assert val.get_xdata().tolist() == [0, 20]


def test_curves_are_written_without_a_display(tmp_path: Path, shown: list[Figure]) -> None:
    path = plotting.plot_curves(HISTORY, tmp_path / "curves.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not shown and not plt.get_fignums()


def test_curves_without_a_loss_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row with a train_loss"):
        plotting.plot_curves([{"step": 0}], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_drawing_leaves_no_figure_and_no_setting_behind(shown: list[Figure]) -> None:
    before = dict(plt.rcParams)
    plotting.plot_matrix(torch.zeros(2, 3))
    assert dict(plt.rcParams) == before
    assert not plt.get_fignums()
