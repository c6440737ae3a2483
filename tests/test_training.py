"""What chapter 11 says of training: it learns, it stops, it goes on, and it loses nothing."""

import json
import math
from itertools import islice
from statistics import mean
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.checks import small_model
from transformer.data import Corpus, batches_by_length, collate, epoch, to_ids
from transformer.fast import CheapDropout
from transformer.inference import Translator, greedy_search
from transformer.model import load_model
from transformer.training import (
    Progress,
    Recipe,
    Trainer,
    checkpoints,
    endless,
    fit,
    label_smoothed_loss,
    learning_rate,
    load_checkpoint,
    progress_bar,
    save_checkpoint,
    show,
    train,
)

few = settings(max_examples=20, deadline=None, derandomize=True)
SHORT = dict(max_tokens=40, peak_rate=1e-2, warmup=4, precision="fp32", averaging=0.9)


def make_pairs(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Return sentences and their reversal."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, 11, (1 + i % 5,), generator=generator).tolist() for i in range(count)]
    return [([*row, 2], [1, *row[::-1], 2]) for row in rows]


def make_trainer(**changes) -> Trainer:
    torch.manual_seed(0)
    return Trainer(small_model(dropout=0.2).train(), Recipe(**SHORT | changes))


# --- loss, schedule, recipe ------------------------------------------------------------------------------------------


@few
@given(smoothing=st.floats(0, 0.9), scale=st.sampled_from([0.1, 1.0, 30.0]), pad_id=st.integers(0, 6))
def test_the_loss_is_what_the_smoothed_labels_say(smoothing: float, scale: float, pad_id: int) -> None:
    logits, labels = scale * torch.randn(2, 5, 7), torch.arange(10).reshape(2, 5) % 7
    target = torch.full((7,), smoothing / 6)
    target[pad_id] = 0
    each = [
        -((target + (1 - smoothing) * torch.eye(7)[label]) * row.log_softmax(-1)).sum()
        for row, label in zip(logits.flatten(0, 1), labels.flatten(), strict=True)
        if label != pad_id
    ]
    torch.testing.assert_close(label_smoothed_loss(logits, labels, pad_id, smoothing), torch.stack(each).mean())


def test_more_padding_does_not_change_the_loss() -> None:
    logits, labels = torch.randn(2, 5, 7), torch.randint(1, 7, (2, 5))
    padded = torch.cat([logits, torch.randn(2, 3, 7)], 1), torch.cat([labels, torch.zeros(2, 3, dtype=torch.int64)], 1)
    torch.testing.assert_close(label_smoothed_loss(*padded, 0), label_smoothed_loss(logits, labels, 0))


def test_a_tenth_is_smoothed_when_nothing_is_said() -> None:
    logits, labels = torch.randn(2, 5, 7), torch.randint(1, 7, (2, 5))
    torch.testing.assert_close(label_smoothed_loss(logits, labels, 0), label_smoothed_loss(logits, labels, 0, 0.1))


@few
@given(warmup=st.integers(0, 500), peak=st.floats(1e-5, 1.0))
def test_the_rate_rises_to_its_peak_and_falls_from_there(warmup: int, peak: float) -> None:
    rates = [learning_rate(step, warmup, peak) for step in range(1, 700)]
    top = max(warmup, 1) - 1
    assert math.isclose(max(rates), peak) and math.isclose(rates[top], peak)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert math.isclose(learning_rate(4 * (top + 1), warmup, peak), peak / 2), "four times as many steps halve it"


def test_the_papers_own_schedule_is_one_of_them() -> None:
    for step in (1, 2000, 4000, 100_000):
        paper = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert math.isclose(learning_rate(step, 4000, (512 * 4000) ** -0.5), paper)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"minutes": -1.0},
        {"max_tokens": 0},
        {"peak_rate": 0.0},
        {"warmup": -1},
        {"smoothing": 1.0},
        {"smoothing": -0.1},
        {"averaging": 1.0},
        {"validate_every": 0},
        {"precision": "fp8"},
    ],
    ids=str,
)
def test_a_recipe_that_can_not_be_is_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        Recipe(**changes)


def test_a_recipe_at_the_edge_of_what_can_be_is_taken() -> None:
    recipe = Recipe(steps=1, warmup=0, smoothing=0.0, averaging=0.0, validate_every=1, precision="bf16")
    assert recipe.warmup == recipe.smoothing == recipe.averaging == 0


# --- learning --------------------------------------------------------------------------------------------------------


def test_it_overfits_one_small_batch() -> None:
    torch.manual_seed(0)
    trainer = Trainer(small_model(), Recipe(**SHORT | dict(smoothing=0.0, warmup=20)))
    pairs = make_pairs(6)
    batch = collate(pairs)
    losses = [trainer.step(batch) for _ in range(150)]
    assert losses[-1] < 0.05 < losses[0]
    found = greedy_search(trainer.model, batch.src, 8).tolist()
    assert [[1, *(i for i in row if i)] for row in found] == [tgt for _, tgt in pairs]


def test_nothing_is_accumulated_from_step_to_step() -> None:
    trainer, fresh = make_trainer(), make_trainer()
    first, second = collate(make_pairs(6)), collate(make_pairs(6, seed=1))
    trainer.step(first)
    fresh.model.load_state_dict(trainer.model.state_dict())
    gradients = []
    for which in (trainer, fresh):
        torch.manual_seed(1)
        which.step(second)
        gradients.append([p.grad.clone() for p in which.model.parameters()])
    assert all(a.equal(b) for a, b in zip(*gradients, strict=True))


def test_the_average_follows_the_weights_and_soon_forgets_where_they_began() -> None:
    trainer = make_trainer(averaging=0.2, warmup=0, peak_rate=0.1)
    want = [p.clone() for p in trainer.average.parameters()]
    for keep in (1 / 11, 2 / 12, 0.2, 0.2):
        trainer.step(collate(make_pairs(6)))
        want = [keep * old + (1 - keep) * new for old, new in zip(want, trainer.model.parameters(), strict=True)]
        torch.testing.assert_close([*trainer.average.parameters()], [mean.detach() for mean in want])
    assert not any(p.requires_grad for p in trainer.average.parameters())


def test_adam_has_the_papers_settings() -> None:
    settings = make_trainer().optimizer.defaults
    assert (settings["betas"], settings["eps"], settings["weight_decay"]) == ((0.9, 0.98), 1e-9, 0)


@pytest.mark.parametrize(
    ("precision", "fast", "dtype"),
    [
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_matrix_products_are_as_precise_as_the_recipe_says(monkeypatch, precision: str, fast: bool, dtype) -> None:
    monkeypatch.setattr("transformer.training.has_fast_bfloat16", lambda device: fast and device.type == "cpu")
    trainer, seen = make_trainer(precision=precision), []
    trainer.model.encoder.layers[0].self_attention.w_q.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    trainer.step(collate(make_pairs(6)))
    assert seen == [dtype]
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}, "the weights are never halved"


def test_on_a_cpu_it_trains_with_cheap_dropout() -> None:
    kinds = {type(module) for module in make_trainer().model.modules()}
    assert CheapDropout in kinds and torch.nn.Dropout not in kinds


def test_the_validation_loss_does_not_depend_on_the_batches() -> None:
    trainer, pairs = make_trainer(), make_pairs(12)
    losses = [trainer.validate([collate(g) for g in batches_by_length(pairs, n)]) for n in (10, 30, 1000)]
    assert max(losses) - min(losses) < 1e-5


def test_a_loss_of_nan_stops_and_names_the_step_and_the_last_checkpoint_stays(tmp_path) -> None:
    trainer = make_trainer(steps=9, validate_every=2)

    def spoil() -> bool:
        if trainer.steps == 3:
            with torch.no_grad():
                trainer.model.bias.fill_(math.nan)
        return False

    with pytest.raises(FloatingPointError, match=r"loss of step 4 is nan, on a batch of .* pairs"):
        train(trainer, make_pairs(40), make_pairs(5, 1), tmp_path, should_stop=spoil)
    assert [path.stem for path in checkpoints(tmp_path)] == ["checkpoint-00000002"]
    assert all(p.isfinite().all() for p in load_model(tmp_path).parameters())


def test_epoch_follows_epoch_each_in_its_own_order() -> None:
    pairs, recipe = make_pairs(12), Recipe(**SHORT | dict(seed=5))
    want = [batch.src.tolist() for seed in (5, 6, 7) for batch in epoch(pairs, 40, seed)]
    size = len(want) // 3
    progress = Progress()
    assert [batch.src.tolist() for batch in islice(endless(pairs, recipe, progress), 3 * size)] == want
    assert (progress.epoch, progress.batch) == (2, size)
    rest = islice(endless(pairs, recipe, Progress(epoch=1, batch=2)), 2 * size - 2)
    assert [batch.src.tolist() for batch in rest] == want[size + 2 :]


def test_the_curve_says_what_happened(tmp_path, monkeypatch) -> None:
    trainer, losses = make_trainer(steps=8, validate_every=3), []
    step = trainer.step
    monkeypatch.setattr(trainer, "step", lambda batch: losses.append(step(batch)) or losses[-1])
    history = run(tmp_path, trainer)
    size = sum(1 for _ in epoch(make_pairs(40), 40, 0))
    assert [row["step"] for row in history] == [3, 6, 8]
    assert [row["epoch"] for row in history] == [(n - 1) // size for n in (3, 6, 8)]
    assert [row["learning_rate"] for row in history] == [learning_rate(n, 4, 1e-2) for n in (3, 6, 8)]
    means = [mean(losses[:3]), mean(losses[3:6]), mean(losses[6:])]
    assert [row["train_loss"] for row in history] == pytest.approx(means)
    assert history[-1]["val_loss"] == trainer.validate([collate(make_pairs(5, 1))])


@pytest.mark.parametrize(
    ("limit", "steps", "seconds", "share"),
    [({"steps": 40}, 10, 77.0, 25), ({"minutes": 2.0}, 77, 60.0, 50), ({"steps": 40}, 50, 77.0, 100)],
    ids=["steps", "minutes", "over"],
)
def test_the_bar_fills_with_steps_or_with_the_minutes(limit: dict, steps: int, seconds: float, share: int) -> None:
    trainer, curve = make_trainer(**limit), [{"val_loss": 9.0}, {"val_loss": 1.23456}]
    with progress_bar(trainer.recipe) as bar:
        show(bar, trainer, Progress())
        assert str(bar).startswith("training   0%") and "validation" not in str(bar)
        for part in (0.5, 1):
            trainer.steps = int(part * steps)
            show(bar, trainer, Progress(seconds=part * seconds, history=curve))
        assert str(bar).startswith(f"training {share:3}%")
        assert str(bar).endswith(f"step {steps}, validation loss 1.235")


def test_training_shows_how_far_it_is(tmp_path, capsys) -> None:
    trainer = make_trainer(steps=3)
    loss = run(tmp_path, trainer)[-1]["val_loss"]
    assert capsys.readouterr().err.rstrip().endswith(f"step 3, validation loss {loss:.3f}")


# --- stopping and going on -------------------------------------------------------------------------------------------


def run(folder, trainer: Trainer, stop_at: int = 0, resume=None) -> list[dict]:
    return train(trainer, make_pairs(40), make_pairs(5, 1), folder, resume, lambda: trainer.steps == stop_at)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [*trainer.model.state_dict().values(), *trainer.average.state_dict().values()]


@pytest.mark.parametrize("stop_at", [1, 4, 9])
def test_a_run_stopped_and_resumed_ends_with_the_same_weights_bit_for_bit(tmp_path, stop_at: int) -> None:
    whole, first, second = (make_trainer(steps=11, validate_every=4) for _ in range(3))
    history = run(tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", first, stop_at)
    with torch.no_grad():  # a run that started afresh would end at other weights
        for parameter in [*second.model.parameters(), *second.average.parameters()]:
            parameter.zero_()
    again = run(tmp_path / "parts", second, resume=checkpoints(tmp_path / "parts")[-1])
    assert all(a.equal(b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert again[-1]["val_loss"] == history[-1]["val_loss"]


def test_training_leaves_the_callers_random_numbers_alone(tmp_path) -> None:
    trainer, state = make_trainer(steps=3), torch.get_rng_state()
    run(tmp_path, trainer)
    assert torch.get_rng_state().equal(state)


def test_two_checkpoints_the_best_model_and_the_curve_are_kept(tmp_path) -> None:
    history = run(tmp_path, make_trainer(steps=11, validate_every=3))
    names = sorted(path.name for path in tmp_path.iterdir())
    kept = ["checkpoint-00000009.safetensors", "checkpoint-00000011.safetensors"]
    assert names == [*kept, "config.json", "history.json", "model.safetensors"]
    assert [row["step"] for row in history] == [3, 6, 9, 11]
    assert json.loads((tmp_path / "history.json").read_text()) == history


def test_a_run_ends_with_its_minutes(tmp_path) -> None:
    trainer = make_trainer(minutes=1e-9)
    assert [row["step"] for row in run(tmp_path, trainer)] == [1]


def test_seconds_go_on_counting_in_a_resumed_run(tmp_path, monkeypatch) -> None:
    clock = SimpleNamespace(perf_counter=lambda: 1000 + 3.75 * trainer.steps)  # every step takes as long
    monkeypatch.setattr("transformer.training.time", clock)
    trainer = make_trainer(minutes=1.0, validate_every=5)
    history = run(tmp_path, trainer)
    assert [(row["step"], row["seconds"]) for row in history] == [(5, 18.8), (10, 37.5), (15, 56.2), (16, 60.0)]
    path, trainer = checkpoints(tmp_path)[-1], make_trainer(minutes=1.5, validate_every=100)
    assert [(row["step"], row["seconds"]) for row in run(tmp_path, trainer, resume=path)[4:]] == [(24, 90.0)]


@pytest.fixture
def checkpoint(tmp_path):
    trainer = make_trainer()
    trainer.step(collate(make_pairs(6)))
    return save_checkpoint(trainer, Progress(batch=1), tmp_path)


def test_a_checkpoint_that_was_cut_off_is_refused(checkpoint) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"checkpoint-00000001\.safetensors is damaged"):
        load_checkpoint(make_trainer(), checkpoint)


def test_a_checkpoint_of_another_config_is_refused(checkpoint) -> None:
    other = Trainer(small_model(d_ff=21), Recipe(**SHORT))
    with pytest.raises(ValueError, match="belongs to another config"):
        load_checkpoint(other, checkpoint)


def test_weights_that_are_no_checkpoint_are_refused(tmp_path) -> None:
    run(tmp_path, make_trainer(steps=1))
    with pytest.raises(ValueError, match="is not a training checkpoint"):
        load_checkpoint(make_trainer(), tmp_path / "model.safetensors")


# --- from a corpus to a translator -----------------------------------------------------------------------------------


def sizes(vocab_size: int):
    return small_model(vocab_size=vocab_size, max_len=12).config


def test_fit_leaves_a_translator(tmp_path) -> None:
    corpus = Corpus("x", [("the cat", "il gatto"), ("the mat", "il tappeto")] * 4, [("cat", "gatto")])
    history = fit(corpus, tmp_path, 40, sizes, Recipe(**SHORT | dict(steps=3)))
    assert len(history) == 1
    assert isinstance(Translator.load(tmp_path).translate(["the cat"])[0], str)


def test_a_sentence_over_the_maximum_length_is_refused_before_training(tmp_path) -> None:
    corpus = Corpus("mine", [("the cat", "il gatto"), ("x " * 20, "y")], [("cat", "gatto")])
    longest = max(len(row) for pair in to_ids(corpus.tokenizer(40), corpus.train) for row in pair)

    def just(max_len: int):
        return lambda vocab_size: small_model(vocab_size=vocab_size, max_len=max_len).config

    with pytest.raises(ValueError, match=rf"longest sentence of mine has {longest} tokens, max_len is {longest - 1}$"):
        fit(corpus, tmp_path, 40, just(longest - 1), Recipe(**SHORT))
    assert len(fit(corpus, tmp_path, 40, just(longest), Recipe(**SHORT | dict(steps=1)))) == 1


def test_fit_hands_its_options_to_train(tmp_path) -> None:
    corpus = Corpus("x", [("the cat", "il gatto")] * 4, [("cat", "gatto")])
    with pytest.raises(KeyboardInterrupt):
        fit(corpus, tmp_path, 40, sizes, Recipe(**SHORT | dict(steps=3)), should_stop=lambda: True)
    assert [path.stem for path in checkpoints(tmp_path)] == ["checkpoint-00000001"]
