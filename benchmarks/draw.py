"""Draw pictures and write tables from the files of results: `python -m benchmarks.draw`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import precision, quality, results
from benchmarks.adapters import SYSTEMS
from benchmarks.work import SIZES, WORKS
from transformer.files import atomic_write
from transformer.plotting.style import COLOURS, INK, MUTED, STYLE

README = results.HERE.parent / "README.md"
TITLES = {
    "train": "training steps",
    "greedy": "greedy search",
    "beam5": "beam search, 5",
    "one": "one sentence at a time",
}
# The colours of bfloat16 and of float32.
OURS = (COLOURS[0], "#a9c6f7")
PEERS = ("#94a3b8", "#dbe2ea")
ENGINE = ("#c99a06", "#f1dda0")
LINES = {"ours": COLOURS[0], "torch.nn": COLOURS[1], "causal": COLOURS[0], "plain": COLOURS[1]}
AXES = {
    "length": "length, one sentence",
    "batch": "sentences of 32 tokens",
    "width": "width d, 16 sentences",
    "depth": "layers on each side",
    "attention": "length, attention alone",
}


def save(figure: Figure, path: Path) -> None:
    """Write a picture; the same numbers give the same file."""
    with rc_context({"svg.hashsalt": "transformer"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    print(path.name)


def draw_results(rows: Sequence[dict], path: Path) -> None:
    """Draw tokens a second as bars: works below each other, sizes side by side."""
    found = list(results.groups(list(rows)))
    works = [work for work in WORKS if any(group[0]["work"] == work for group in found)]
    sizes = [size for size in SIZES if any(group[0]["size"] == size for group in found)]
    heights = [len({row["system"] for row in rows if row["work"] == work}) + 1 for work in works]
    with rc_context(STYLE):
        figure = Figure(
            figsize=(2.6 * len(sizes) + 1.2, 0.36 * sum(heights) + 0.4), layout="constrained"
        )
        panels = figure.subplots(len(works), len(sizes), squeeze=False, height_ratios=heights)
        for line, work in zip(panels, works):
            for axes, size in zip(line, sizes):
                panel = [results.pick(group, work=work, size=size) for group in found]
                draw_bars(axes, [row for group in panel for row in group])
                axes.set_title(f"{TITLES[work]}, {size}", color=INK, loc="left")
                axes.tick_params(labelleft=axes is line[0])
        figure.supxlabel(
            "tokens a second · dark: bfloat16 · light: float32", fontsize=9, color=MUTED
        )
        save(figure, path)


def draw_bars(axes: Axes, rows: Sequence[dict]) -> None:
    """Draw one bar for each row, those of a system next to each other."""
    names = [name for name in SYSTEMS if results.pick(rows, system=name)]
    for y, name in enumerate(names):
        own = results.pick(rows, system=name)
        engine = name.startswith("ctranslate2")
        dark, light = OURS if name == "ours" else ENGINE if engine else PEERS
        for i, row in enumerate(own):
            speed = row["tokens_per_s"]
            at = y + 0.4 * (i - (len(own) - 1) / 2)
            axes.barh(at, speed, 0.36, color=dark if row["dtype"] == "bf16" else light)
            axes.text(speed, at, f" {speed:,.0f}", va="center", fontsize=7, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.25)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    for label in axes.get_yticklabels():
        label.set_color(COLOURS[0] if label.get_text() == "ours" else MUTED)


def draw_curves(curves: dict, path: Path) -> None:
    """Draw time (above) and peak memory (below) against what grows, and theory beside them.

    All scales are logarithmic.
    """
    axes_drawn = [axis for axis in AXES if any(point["axis"] == axis for point in curves["points"])]
    with rc_context(STYLE):
        figure = Figure(figsize=(2.9 * len(axes_drawn), 5.2), layout="constrained")
        panels = figure.subplots(2, len(axes_drawn), squeeze=False)
        for (upper, lower), axis in zip(panels.T, axes_drawn):
            points = [point for point in curves["points"] if point["axis"] == axis]
            draw_lines(upper, points, "seconds")
            draw_lines(lower, points, "peak_mb")
            draw_theory(upper, lower, axis, points, curves["machine"]["matmul_fp32_gflops"])
            upper.set_title(AXES[axis], color=INK, loc="left")
            for panel in (upper, lower):
                panel.margins(y=0.3)
                panel.legend(fontsize=7, loc="upper left")
        panels[0][0].set_ylabel("seconds")
        panels[1][0].set_ylabel("peak memory, MB")
        save(figure, path)


def draw_lines(axes: Axes, points: Sequence[dict], what: str) -> None:
    """Draw one line for each system."""
    others = iter(COLOURS[2:])
    for name in dict.fromkeys(point["system"] for point in points):
        own = [point for point in points if point["system"] == name]
        colour = LINES.get(name) or next(others)
        x = [point["x"] for point in own]
        y = [point[what] for point in own]
        axes.plot(x, y, "o-", markersize=3, label=name, color=colour)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({point["x"] for point in points})
    axes.set_xticks(ticks[:: 1 + len(ticks) // 6], [str(x) for x in ticks[:: 1 + len(ticks) // 6]])
    axes.minorticks_off()
    axes.grid(True, axis="both")
    axes.set_axisbelow(True)


def draw_theory(upper: Axes, lower: Axes, axis: str, points: Sequence[dict], gflops: float) -> None:
    """Draw the time of the arithmetic at the machine's limit, and the memory of attention."""
    style = dict(color=MUTED, linestyle="--", linewidth=1, zorder=1)
    work = dict(sorted({point["x"]: point["multiply_adds"] for point in points}.items()))
    name = "n² d, at the limit" if axis == "attention" else "multiply-adds at the limit"
    upper.plot(work.keys(), [2e-9 * n / gflops for n in work.values()], label=name, **style)
    if axis == "attention":
        heads = 8
        d = 512
        weights = [4 * heads * n * n / 2**20 for n in work]
        in_and_out = [4 * 8 * n * d / 2**20 for n in work]
        lower.plot(work.keys(), weights, label="h n²: the weights", **style)
        style["linestyle"] = ":"
        lower.plot(work.keys(), in_and_out, label="8 n d: in and out", **style)


def markdown(rows: Sequence[dict]) -> str:
    """Return a table of tokens a second, and of our ratio to the fastest peer in PyTorch."""
    names = [name for name in SYSTEMS if results.pick(rows, system=name)]
    lines = [
        f"| tokens/s | {' | '.join(names)} | ours ÷ fastest peer |",
        "|---" * (len(names) + 2) + "|",
    ]
    for group in results.groups(list(rows)):
        systems = results.by_system(group)
        title = f"{TITLES[group[0]['work']]}, {group[0]['size']}, {group[0]['dtype']}"
        speeds = [
            f"{systems[name]['tokens_per_s']:,.0f}" if name in systems else "" for name in names
        ]
        value = results.ratio(group, "fastest peer")
        share = f"**{value[0]:.2f}**" if value else ""
        lines.append(f"| {title} | {' | '.join(speeds)} | {share} |")
    return "\n".join(lines)


def put_into(path: Path, text: str, name: str = "benchmarks") -> None:
    """Write a table between its markers, if the file has them."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if end:
        atomic_write(path, f"{before}{begin}\n\n{text}\n\n{end}{after}".encode())
        print(f"the table in {path.name}")


def main(folder: Path = results.HERE, readme: Path = README) -> int:
    """Draw all files of results that exist."""
    for path in sorted(folder.glob("results*.json")):
        found = results.read(path)
        draw_results(found["rows"], path.with_suffix(".svg"))
        if path.name == "results.json":
            put_into(readme, markdown(found["rows"]))
    for path in sorted(folder.glob("curves*.json")):
        draw_curves(json.loads(path.read_text()), path.with_suffix(".svg"))
    if (path := folder / "precision.json").is_file():
        table = precision.markdown(json.loads(path.read_text())["rows"])
        put_into(folder / "README.md", table, "precision")
    if (path := folder / "quality.json").is_file():
        put_into(readme, quality.markdown(quality.read(path)), "quality")
    return 0


if __name__ == "__main__":
    sys.exit(main())
