"""Test what a run shows while it trains, and that techniques go through a whole run."""

import itertools
import json
import sys
import types
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_recipes import contents, equal_files, make_corpus, names, preset, stop_after

from transformer.files import read_tensors
from transformer.recipes import Preset, Techniques, checkpoints, fit, read_run
from transformer.recipes.curve_picture import curve_svg, ticks
from transformer.recipes.monitoring import MetricsLog, TensorBoard, print_samples
from transformer.recipes.run_folder import snapshots
from transformer.training import learning_rate

ALL = Techniques(simcut=1.0, average_last=2, both_directions=3)


def with_techniques(settings: Preset, **changes) -> Preset:
    return replace(settings, techniques=replace(settings.techniques, **changes))


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_are_lines_of_json(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("transformer.recipes.monitoring.LOG_EVERY", 2)
    seen = []
    history = fit(
        make_corpus(),
        tmp_path,
        preset(steps=5, validate_every=3),
        samples=2,
        callbacks=[seen.append],
    )
    lines = lines_of(tmp_path)
    assert lines == seen
    assert [line["step"] for line in lines] == [2, 3, 4, 5]
    assert lines[0].keys() == {"step", "seconds", "tokens_per_s", "train_loss"}
    assert lines[0]["tokens_per_s"] > 0
    samples = [line.pop("samples") for line in (lines[1], lines[3])]
    assert [lines[1], lines[3]] == history
    sources = [sample["source"] for sample in samples[0]]
    assert sources == [src for src, _ in make_corpus().val[:2]]
    assert all(sample.keys() == {"source", "reference", "translation"} for sample in samples[1])


def test_a_resumed_run_goes_on_with_its_metrics(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("transformer.recipes.monitoring.LOG_EVERY", 2)
    fit(make_corpus(), tmp_path, preset(steps=6, validate_every=3))
    earlier = checkpoints(tmp_path)[0]
    fit(make_corpus(), tmp_path, preset(steps=7, validate_every=3), resume=earlier)
    assert [line["step"] for line in lines_of(tmp_path)] == [2, 3, 4, 6, 6, 7]


def test_a_new_run_in_an_old_folder_has_its_own_metrics(tmp_path) -> None:
    fit(make_corpus(), tmp_path, with_techniques(preset(steps=4, validate_every=2), average_last=2))
    assert [path.stem for path in snapshots(tmp_path)] == [f"snapshot-{i:08d}" for i in (2, 4)]
    fit(make_corpus(), tmp_path, preset(steps=3))
    assert [line["step"] for line in lines_of(tmp_path)] == [3]
    assert snapshots(tmp_path) == []


def test_samples_are_printed_and_do_not_change_a_run(tmp_path, capsys) -> None:
    for folder, count in ((tmp_path / "a", 0), (tmp_path / "b", 2)):
        fit(
            make_corpus(),
            folder,
            preset(steps=4, validate_every=2),
            samples=count,
            callbacks=[print_samples],
        )
    shown = capsys.readouterr().err
    assert shown.count(f"  {make_corpus().val[0][0]} → ") == 2
    assert equal_files(*(checkpoints(tmp_path / name)[-1] for name in "ab"))


def test_a_missing_tensorboard_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        TensorBoard(tmp_path)


def test_tensorboard_gets_every_number_by_step(tmp_path, monkeypatch) -> None:
    written = []

    class Writer:
        def __init__(self, folder: str):
            written.append(folder)

        def add_scalar(self, *row) -> None:
            written.append(row)

        def add_text(self, *row) -> None:
            written.append(row)

        def flush(self) -> None:
            pass

    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    sample = {"source": "a", "reference": "c", "translation": "b"}
    TensorBoard(tmp_path)({"step": 4, "val_loss": 1.5, "samples": [sample]})
    assert written == [str(tmp_path), ("val_loss", 1.5, 4), ("samples", "a → b", 4)]


# --- the picture ----------------------------------------------------------------------------------


def curve(count: int) -> list[dict]:
    return [
        {"step": 10 * i, "train_loss": 5 / i, "val_loss": 5 / i + 0.01 * i}
        for i in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [1, 2, 30, 2000])
def test_the_curve_is_a_picture_of_any_length(count: int) -> None:
    found = curve_svg(curve(count))
    root = ElementTree.fromstring(found)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    best = min(curve(count), key=lambda row: row["val_loss"])
    assert f"best validation loss {best['val_loss']:.3f} at step {best['step']:,}" in texts
    assert {"training loss", "validation loss"} <= set(texts)
    assert len(found) < 40_000


def test_points_of_the_curve_lie_inside_the_frame() -> None:
    rows = curve(30)
    path = curve_svg(rows).split('<path d="M')[-2].split('"')[0]
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    assert len(points) == 30
    assert points[-1][0] == max(x for x, _ in points)
    heights = [y for _, y in points]
    assert heights == sorted(heights), "a loss that falls is drawn downwards"
    assert min(heights) >= 36 and max(heights) <= 360 - 44


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0, 800, [0, 200, 400, 600, 800]), (3.12, 6.6, [4, 5, 6]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1])],
)
def test_ticks_are_round_numbers(low: float, high: float, found: list) -> None:
    assert ticks(low, high) == found
    assert ticks(2.0, 2.0)


# --- techniques in a run --------------------------------------------------------------------------


def test_a_run_ends_when_its_patience_is_over(tmp_path, monkeypatch, capsys) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.0, 9.0])
    monkeypatch.setattr("transformer.training.Trainer.validate", lambda *args: next(losses))
    settings = with_techniques(preset(steps=50, validate_every=2), patience=2)
    history = fit(make_corpus(), tmp_path, settings)
    assert [row["val_loss"] for row in history] == [3.0, 2.0, 2.5, 2.0]
    again = fit(make_corpus(), tmp_path, settings, resume=checkpoints(tmp_path)[-1])
    assert again == history
    assert "nothing is left to train: 2 validations without a lower loss" in capsys.readouterr().err


@pytest.mark.parametrize("stop_at", [1, 4, 7])
def test_a_run_with_techniques_is_resumed_bit_for_bit(tmp_path, stop_at: int) -> None:
    settings = replace(preset(steps=9, validate_every=2), techniques=ALL)
    fit(make_corpus(), tmp_path / "straight", settings)
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path / "parts", settings, should_stop=stop_after(stop_at))
    last = checkpoints(tmp_path / "parts")[-1]
    assert read_run(last).preset.techniques == ALL
    fit(make_corpus(), tmp_path / "parts", settings, resume=last)
    assert equal_files(*(checkpoints(tmp_path / name)[-1] for name in ("straight", "parts")))


def test_the_averaged_model_is_that_of_the_snapshots(tmp_path) -> None:
    settings = with_techniques(preset(steps=8, validate_every=2), average_last=2)
    fit(make_corpus(), tmp_path, settings)
    kept = [path.stem for path in snapshots(tmp_path)]
    assert kept == [f"snapshot-{i:08d}" for i in (4, 6, 8)], "both checkpoints can be resumed"
    last = [read_tensors(path) for path in snapshots(tmp_path)[-2:]]
    ema = read_tensors(checkpoints(tmp_path)[-1])
    for name in last[0]:
        mean = torch.stack([weights[name] for weights in last]).mean(0)
        torch.testing.assert_close(ema[f"ema_model.{name}"], mean)


def test_a_cooldown_is_a_share_of_the_steps_and_a_resumed_run_goes_on_with_it(tmp_path) -> None:
    settings = with_techniques(preset(steps=8, validate_every=1), cooldown=0.5)
    history = fit(make_corpus(), tmp_path / "straight", settings)
    full = [learning_rate(step, 4, 1e-2) for step in range(1, 9)]
    left = [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]  # of the run before each step, in halves
    wanted = [rate * share for rate, share in zip(full, left, strict=True)]
    assert [row["learning_rate"] for row in history] == pytest.approx(wanted)
    middle = with_techniques(preset(steps=6, validate_every=1), cooldown=0.0)
    fit(make_corpus(), tmp_path / "parts", middle)
    earlier = checkpoints(tmp_path / "parts")[-1]
    resumed = fit(make_corpus(), tmp_path / "parts", settings, resume=earlier)
    assert [row["learning_rate"] for row in resumed[-2:]] == pytest.approx(wanted[-2:])


def test_a_cooldown_is_a_share_of_the_minutes(tmp_path, monkeypatch) -> None:
    ticks = itertools.count(step=10)  # seconds: a step takes ten
    clock = types.SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(sys.modules[fit.__module__], "time", clock)
    settings = replace(preset(steps=99, validate_every=1), minutes=1.0)
    history = fit(make_corpus(), tmp_path, with_techniques(settings, cooldown=0.5))
    left = [1, 1, 1, 1, 2 / 3, 1 / 3]
    wanted = [share * learning_rate(step, 4, 1e-2) for step, share in enumerate(left, 1)]
    assert [row["learning_rate"] for row in history] == pytest.approx(wanted)


def test_a_run_resumed_in_another_folder_takes_its_snapshots_along(tmp_path) -> None:
    settings = with_techniques(preset(steps=4, validate_every=2), average_last=2)
    fit(make_corpus(), tmp_path / "old", settings)
    longer = with_techniques(preset(steps=6, validate_every=2), average_last=2)
    fit(make_corpus(), tmp_path / "new", longer, resume=checkpoints(tmp_path / "old")[-1])
    assert [path.stem[-1] for path in snapshots(tmp_path / "new")] == ["4", "6"]


def test_a_changed_technique_is_announced(tmp_path, capsys) -> None:
    fit(make_corpus(), tmp_path, preset(steps=2))
    changed = with_techniques(preset(steps=3), r_drop=5.0, both_directions=9)
    fit(make_corpus(), tmp_path, changed, resume=checkpoints(tmp_path)[-1])
    shown = capsys.readouterr().err
    assert "r-drop was 0.0, now 5.0\n" in shown
    assert "both-directions was 0, now 9\nthe batches now come in another order" in shown


def test_bpe_dropout_goes_through_a_run(tmp_path) -> None:
    history = fit(make_corpus(), tmp_path, with_techniques(preset(steps=3), bpe_dropout=0.3))
    assert history[-1]["step"] == 3


def test_a_failed_run_writes_no_metrics(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("transformer.recipes.monitoring.LOG_EVERY", 1)
    fit(make_corpus(), tmp_path, preset(steps=2))
    before = contents(tmp_path)
    monkeypatch.setattr("transformer.training.Trainer.validate", lambda *args: float("nan"))
    with pytest.raises(FloatingPointError):
        fit(make_corpus(), tmp_path, preset(steps=3))
    assert contents(tmp_path) == before
    assert "metrics.jsonl" in names(tmp_path)


def test_a_log_without_a_file_begins_empty(tmp_path) -> None:
    metrics = MetricsLog()
    metrics.resume(tmp_path, 5)
    assert metrics.lines == []
