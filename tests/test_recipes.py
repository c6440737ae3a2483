"""Test the presets, `fit`, and the course's own translator."""

import importlib
import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import torch
from torch import Tensor, nn

from transformer.checks.fixtures import small_model
from transformer.corpora import Corpus, text_files
from transformer.data import batches_by_length, collate, encode_pairs, load_tokenizer
from transformer.data import train_tokenizer as train_plainly
from transformer.fast_training import CheapDropout
from transformer.files import read_tensors
from transformer.model import Config, Transformer, load_model
from transformer.recipes import (
    ENGLISH_ITALIAN,
    MULTI30K,
    PRESETS,
    TEXT_FILES,
    Preset,
    checkpoints,
    fast_trainer,
    fit,
    read_run,
    trained_translator,
)
from transformer.recipes.run_folder import STAMP, RunFolder
from transformer.training import Trainer, TrainingConfig, learning_rate, save_checkpoint
from transformer.translator import Translator

fit_module = importlib.import_module("transformer.recipes.fit")
techniques_module = importlib.import_module("transformer.recipes.techniques")
course = importlib.import_module("transformer.recipes.course")

SHORT = dict(max_tokens=24, peak_lr=1e-2, warmup=4, ema_decay=0.9)
SIZES = dict(d_model=12, n_heads=3, n_layers=1, d_ff=20, max_len=16, dropout=0.2)
ENGLISH = "the cat the dog a mat my house your cat a red dog".split()
ITALIAN = "il gatto il cane un tappeto mia casa tuo gatto un cane".split()


def make_corpus(count: int = 30, **changes) -> Corpus:
    """Return a corpus of sentences of 1 to 4 words."""
    starts = [(i % 5, i % 7, 1 + i % 4) for i in range(count)]
    pairs = [(" ".join(ENGLISH[a : a + n]), " ".join(ITALIAN[b : b + n])) for a, b, n in starts]
    return Corpus("toy", pairs, pairs[:3], **changes)


def preset(minutes: float = math.inf, sizes: dict | None = None, **training) -> Preset:
    """Return settings that train a small model for some steps."""
    return Preset(40, TrainingConfig(**SHORT | training), sizes or SIZES, minutes)


def stop_after(step: int) -> Callable[[], bool]:
    """Return a function that is asked after every step and says yes after this one."""
    answers = iter([False] * (step - 1) + [True])
    return lambda: next(answers)


def names(folder: Path) -> list[str]:
    """Return the names of the files in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def steps(rows: list[dict]) -> list[int]:
    """Return the steps of a learning curve."""
    return [row["step"] for row in rows]


def equal_files(first: Path, second: Path) -> bool:
    """Return whether two safetensors files have the same tensors, bit for bit."""
    one = read_tensors(first)
    two = read_tensors(second)
    return one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)


@pytest.fixture
def watched(monkeypatch) -> list[float]:
    """The losses of all steps that trainers do in a test."""
    losses = []
    step = Trainer.step

    def watch(trainer: Trainer, *batches) -> float:
        losses.append(step(trainer, *batches))
        return losses[-1]

    monkeypatch.setattr(Trainer, "step", watch)
    return losses


# --- presets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.nan])
def test_a_preset_without_time_is_refused(minutes: float) -> None:
    with pytest.raises(ValueError, match=rf"^minutes must be above 0, not {minutes}$"):
        Preset(40, TrainingConfig(), minutes=minutes)


def test_a_preset_makes_the_config_of_the_vocabulary_that_came_out() -> None:
    changed = Preset(600, TrainingConfig(), {"n_layers": 2, "dropout": 0.1})
    assert changed.model_config(577) == Config.tiny(577, n_layers=2, dropout=0.1)
    assert Preset(600, TrainingConfig()).model_config(600) == Config.tiny(600)


def test_every_corpus_of_the_command_line_has_a_preset() -> None:
    assert PRESETS == {"en-it": ENGLISH_ITALIAN, "multi30k": MULTI30K, "files": TEXT_FILES}
    assert MULTI30K.minutes == 30
    assert ENGLISH_ITALIAN.minutes == math.inf
    assert ENGLISH_ITALIAN.training.label_smoothing == 0


# --- the fast trainer -----------------------------------------------------------------------------


@pytest.fixture
def batch():
    rows = [[3, 4, 2], [5, 2], [6, 7, 8, 2]]
    return collate([(row, [1, *row[::-1][1:], 2]) for row in rows])


@pytest.mark.parametrize(
    ("precision", "fast", "dtype"),
    [
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_matrix_products_are_as_precise_as_asked(
    monkeypatch, batch, precision: str, fast: bool, dtype: torch.dtype
) -> None:
    def has_fast_bfloat16(device: torch.device) -> bool:
        return fast and device.type == "cpu"

    monkeypatch.setattr(fit_module, "has_fast_bfloat16", has_fast_bfloat16)
    trainer = fast_trainer(small_model(dropout=0.2), TrainingConfig(**SHORT), precision)
    seen = []
    projection = trainer.model.encoder.layers[0].self_attention.w_q
    projection.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    trainer.step(batch)
    assert seen == [dtype]
    kinds = {p.dtype for p in [*trainer.model.parameters(), *trainer.ema_model.parameters()]}
    assert kinds == {torch.float32}, "the weights stay in full precision"


@pytest.mark.parametrize("precision", ["fp16", "", "FP32"])
def test_another_precision_is_refused(precision: str, tmp_path) -> None:
    words = f"^precision must be auto, fp32 or bf16, not '{precision}'$"
    with pytest.raises(ValueError, match=words):
        fast_trainer(small_model(), TrainingConfig(), precision)
    with pytest.raises(ValueError, match=words):
        fit(make_corpus(), tmp_path, preset(steps=1), precision=precision)
    assert names(tmp_path) == []


def test_on_a_cpu_it_trains_a_faster_model_with_the_same_parameters(batch) -> None:
    model = small_model(dropout=0.2)
    trainer = fast_trainer(model, TrainingConfig(**SHORT))
    kinds = {type(module) for module in trainer.model.modules()}
    assert CheapDropout in kinds
    assert nn.Dropout not in kinds
    assert CheapDropout not in {type(module) for module in model.modules()}
    before = model.bias.detach().clone()
    trainer.step(batch)
    assert not model.bias.equal(before), "training moves the weights of the model it was given"


# --- from a corpus to a translator ----------------------------------------------------------------


def test_fit_leaves_a_translator(tmp_path) -> None:
    folder = tmp_path / "not" / "there yet"
    history = fit(make_corpus(), folder, preset(steps=3))
    assert len(history) == 1
    assert isinstance(Translator.load(folder).translate(["the cat"])[0], str)


def test_the_vocabulary_is_learned_from_the_training_split(tmp_path) -> None:
    corpus = make_corpus(lowercase=True)
    fit(corpus, tmp_path, preset(steps=1))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    want = train_plainly(corpus.texts(), 40, lowercase=True)
    assert tokenizer.get_vocab() == want.get_vocab()
    assert tokenizer.encode("The CAT").ids == tokenizer.encode("the cat").ids
    assert load_model(tmp_path).config == Config.tiny(tokenizer.get_vocab_size(), **SIZES)


def test_it_learns(tmp_path) -> None:
    settings = preset(
        steps=40, validate_every=10, label_smoothing=0.0, sizes=SIZES | dict(dropout=0.0)
    )
    losses = [row["val_loss"] for row in fit(make_corpus(), tmp_path, settings)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.4


def test_a_pair_over_the_maximum_length_is_left_out_or_refused(tmp_path, capsys) -> None:
    corpus = Corpus("mine", [("the cat", "il gatto"), ("x " * 20, "y")], [("cat", "gatto")])
    tokenizer = train_plainly(corpus.texts(), 40)
    longest = max(len(row) for pair in encode_pairs(tokenizer, corpus.train) for row in pair)
    too_short = preset(steps=1, sizes=SIZES | dict(max_len=longest - 1))
    words = (
        f"1 of 2 pairs of train are skipped; the first is pair 2 of train: its source has {longest}"
    )
    with pytest.raises(ValueError, match=words):
        fit(corpus, tmp_path / "strict", too_short, strict=True)
    assert not (tmp_path / "strict").exists()
    assert len(fit(corpus, tmp_path / "new", too_short)) == 1
    assert f"warning: {words} tokens, max_len is {longest - 1}" in capsys.readouterr().err
    just_right = preset(steps=1, sizes=SIZES | dict(max_len=longest))
    assert len(fit(corpus, tmp_path / "right", just_right, strict=True)) == 1
    fit(corpus, tmp_path / "short", just_right, longest=longest - 1)
    assert words in capsys.readouterr().err


def test_pairs_of_the_validation_split_are_left_out_too(tmp_path, capsys) -> None:
    val = [("cat " * 20, "gatto"), ("cat", "♥"), ("cat", "gatto")]
    corpus = Corpus("mine", [("the cat", "il gatto")] * 4, val)
    fit(corpus, tmp_path / "some", preset(steps=1))
    words = "2 of 3 pairs of val are skipped; the first is pair 1 of val: its source has"
    assert words in capsys.readouterr().err
    corpus = Corpus("mine", [("the cat", "il gatto")] * 4, val[:2])
    with pytest.raises(ValueError, match="no pair of mine's val split is left: 2 of 2"):
        fit(corpus, tmp_path / "none", preset(steps=1))
    assert not (tmp_path / "none").exists()


def test_lines_with_an_empty_side_are_counted_and_refused_when_asked(tmp_path, capsys) -> None:
    for name, rest in (("en", "one two"), ("it", "due uno")):
        (tmp_path / name).write_text(
            "\n" * (name == "it") + f"{rest}\n" * 40 + "x\n" * (name == "en")
        )
    corpus = text_files((tmp_path / "en", tmp_path / "it"), val=(tmp_path / "en", tmp_path / "it"))
    with pytest.raises(ValueError, match="a pair with an empty side is left out: line 1 of"):
        fit(corpus, tmp_path / "out", preset(steps=1), strict=True)
    fit(corpus, tmp_path / "out", preset(steps=1))
    assert "warning: a pair with an empty side" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["training", "validation"])
def test_a_corpus_without_a_split_is_refused_before_training(tmp_path, split: str) -> None:
    pairs = make_corpus().train
    corpus = Corpus("mine", pairs * (split != "training"), pairs * (split != "validation"))
    with pytest.raises(ValueError, match=f"^mine has no pairs for {split}$"):
        fit(corpus, tmp_path, preset(steps=1))
    assert names(tmp_path) == []


@pytest.mark.parametrize(("precision", "enabled"), [("fp32", False), ("bf16", True)])
def test_fit_trains_and_validates_in_the_precision_it_is_given(
    tmp_path, monkeypatch, precision: str, enabled: bool
) -> None:
    seen = []
    chunked_loss = techniques_module.chunked_loss

    def watch(model: Transformer, batch, smoothing: float) -> Tensor:
        seen.append((model.training, torch.is_autocast_enabled("cpu")))
        return chunked_loss(model, batch, smoothing)

    monkeypatch.setattr(techniques_module, "chunked_loss", watch)
    fit(make_corpus(), tmp_path, preset(steps=2), precision=precision)
    assert seen[:3] == [(True, enabled), (True, enabled), (False, enabled)]


def test_the_curve_says_what_happened(tmp_path, watched) -> None:
    settings = preset(steps=8, validate_every=3, accumulate=2)
    history = fit(make_corpus(), tmp_path, settings)
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    pairs = encode_pairs(tokenizer, make_corpus().train)
    per_epoch = len(batches_by_length(pairs, 24))
    assert 1 < per_epoch < 14, "the run has more than one epoch"
    columns = ["step", "epoch", "seconds", "learning_rate", "train_loss", "val_loss"]
    assert [list(row) for row in history] == [columns] * 3
    assert steps(history) == [3, 6, 8]
    assert [row["epoch"] for row in history] == [(2 * n - 1) // per_epoch for n in (3, 6, 8)]
    assert [row["learning_rate"] for row in history] == [
        learning_rate(n, 4, 1e-2) for n in (3, 6, 8)
    ]
    means = [mean(watched[:3]), mean(watched[3:6]), mean(watched[6:])]
    assert [row["train_loss"] for row in history] == pytest.approx(means)
    seconds = [row["seconds"] for row in history]
    assert seconds == sorted(seconds)
    val_batch = collate(encode_pairs(tokenizer, make_corpus().val))
    trainer = fast_trainer(load_model(tmp_path), settings.training)
    best = min(row["val_loss"] for row in history)
    assert trainer.validate([val_batch]) == pytest.approx(best, rel=1e-3)


def test_the_callers_random_numbers_are_left_as_they_were(tmp_path) -> None:
    random = torch.get_rng_state()
    fit(make_corpus(), tmp_path, preset(steps=3))
    assert torch.get_rng_state().equal(random)
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path, preset(steps=3), should_stop=lambda: True)
    assert torch.get_rng_state().equal(random)


def test_a_run_depends_on_its_seed_alone(tmp_path) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        torch.manual_seed(len(name))
        fit(make_corpus(), tmp_path / name, preset(steps=3, seed=seed))
    one, same, other = (tmp_path / name / "model.safetensors" for name in ("one", "same", "other"))
    assert equal_files(one, same)
    assert not equal_files(one, other)


def test_a_long_run_keeps_two_checkpoints_the_best_model_and_the_curve(tmp_path) -> None:
    history = fit(make_corpus(), tmp_path, preset(steps=11, validate_every=3))
    kept = ["checkpoint-00000009.safetensors", "checkpoint-00000011.safetensors"]
    assert names(tmp_path) == [
        *kept,
        "config.json",
        "decoding.json",
        "history.json",
        "history.svg",
        "metrics.jsonl",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert [path.name for path in checkpoints(tmp_path)] == kept
    assert steps(history) == [3, 6, 9, 11]
    assert json.loads((tmp_path / "history.json").read_text()) == history


def pretend_losses(monkeypatch, losses: list[float]) -> None:
    """Let validation give these losses, one after the other."""
    given: Iterator[float] = iter(losses)
    monkeypatch.setattr(Trainer, "validate", lambda trainer, batches: next(given))


def ema_weights(path: Path) -> dict[str, Tensor]:
    """Return the averaged weights in a checkpoint."""
    tensors = read_tensors(path)
    prefix = "ema_model."
    return {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}


def test_the_averaged_model_with_the_lowest_validation_loss_is_kept(tmp_path, monkeypatch) -> None:
    pretend_losses(monkeypatch, [3.0, 1.0, 2.0])
    settings = preset(steps=9, validate_every=3)
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path, settings, should_stop=stop_after(9))
    sixth, ninth = checkpoints(tmp_path)
    model = read_tensors(tmp_path / "model.safetensors")
    assert all(model[name].equal(x) for name, x in ema_weights(sixth).items())
    assert not model["bias"].equal(ema_weights(ninth)["bias"])
    assert not model["bias"].equal(read_tensors(sixth)["model.bias"])


def test_a_resumed_run_knows_the_best_loss_so_far(tmp_path, monkeypatch) -> None:
    pretend_losses(monkeypatch, [1.0, 2.0, 0.5])
    fit(make_corpus(), tmp_path, preset(steps=3, validate_every=3))
    first = read_tensors(tmp_path / "model.safetensors")
    fit(make_corpus(), tmp_path, preset(steps=6), resume=checkpoints(tmp_path)[-1])
    assert read_tensors(tmp_path / "model.safetensors")["bias"].equal(first["bias"])
    fit(make_corpus(), tmp_path, preset(steps=9), resume=checkpoints(tmp_path)[-1])
    assert not read_tensors(tmp_path / "model.safetensors")["bias"].equal(first["bias"])


def test_a_new_run_in_the_folder_of_an_old_one_keeps_its_own_checkpoints(tmp_path) -> None:
    fit(make_corpus(), tmp_path, preset(steps=9, validate_every=3))
    fit(make_corpus(), tmp_path, preset(steps=4, validate_every=2))
    assert [path.stem for path in checkpoints(tmp_path)] == [
        "checkpoint-00000002",
        "checkpoint-00000004",
    ]


def test_a_run_resumed_from_an_earlier_checkpoint_drops_the_later_one(tmp_path) -> None:
    settings = preset(steps=9, validate_every=3)
    fit(make_corpus(), tmp_path, settings)
    sixth, _ = checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path, settings, resume=sixth, should_stop=lambda: True)
    assert [path.stem for path in checkpoints(tmp_path)] == [
        "checkpoint-00000006",
        "checkpoint-00000007",
    ]


def test_the_next_checkpoint_drops_every_later_one_of_the_run_before(tmp_path) -> None:
    settings = preset(steps=9, validate_every=3)
    fit(make_corpus(), tmp_path, settings)
    sixth, _ = checkpoints(tmp_path)
    longer = preset(steps=20, validate_every=100)
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path, longer, resume=sixth, should_stop=stop_after(4))
    assert [path.stem for path in checkpoints(tmp_path)] == [
        "checkpoint-00000006",
        "checkpoint-00000010",
    ]


def test_a_copy_of_a_checkpoint_is_left_alone(tmp_path) -> None:
    settings = preset(steps=9, validate_every=3)
    fit(make_corpus(), tmp_path, settings)
    copy = tmp_path / "checkpoint-best.safetensors"
    copy.write_bytes(checkpoints(tmp_path)[-1].read_bytes())
    fit(make_corpus(), tmp_path, preset(steps=10), resume=checkpoints(tmp_path)[-1])
    fit(make_corpus(), tmp_path, settings)
    assert copy.exists()
    assert fit(make_corpus(), tmp_path, preset(steps=9), resume=copy)


def test_drafts_that_a_killed_run_left_are_removed(tmp_path) -> None:
    draft = tmp_path / ".model.safetensors.0123456789ab.draft"
    draft.write_bytes(b"half a model")
    fit(make_corpus(), tmp_path, preset(steps=1))
    assert not draft.exists()


def test_a_loss_of_nan_stops_and_the_last_checkpoint_stays(tmp_path, monkeypatch) -> None:
    step = Trainer.step

    def spoil(trainer: Trainer, *batches) -> float:
        if trainer.steps == 3:
            with torch.no_grad():
                trainer.model.bias.fill_(math.nan)
        return step(trainer, *batches)

    monkeypatch.setattr(Trainer, "step", spoil)
    words = r"^loss of step 4 is nan, on a batch of \d+ pairs$"
    with pytest.raises(FloatingPointError, match=words):
        fit(make_corpus(), tmp_path, preset(steps=9, validate_every=2))
    assert [path.stem for path in checkpoints(tmp_path)] == ["checkpoint-00000002"]
    assert all(p.isfinite().all() for p in load_model(tmp_path).parameters())
    monkeypatch.setattr(Trainer, "step", step)
    history = fit(make_corpus(), tmp_path, preset(steps=4), resume=checkpoints(tmp_path)[-1])
    assert steps(history) == [2, 4]
    assert math.isfinite(history[-1]["train_loss"])


def test_a_validation_loss_of_nan_stops_before_anything_is_replaced(tmp_path, monkeypatch) -> None:
    fit(make_corpus(), tmp_path, preset(steps=2))
    before = contents(tmp_path)
    pretend_losses(monkeypatch, [math.nan])
    with pytest.raises(FloatingPointError, match=r"^validation loss of step 3 is nan$"):
        fit(make_corpus(), tmp_path, preset(steps=3))
    assert contents(tmp_path) == before


# --- limits in time -------------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch) -> None:
    """Let every step take 3.75 seconds by the clock."""
    step = Trainer.step
    now = [1000.0]

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return now[0]

    def slow_step(trainer: Trainer, *batches) -> float:
        now[0] += 3.75
        return step(trainer, *batches)

    monkeypatch.setattr(fit_module, "time", Clock)
    monkeypatch.setattr(Trainer, "step", slow_step)


def test_a_run_ends_with_its_minutes(tmp_path) -> None:
    assert steps(fit(make_corpus(), tmp_path, preset(minutes=1e-9))) == [1]


def test_a_run_ends_with_whichever_limit_comes_first(tmp_path, slow) -> None:
    assert steps(fit(make_corpus(), tmp_path / "steps", preset(minutes=1.0, steps=5))) == [5]
    assert steps(fit(make_corpus(), tmp_path / "minutes", preset(minutes=0.5, steps=9))) == [8]


def test_seconds_go_on_counting_in_a_resumed_run(tmp_path, slow, capsys) -> None:
    history = fit(make_corpus(), tmp_path, preset(minutes=1.0, validate_every=5))
    rows = [(row["step"], row["seconds"]) for row in history]
    assert rows == [(5, 18.8), (10, 37.5), (15, 56.2), (16, 60.0)]
    longer = preset(minutes=1.5, validate_every=100)
    history = fit(make_corpus(), tmp_path, longer, resume=checkpoints(tmp_path)[-1])
    rows = [(row["step"], row["seconds"]) for row in history]
    assert rows[4:] == [(24, 90.0)]
    fit(make_corpus(), tmp_path, longer, resume=checkpoints(tmp_path)[-1])
    shown = capsys.readouterr().err
    assert shown.endswith("nothing is left to train: 1.5 of 1.5 minutes are done\n")


# --- the progress bar -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "steps_done", "seconds", "share"),
    [
        ({"steps": 40}, 10, 77.0, 25),
        ({"minutes": 2.0}, 77, 60.0, 50),
        ({"minutes": 2.0, "steps": 40}, 10, 60.0, 50),
        ({"steps": 40}, 50, 77.0, 100),
    ],
    ids=["steps", "minutes", "both", "over"],
)
def test_the_bar_fills_with_steps_or_with_the_minutes(
    tmp_path, limit: dict, steps_done: int, seconds: float, share: int
) -> None:
    settings = preset(**limit)
    trainer = Trainer(small_model(), settings.training)
    run = fit_module.Run(trainer, [], RunFolder(tmp_path, {}), settings.minutes)
    with fit_module.progress_bar(run) as bar:
        fit_module.show(run, bar)
        assert str(bar).startswith("training   0%")
        assert "validation" not in str(bar)
        run.history.append({"val_loss": 1.23456})
        for part in (0.5, 1.0):
            trainer.steps = int(part * steps_done)
            run.seconds = part * seconds
            fit_module.show(run, bar)
        assert str(bar).startswith(f"training {share:3}%")
        assert str(bar).endswith(f"step {steps_done}, validation loss 1.235")


def test_training_shows_how_far_it_is(tmp_path, capsys) -> None:
    history = fit(make_corpus(), tmp_path, preset(steps=3))
    shown = capsys.readouterr().err.rstrip()
    loss = f"{history[-1]['val_loss']:.3f}"
    assert re.search(rf"step 3, [\d,]+ tokens/s, validation loss {loss}$", shown)
    assert "training 100%" in shown


# --- stopping and resuming ------------------------------------------------------------------------


def test_a_run_that_is_stopped_leaves_a_checkpoint(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path, preset(steps=9), should_stop=lambda: True)
    assert [path.stem for path in checkpoints(tmp_path)] == ["checkpoint-00000001"]
    assert steps(json.loads((tmp_path / "history.json").read_text())) == [1]
    assert isinstance(Translator.load(tmp_path).translate(["the cat"])[0], str)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stop_at", [1, 5, 9])
def test_a_run_stopped_and_resumed_ends_bit_for_bit_like_a_straight_one(
    tmp_path, watched, stop_at: int, accumulate: int
) -> None:
    settings = preset(steps=11, validate_every=4, accumulate=accumulate, max_grad_norm=1.0)
    history = fit(make_corpus(), tmp_path / "straight", settings)
    straight = watched[:]
    watched.clear()
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), parts, settings, should_stop=stop_after(stop_at))
    assert len(watched) == stop_at
    torch.manual_seed(99)
    again = fit(make_corpus(), parts, settings, resume=checkpoints(parts)[-1])
    assert watched == straight, "every step has the same loss, and none is done twice"
    ends = [checkpoints(folder)[-1] for folder in (tmp_path / "straight", parts)]
    assert [path.stem for path in ends] == ["checkpoint-00000011"] * 2
    assert equal_files(*ends)
    assert steps(again) == sorted({4, 8, 11, stop_at})
    losses = {row["step"]: row["val_loss"] for row in again}
    assert [losses[row["step"]] for row in history] == [row["val_loss"] for row in history]


def test_a_run_that_has_ended_does_nothing_when_it_is_resumed_and_says_so(
    tmp_path, watched, capsys
) -> None:
    settings = preset(steps=4, validate_every=2)
    history = fit(make_corpus(), tmp_path, settings)
    (tmp_path / STAMP).touch()
    before = contents(tmp_path)
    watched.clear()
    capsys.readouterr()
    for checkpoint in checkpoints(tmp_path)[::-1]:
        ended = preset(steps=int(checkpoint.stem[-1]), validate_every=2)
        again = fit(make_corpus(), tmp_path, ended, resume=checkpoint)
        assert again == history[: len(again)]
    assert watched == []
    assert contents(tmp_path) == before
    words = [f"nothing is left to train: {n} of {n} steps are done" for n in (4, 2)]
    assert capsys.readouterr().err.splitlines() == words


ORDER = (
    "the batches now come in another order: in this epoch some pairs may be read twice, others not "
    "at all"
)


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        ({}, []),
        ({"minutes": 9.0}, []),
        ({"peak_lr": 0.02}, ["peak-lr was 0.01, now 0.02"]),
        (
            {"warmup": 5, "label_smoothing": 0.2},
            ["warmup was 4, now 5", "label-smoothing was 0.1, now 0.2"],
        ),
        ({"seed": 3}, ["seed was 0, now 3", ORDER]),
        ({"max_tokens": 30}, ["max-tokens was 24, now 30", ORDER]),
        ({"accumulate": 2}, ["accumulate was 1, now 2", ORDER]),
    ],
)
def test_what_differs_from_the_checkpoint_is_announced(
    tmp_path, capsys, changed: dict, sentences: list[str]
) -> None:
    fit(make_corpus(), tmp_path, preset(steps=2))
    capsys.readouterr()
    fit(make_corpus(), tmp_path, preset(steps=3, **changed), resume=checkpoints(tmp_path)[-1])
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "training " not in line and line] == sentences


def test_another_corpus_and_another_precision_are_announced(tmp_path, capsys) -> None:
    fit(make_corpus(), tmp_path, preset(steps=2), precision="fp32")
    last = checkpoints(tmp_path)[-1]
    fit(make_corpus(29), tmp_path, preset(steps=3), precision="bf16", resume=last)
    shown = capsys.readouterr().err
    assert "precision was fp32, now bf16\n" in shown
    assert "the training pairs are not those that the checkpoint was trained on\n" in shown
    assert ORDER in shown


def test_a_checkpoint_tells_the_settings_of_its_run(tmp_path) -> None:
    settings = preset(minutes=5.0, steps=2, max_grad_norm=2.5)
    fit(make_corpus(), tmp_path, settings, precision="fp32")
    found = read_run(checkpoints(tmp_path)[-1])
    assert found.preset.training == settings.training
    assert found.preset.model_config(40) == settings.model_config(40)
    assert (found.preset.vocab_size, found.preset.minutes, found.precision) == (40, 5.0, "fp32")


def test_a_checkpoint_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^there is no checkpoint .*none\.safetensors$"):
        fit(make_corpus(), tmp_path, preset(steps=1), resume=tmp_path / "none.safetensors")
    assert names(tmp_path) == []


def test_a_resumed_run_can_be_longer(tmp_path) -> None:
    fit(make_corpus(), tmp_path, preset(steps=4))
    history = fit(make_corpus(), tmp_path, preset(steps=6), resume=checkpoints(tmp_path)[-1])
    assert steps(history) == [4, 6]


def test_a_resumed_run_uses_the_tokenizer_of_its_checkpoint(tmp_path, monkeypatch) -> None:
    fit(make_corpus(), tmp_path / "old", preset(steps=2))
    content = (tmp_path / "old" / "tokenizer.json").read_bytes()
    last = checkpoints(tmp_path / "old")[-1]
    monkeypatch.setattr(fit_module, "train_tokenizer", lambda *args: pytest.fail("a new one"))
    for folder in (tmp_path / "new", tmp_path / "old"):
        history = fit(make_corpus(25), folder, preset(steps=3), resume=last)
        assert steps(history) == [2, 3]
        assert (folder / "tokenizer.json").read_bytes() == content
    tokenizer = read_run(last).load_tokenizer()
    assert tokenizer.to_str().encode() == content
    assert (
        tokenizer.encode("</s>").ids == load_tokenizer(folder / "tokenizer.json").encode("</s>").ids
    )


def test_a_run_resumed_in_another_folder_leaves_a_translator_there(tmp_path, monkeypatch) -> None:
    pretend_losses(monkeypatch, [1.0, 3.0, 2.0, 2.5])
    fit(make_corpus(), tmp_path / "old", preset(steps=2))
    last = checkpoints(tmp_path / "old")[-1]
    fit(make_corpus(), tmp_path / "new", preset(steps=5, validate_every=1), resume=last)
    model = read_tensors(tmp_path / "new" / "model.safetensors")
    fourth, _ = checkpoints(tmp_path / "new")
    assert all(model[name].equal(x) for name, x in ema_weights(fourth).items())
    assert isinstance(Translator.load(tmp_path / "new").translate(["the cat"])[0], str)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_run_is_not_resumed_over_files_of_another_model(tmp_path, name: str) -> None:
    fit(make_corpus(), tmp_path, preset(steps=2))
    (tmp_path / name).write_text("{")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=rf"{name} does not belong to checkpoint-00000002"):
        fit(make_corpus(), tmp_path, preset(steps=3), resume=checkpoints(tmp_path)[-1])
    assert contents(tmp_path) == before


def test_a_checkpoint_of_another_config_is_refused_and_nothing_is_written(tmp_path) -> None:
    fit(make_corpus(), tmp_path, preset(steps=2))
    before = contents(tmp_path)
    wider = preset(steps=3, sizes=SIZES | dict(d_ff=21))
    words = "00000002.safetensors belongs to another config: d-ff is 20 there, not 21$"
    with pytest.raises(ValueError, match=words):
        fit(make_corpus(), tmp_path, wider, resume=checkpoints(tmp_path)[-1])
    more = replace(preset(steps=3), vocab_size=50)
    with pytest.raises(
        ValueError, match=r"belongs to another config: vocab-size is 40 there, not 50$"
    ):
        fit(make_corpus(), tmp_path, more, resume=checkpoints(tmp_path)[-1])
    assert contents(tmp_path) == before


@pytest.mark.parametrize("notes", [None, {"seconds": 3.0}, {"seconds": None, "history": []}])
def test_a_checkpoint_of_another_loop_is_refused(tmp_path, notes: dict | None) -> None:
    settings = preset(steps=3)
    tokenizer = train_plainly(make_corpus().texts(), 40)
    model = Transformer(settings.model_config(tokenizer.get_vocab_size()))
    trainer = fast_trainer(model, settings.training)
    trainer.step(collate(encode_pairs(tokenizer, make_corpus().val)))
    path = tmp_path / "other.safetensors"
    save_checkpoint(trainer, path, notes)
    with pytest.raises(ValueError, match=r"other\.safetensors was not written by a run of `fit`"):
        fit(make_corpus(), tmp_path / "new", settings, resume=path)


# --- the course's translator ----------------------------------------------------------------------


def test_a_run_removes_the_courses_stamp_before_it_changes_the_model(tmp_path, monkeypatch) -> None:
    fit(make_corpus(), tmp_path, preset(steps=2))
    for resume in (None, tmp_path / "checkpoint-00000003.safetensors"):
        (tmp_path / STAMP).touch()
        fit(make_corpus(), tmp_path, preset(steps=3 if resume is None else 4), resume=resume)
        assert not (tmp_path / STAMP).exists()


@pytest.fixture
def fits(tmp_path, monkeypatch) -> list[tuple]:
    """What `fit` was called with; it trains nothing, and the cache is a new folder."""
    calls = []

    def fake(corpus: Corpus, folder: Path, preset: Preset) -> list[dict]:
        calls.append((corpus, folder, preset))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        return []

    monkeypatch.setenv("TRANSFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(course, "fit", fake)
    monkeypatch.setattr(course, "english_italian", make_corpus)
    return calls


def test_the_translator_is_trained_once(tmp_path, fits) -> None:
    folder = trained_translator()
    assert folder == tmp_path / "cache" / "en-it"
    assert trained_translator() == folder
    assert fits == [(make_corpus(), folder, ENGLISH_ITALIAN)]
    assert trained_translator("another") == tmp_path / "cache" / "another"
    assert len(fits) == 2


def test_the_translator_of_another_preset_or_revision_is_trained_anew(fits, monkeypatch) -> None:
    hashes = [course.recipe_hash()]
    trained_translator()
    longer = replace(ENGLISH_ITALIAN, training=replace(ENGLISH_ITALIAN.training, steps=1001))
    wider = replace(ENGLISH_ITALIAN, sizes=ENGLISH_ITALIAN.sizes | {"d_ff": 300})
    changes = {"ENGLISH_ITALIAN": (longer, wider), "REVISION": (course.REVISION + 1,)}
    for name, values in changes.items():
        for value in values:
            monkeypatch.setattr(course, name, value)
            hashes.append(course.recipe_hash())
            trained_translator()
            trained_translator()
    assert len(set(hashes)) == 4
    assert [call[2] for call in fits] == [ENGLISH_ITALIAN, longer, wider, wider]


def test_a_translator_that_is_not_the_courses_is_trained_anew_and_kept(
    tmp_path, fits, monkeypatch, capsys
) -> None:
    folder = trained_translator()
    monkeypatch.setattr(course, "fit", fit)
    monkeypatch.setattr(course, "ENGLISH_ITALIAN", preset(steps=2))
    for number, settings in ((2, preset(steps=3)), (3, preset(steps=2, peak_lr=0.5))):
        fit(make_corpus(), folder, settings)
        before = contents(folder)
        assert trained_translator() == folder
        assert contents(folder.with_name(f"en-it-{number}")) == before
        assert capsys.readouterr().err.count(f"it is now {folder}-{number}\n") == 1
        assert read_run(checkpoints(folder)[-1]).preset.training.steps == 2
    (folder / STAMP).unlink()
    trained_translator()
    kept = {path.name for path in folder.parent.iterdir() if path.is_dir()}
    assert kept == {"en-it", "en-it-2", "en-it-3"}, "an unfinished run of the course isn't kept"


def test_training_that_failed_is_tried_again(fits, monkeypatch) -> None:
    def fail(*args) -> list[dict]:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(course, "fit", fail)
        with pytest.raises(OSError, match="disk full"):
            trained_translator()
    trained_translator()
    trained_translator()
    assert len(fits) == 1


def test_of_two_that_ask_at_once_one_trains_and_the_other_waits(fits, monkeypatch) -> None:
    entered = threading.Event()
    let_go = threading.Event()
    fake = course.fit

    def slow_fit(*args) -> list[dict]:
        entered.set()
        assert let_go.wait(timeout=9)
        return fake(*args)

    monkeypatch.setattr(course, "fit", slow_fit)
    folders = []
    threads = [
        threading.Thread(target=lambda: folders.append(trained_translator())) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert entered.wait(timeout=9)
    assert folders == []
    let_go.set()
    for thread in threads:
        thread.join(timeout=9)
    assert len(fits) == 1
    assert len(folders) == 2
    assert folders[0] == folders[1]
