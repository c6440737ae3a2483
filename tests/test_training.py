"""What chapter 11 says of training: it learns, it stops, it goes on, and it loses nothing."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.checks import small_model
from transformer.data import Corpus, batches_by_length, collate
from transformer.inference import Translator, greedy_search
from transformer.model import load_model
from transformer.training import (
    Progress,
    Recipe,
    Trainer,
    checkpoints,
    fit,
    label_smoothed_loss,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
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


@few
@given(warmup=st.integers(0, 500), peak=st.floats(1e-5, 1.0))
def test_the_rate_rises_to_its_peak_and_falls_from_there(warmup: int, peak: float) -> None:
    rates = [learning_rate(step, warmup, peak) for step in range(1, 700)]
    top = max(warmup, 1) - 1
    assert math.isclose(max(rates), peak) and math.isclose(rates[top], peak)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


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


def test_the_average_follows_the_weights() -> None:
    trainer = make_trainer()
    start = [p.clone() for p in trainer.average.parameters()]
    for _ in range(3):
        trainer.step(collate(make_pairs(6)))
    for old, mean, new in zip(start, trainer.average.parameters(), trainer.model.parameters(), strict=True):
        moved, gap = (new - old).norm(), (new - mean).norm()
        assert not mean.requires_grad and gap <= moved


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
    with pytest.raises(ValueError, match=r"the longest sentence of mine has .* tokens, max_len is 12"):
        fit(corpus, tmp_path, 40, sizes, Recipe(**SHORT))
