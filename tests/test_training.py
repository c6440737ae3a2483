"""Test the loss, the schedule, the trainer, the loop and its checkpoints (chapter 11)."""

import math
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from statistics import mean

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from transformer.checks.fixtures import small_model
from transformer.data import Batch, Pair, batches_by_length, collate, epoch
from transformer.files import read_tensors
from transformer.inference import greedy_search
from transformer.model import Transformer, save_model
from transformer.training import (
    Trainer,
    TrainingConfig,
    label_smoothed_loss,
    learning_rate,
    load_checkpoint,
    read_about,
    save_checkpoint,
    train,
    training_batches,
    translation_loss,
)

few = settings(max_examples=20, deadline=None, derandomize=True)
SHORT = dict(max_tokens=40, peak_lr=1e-2, warmup=4, ema_decay=0.9)


def make_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Return sentences of 1 to 5 tokens and their reversal."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, 11, (1 + i % 5,), generator=generator).tolist() for i in range(count)]
    return [([*row, 2], [1, *row[::-1], 2]) for row in rows]


def make_trainer(loss=translation_loss, dropout: float = 0.2, **changes) -> Trainer:
    """Return a trainer of a small model, always the same one."""
    torch.manual_seed(0)
    return Trainer(small_model(dropout=dropout).train(), TrainingConfig(**SHORT | changes), loss)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Return a copy of all tensors as one vector."""
    return torch.cat([x.detach().flatten() for x in tensors])


def gradients(trainer: Trainer) -> Tensor:
    """Return the gradients that the last step left, as one vector."""
    return flat(p.grad for p in trainer.model.parameters())


def state(trainer: Trainer) -> list[Tensor]:
    """Return copies of both models' weights and of Adam's averages."""
    tensors = [*trainer.model.state_dict().values(), *trainer.ema_model.state_dict().values()]
    for averages in trainer.optimizer.state_dict()["state"].values():
        tensors += [averages[name] for name in sorted(averages)]
    return [x.clone() for x in tensors]


def same_bits(first: Iterable[Tensor], second: Iterable[Tensor]) -> bool:
    """Return whether two lists have equal tensors."""
    return all(a.equal(b) for a, b in zip(first, second, strict=True))


# --- the loss -------------------------------------------------------------------------------------


@few
@given(
    smoothing=st.floats(0, 0.9), scale=st.sampled_from([0.1, 1.0, 30.0]), pad_id=st.integers(0, 6)
)
def test_the_loss_is_the_cross_entropy_with_smoothed_labels(
    smoothing: float, scale: float, pad_id: int
) -> None:
    logits = scale * torch.randn(2, 5, 7)
    labels = torch.arange(10).reshape(2, 5) % 7
    share = torch.full((7,), smoothing / 6)
    share[pad_id] = 0
    each = [
        -((share + (1 - smoothing) * torch.eye(7)[label]) * row.log_softmax(-1)).sum()
        for row, label in zip(logits.flatten(0, 1), labels.flatten(), strict=True)
        if label != pad_id
    ]
    loss = label_smoothed_loss(logits, labels, pad_id, smoothing)
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_more_padding_does_not_change_the_loss() -> None:
    logits = torch.randn(2, 5, 7)
    labels = torch.randint(1, 7, (2, 5))
    more_logits = torch.cat([logits, torch.randn(2, 3, 7)], dim=1)
    more_labels = F.pad(labels, (0, 3))
    loss = label_smoothed_loss(logits, labels, 0)
    torch.testing.assert_close(label_smoothed_loss(more_logits, more_labels, 0), loss)


def test_smoothing_is_a_tenth_by_default() -> None:
    logits = torch.randn(2, 5, 7)
    labels = torch.randint(1, 7, (2, 5))
    loss = label_smoothed_loss(logits, labels, 0)
    assert loss == label_smoothed_loss(logits, labels, 0, 0.1)
    assert loss != label_smoothed_loss(logits, labels, 0, 0.2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_label_of_minus_100_does_not_count(smoothing: float) -> None:
    logits = torch.randn(2, 5, 7)
    labels = torch.randint(1, 7, (2, 5))
    padded = labels.index_fill(1, torch.tensor([1, 4]), 0)
    ignored = labels.index_fill(1, torch.tensor([1, 4]), -100)
    want = label_smoothed_loss(logits, padded, 0, smoothing)
    assert label_smoothed_loss(logits, ignored, 0, smoothing) == want


def test_padding_may_have_the_logit_minus_infinity() -> None:
    p = torch.tensor([[0, 0.2, 0.7, 0.05, 0.05]] * 3)
    logits = p.log().requires_grad_()
    loss = label_smoothed_loss(logits, torch.tensor([2, 1, 0]), 0, 0.4)
    each = -0.1 * (math.log(0.2) + math.log(0.7) + 2 * math.log(0.05))
    by_hand = each - 0.6 * (math.log(0.7) + math.log(0.2)) / 2
    assert loss.item() == pytest.approx(by_hand) == pytest.approx(1.3856, abs=1e-4)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[:, 0].any()


def test_without_smoothing_any_other_class_may_have_the_logit_minus_infinity() -> None:
    logits = torch.randn(3, 5)
    logits[:, 3] = -math.inf
    labels = torch.tensor([2, 1, 0])
    loss = label_smoothed_loss(logits, labels, 0, 0.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, ignore_index=0))
    assert loss.isfinite()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_impossible_label_gives_an_infinite_loss(smoothing: float) -> None:
    logits = torch.zeros(3, 5)
    logits[1, 4] = -math.inf
    assert label_smoothed_loss(logits, torch.tensor([2, 4, 0]), 0, smoothing) == math.inf


# --- the schedule and the config ------------------------------------------------------------------


@few
@given(warmup=st.integers(0, 500), peak=st.floats(1e-5, 1.0))
def test_the_rate_rises_to_its_peak_and_falls_from_there(warmup: int, peak: float) -> None:
    rates = [learning_rate(step, warmup, peak) for step in range(1, 700)]
    top = max(warmup, 1) - 1
    assert math.isclose(max(rates), peak)
    assert math.isclose(rates[top], peak)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert math.isclose(learning_rate(4 * (top + 1), warmup, peak), peak / 2), "4 × steps halve it"


def test_the_papers_schedule_is_one_of_them() -> None:
    for step in (1, 2000, 4000, 100_000):
        paper = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert math.isclose(learning_rate(step, 4000, (512 * 4000) ** -0.5), paper)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"max_tokens": 0},
        {"accumulate": 0},
        {"accumulate": -2},
        {"validate_every": 0},
        {"peak_lr": 0.0},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": -1.0},
        {"max_grad_norm": math.nan},
        {"warmup": -1},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"ema_decay": 1.0},
        {"ema_decay": -0.1},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(changes: dict) -> None:
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=rf"^{name} must be .*, not {value}$"):
        TrainingConfig(**changes)


def test_settings_at_the_edge_of_the_possible_are_accepted() -> None:
    ones = dict(steps=1, validate_every=1, accumulate=1, max_tokens=1)
    config = TrainingConfig(warmup=0, label_smoothing=0.0, ema_decay=0.0, **ones)
    assert config.warmup == config.label_smoothing == config.ema_decay == 0
    assert config.max_grad_norm == math.inf, "gradients are not clipped by default"


# --- one step -------------------------------------------------------------------------------------


def test_making_a_trainer_leaves_the_model_and_the_random_numbers_as_they_were() -> None:
    model = small_model(dropout=0.2).train()
    model.decoder.layers[1].eval()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    modules = dict(model.named_modules())
    flags = {name: module.training for name, module in modules.items()}
    random = torch.get_rng_state()
    trainer = Trainer(model, TrainingConfig(**SHORT))
    assert trainer.model is model
    assert same_bits(model.state_dict().values(), before.values())
    assert dict(model.named_modules()) == modules
    assert {name: module.training for name, module in modules.items()} == flags
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.get_rng_state().equal(random)


def test_the_average_begins_as_a_frozen_copy_in_eval_mode() -> None:
    trainer = make_trainer()
    pairs = list(zip(trainer.model.parameters(), trainer.ema_model.parameters(), strict=True))
    assert all(a.equal(b) and a.data_ptr() != b.data_ptr() for a, b in pairs)
    assert not any(b.requires_grad for _, b in pairs)
    assert not any(module.training for module in trainer.ema_model.modules())


def test_adam_has_the_papers_settings() -> None:
    defaults = make_trainer().optimizer.defaults
    assert defaults["betas"] == (0.9, 0.98)
    assert defaults["eps"] == 1e-9
    assert defaults["weight_decay"] == 0


def test_it_overfits_one_small_batch() -> None:
    torch.manual_seed(0)
    config = TrainingConfig(**SHORT | dict(label_smoothing=0.0, warmup=20))
    trainer = Trainer(small_model(), config)
    pairs = make_pairs(6)
    batch = collate(pairs)
    losses = [trainer.step(batch) for _ in range(150)]
    assert losses[-1] < 0.05 < losses[0]
    found = greedy_search(trainer.model, batch.src, 8).tolist()
    assert [[1, *(i for i in row if i)] for row in found] == [tgt for _, tgt in pairs]


def test_a_step_returns_the_loss_before_it_and_follows_the_schedule() -> None:
    trainer = make_trainer(dropout=0.0)
    batch = collate(make_pairs(6))
    for step in (1, 2, 3, 4, 5):
        before = translation_loss(trainer.model, batch, 0.1).item()
        assert trainer.step(batch) == pytest.approx(before, rel=1e-5)
        assert trainer.steps == step
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        assert rates == [learning_rate(step, 4, 1e-2)]


def test_no_gradient_is_carried_from_step_to_step() -> None:
    trainer = make_trainer()
    fresh = make_trainer()
    trainer.step(collate(make_pairs(6)))
    fresh.model.load_state_dict(trainer.model.state_dict())
    second = collate(make_pairs(6, seed=1))
    for each in (trainer, fresh):
        torch.manual_seed(1)
        each.step(second)
    assert gradients(trainer).equal(gradients(fresh))


def test_training_uses_dropout_and_leaves_the_average_without_it() -> None:
    trainer = make_trainer(dropout=0.5)
    trainer.model.eval()
    batch = collate(make_pairs(6))
    torch.manual_seed(1)
    loss = trainer.step(batch)
    again = make_trainer(dropout=0.5)
    torch.manual_seed(2)
    assert loss != again.step(batch), "other random numbers, another loss"
    assert not trainer.ema_model.training


def split_by_length() -> tuple[Batch, list[Batch]]:
    """Return a batch, and its pairs as three batches with different numbers of tokens."""
    pairs = make_pairs(7)
    parts = [collate(pairs[:1]), collate(pairs[1:4]), collate(pairs[4:])]
    assert len({part.n_tokens for part in parts}) == 3
    return collate(pairs), parts


def test_accumulated_batches_are_one_large_batch() -> None:
    together = make_trainer(dropout=0.0)
    apart = make_trainer(dropout=0.0)
    whole, parts = split_by_length()
    for _ in range(2):
        loss = together.step(whole)
        assert apart.step(*parts) == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(gradients(apart), gradients(together), atol=1e-6, rtol=1e-4)
    assert apart.steps == together.steps == 2
    twins = zip(apart.model.named_parameters(), together.model.parameters(), strict=True)
    for (name, a), b in twins:
        if not name.endswith("w_k.bias"):  # its gradient is rounding noise, which Adam scales up
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_accumulated_batches_count_by_their_tokens() -> None:
    trainer = make_trainer(dropout=0.0)
    _, parts = split_by_length()
    losses = [translation_loss(trainer.model, part, 0.1).item() for part in parts]
    loss = trainer.step(*parts)
    assert abs(loss - mean(losses)) > 1e-3, "it is not the mean of the batches' means"
    total = sum(part.n_tokens * one for part, one in zip(parts, losses, strict=True))
    assert loss == pytest.approx(total / sum(part.n_tokens for part in parts))


def test_gradients_are_clipped_as_a_whole() -> None:
    plain = make_trainer()
    clipped = make_trainer(max_grad_norm=0.1)
    _, parts = split_by_length()
    for trainer in (plain, clipped):
        torch.manual_seed(1)
        trainer.step(*parts)
    norm = gradients(plain).norm()
    assert norm > 0.2
    torch.testing.assert_close(gradients(clipped), gradients(plain) * 0.1 / norm)
    torch.testing.assert_close(gradients(clipped).norm(), torch.tensor(0.1))


def test_clipping_changes_the_step() -> None:
    plain = make_trainer(dropout=0.0)
    clipped = make_trainer(dropout=0.0, max_grad_norm=0.1)
    for seed in (0, 1):  # Adam's first step does not depend on the length of the gradient
        for trainer in (plain, clipped):
            trainer.step(collate(make_pairs(6, seed)))
    assert not flat(plain.model.parameters()).allclose(flat(clipped.model.parameters()), atol=1e-4)


def test_an_infinite_norm_leaves_gradients_untouched(monkeypatch) -> None:
    trainer = make_trainer(dropout=0.0)
    same = make_trainer(dropout=0.0, max_grad_norm=math.inf)
    roomy = make_trainer(dropout=0.0, max_grad_norm=1e6)
    batch = collate(make_pairs(6))
    loss = translation_loss(trainer.model, batch, 0.1)
    want = flat(torch.autograd.grad(loss, list(trainer.model.parameters())))
    roomy.step(batch)
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *args: pytest.fail("clipped"))
    trainer.step(batch)
    same.step(batch)
    assert gradients(trainer).equal(want)
    assert same_bits(state(trainer), state(same))
    assert same_bits(state(trainer), state(roomy)), "a limit that is not reached changes nothing"


def test_the_average_follows_the_weights_and_soon_forgets_where_they_began() -> None:
    trainer = make_trainer(ema_decay=0.2, warmup=0, peak_lr=0.1)
    want = flat(trainer.ema_model.parameters())
    for decay in (1 / 11, 2 / 12, 0.2, 0.2):
        trainer.step(collate(make_pairs(6)))
        want = decay * want + (1 - decay) * flat(trainer.model.parameters())
        torch.testing.assert_close(flat(trainer.ema_model.parameters()), want)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_no_weight(value: float) -> None:
    calls = []

    def spoiled(model: Transformer, batch: Batch, smoothing: float) -> Tensor:
        calls.append(batch)
        loss = translation_loss(model, batch, smoothing)
        return loss * value if len(calls) == 5 else loss

    trainer = make_trainer(loss=spoiled)
    first = collate(make_pairs(4))
    second = collate(make_pairs(3, seed=1))
    trainer.step(first, second)
    before = state(trainer)
    trainer.steps = 6
    words = f"^loss of step 7 is {value}, on a batch of 11 pairs$"
    with pytest.raises(FloatingPointError, match=words):
        trainer.step(first, second, first)
    assert same_bits(state(trainer), before)
    assert trainer.steps == 6


def test_the_loss_of_a_trainer_is_the_one_it_was_given() -> None:
    calls = []

    def loss(model: Transformer, batch: Batch, smoothing: float) -> Tensor:
        calls.append((model, model.training, batch, smoothing, torch.is_grad_enabled()))
        return translation_loss(model, batch, smoothing) * 0 + len(calls)

    trainer = make_trainer(loss=loss, label_smoothing=0.3)
    batch = collate(make_pairs(6))
    assert trainer.step(batch) == 1
    assert trainer.validate([batch]) == 2
    assert calls == [
        (trainer.model, True, batch, 0.3, True),
        (trainer.ema_model, False, batch, 0.3, False),
    ]


def test_the_default_loss_is_label_smoothed_cross_entropy_of_every_label() -> None:
    model = small_model(pad_id=0)
    batch = collate(make_pairs(6))
    logits = model(batch.src, batch.tgt[:, :-1])
    want = label_smoothed_loss(logits, batch.tgt[:, 1:], 0, 0.3)
    torch.testing.assert_close(translation_loss(model, batch, 0.3), want)
    assert make_trainer().loss is translation_loss


def test_the_validation_loss_does_not_depend_on_the_batches() -> None:
    trainer = make_trainer(dropout=0.5)
    pairs = make_pairs(12)
    grouped = [[collate(group) for group in batches_by_length(pairs, n)] for n in (10, 30, 1000)]
    assert [len(batches) for batches in grouped] == sorted({len(b) for b in grouped}, reverse=True)
    losses = [trainer.validate(batches) for batches in grouped]
    assert max(losses) - min(losses) < 1e-5


# --- the loop -------------------------------------------------------------------------------------


def ids(batches: Iterable[tuple[Batch, ...]]) -> list:
    """Return the ids of the batches of several steps."""
    return [[(batch.src.tolist(), batch.tgt.tolist()) for batch in step] for step in batches]


def test_epoch_follows_epoch_each_in_its_own_order() -> None:
    pairs = make_pairs(12)
    config = TrainingConfig(**SHORT | dict(seed=5))
    epochs = [list(epoch(pairs, 40, seed)) for seed in (5, 6, 7)]
    want = ids((batch,) for batches in epochs for batch in batches)
    size = len(epochs[0])
    assert size > 1
    assert want[:size] != want[size : 2 * size]
    assert ids(islice(training_batches(pairs, config), 3 * size)) == want


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_batches_go_on_where_a_number_of_steps_ended(accumulate: int) -> None:
    pairs = make_pairs(45)
    config = TrainingConfig(**SHORT | dict(accumulate=accumulate))
    size = len(batches_by_length(pairs, config.max_tokens))
    assert size % 2 and size % 3, "some steps begin in one epoch and end in the next"
    straight = ids(islice(training_batches(pairs, config), 3 * size))
    assert all(len(step) == accumulate for step in straight)
    for start in range(2 * size):
        continued = ids(islice(training_batches(pairs, config, start), 5))
        assert continued == straight[start : start + 5]


def test_accumulation_takes_the_same_batches_in_the_same_order() -> None:
    pairs = make_pairs(40)
    one = training_batches(pairs, TrainingConfig(**SHORT))
    three = training_batches(pairs, TrainingConfig(**SHORT | dict(accumulate=3)))
    singles = chain.from_iterable(ids(islice(one, 21)))
    assert list(chain.from_iterable(ids(islice(three, 7)))) == list(singles)


def test_training_stops_validates_and_returns_the_curve(monkeypatch) -> None:
    trainer = make_trainer(steps=8, validate_every=3, accumulate=2)
    step = trainer.step
    given_batches = []
    losses = []

    def watched(*batches: Batch) -> float:
        given_batches.append(batches)
        losses.append(step(*batches))
        return losses[-1]

    monkeypatch.setattr(trainer, "step", watched)
    pairs = make_pairs(40)
    history = train(trainer, pairs, make_pairs(25, seed=1))
    assert trainer.steps == len(losses) == 8
    assert ids(given_batches) == ids(islice(training_batches(pairs, trainer.config), 8))
    assert [list(row) for row in history] == [["step", "train_loss", "val_loss"]] * 3
    assert [row["step"] for row in history] == [3, 6, 8]
    means = [mean(losses[:3]), mean(losses[3:6]), mean(losses[6:])]
    assert [row["train_loss"] for row in history] == pytest.approx(means)
    val_batches = [collate(g) for g in batches_by_length(make_pairs(25, seed=1), 40)]
    assert len(val_batches) > 1
    assert history[-1]["val_loss"] == trainer.validate(val_batches)


def test_the_last_step_is_validated_once() -> None:
    trainer = make_trainer(steps=4, validate_every=2)
    history = train(trainer, make_pairs(40), make_pairs(5, seed=1))
    assert [row["step"] for row in history] == [2, 4]


def test_a_run_that_has_ended_is_not_continued(monkeypatch) -> None:
    trainer = make_trainer(steps=4)
    trainer.steps = 4
    monkeypatch.setattr(trainer, "step", lambda *batches: pytest.fail("a step too many"))
    assert train(trainer, make_pairs(40), make_pairs(5, seed=1)) == []


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stop_at", [1, 4, 9])
def test_a_run_stopped_and_resumed_ends_with_the_same_weights_bit_for_bit(
    tmp_path, stop_at: int, accumulate: int
) -> None:
    settings = dict(validate_every=4, accumulate=accumulate, max_grad_norm=1.0)
    pairs = make_pairs(40)
    val_pairs = make_pairs(5, seed=1)
    straight = make_trainer(steps=11, **settings)
    history = train(straight, pairs, val_pairs)
    random = torch.get_rng_state()
    stopped = make_trainer(steps=stop_at, **settings)
    train(stopped, pairs, val_pairs)
    save_checkpoint(stopped, tmp_path / "checkpoint")
    resumed = make_trainer(steps=11, **settings)
    with torch.no_grad():  # a run that began anew would end with other weights
        for parameter in [*resumed.model.parameters(), *resumed.ema_model.parameters()]:
            parameter.zero_()
    torch.manual_seed(99)
    load_checkpoint(resumed, tmp_path / "checkpoint")
    assert resumed.steps == stop_at
    again = train(resumed, pairs, val_pairs)
    assert resumed.steps == 11
    assert same_bits(state(straight), state(resumed))
    assert again[-1]["val_loss"] == history[-1]["val_loss"]
    assert torch.get_rng_state().equal(random)


def test_a_checkpoint_restores_all_that_training_depends_on(tmp_path) -> None:
    trainer = make_trainer()
    trainer.step(collate(make_pairs(6)))
    save_checkpoint(trainer, tmp_path / "checkpoint", {"seconds": 1.5, "history": [{"step": 1}]})
    random = torch.get_rng_state()
    other = make_trainer()
    torch.manual_seed(99)
    notes = load_checkpoint(other, tmp_path / "checkpoint")
    assert notes == {"seconds": 1.5, "history": [{"step": 1}]}
    assert other.steps == 1
    assert same_bits(state(other), state(trainer))
    assert torch.get_rng_state().equal(random)


def test_a_trainer_before_its_first_step_can_be_saved_too(tmp_path) -> None:
    trainer = make_trainer(steps=3)
    save_checkpoint(trainer, tmp_path / "checkpoint")
    other = make_trainer(steps=3)
    with torch.no_grad():
        other.model.bias.fill_(9)
    assert load_checkpoint(other, tmp_path / "checkpoint") == {}
    batch = collate(make_pairs(6))
    assert other.step(batch) == make_trainer(steps=3).step(batch)


def test_saving_leaves_the_trainer_and_the_random_numbers_as_they_were(tmp_path) -> None:
    trainer = make_trainer()
    trainer.step(collate(make_pairs(6)))
    before = state(trainer)
    random = torch.get_rng_state()
    save_checkpoint(trainer, tmp_path / "new" / "checkpoint")
    assert same_bits(state(trainer), before)
    assert torch.get_rng_state().equal(random)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["checkpoint"]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """The checkpoint of a trainer after one step."""
    trainer = make_trainer(validate_every=7)
    trainer.step(collate(make_pairs(6)))
    save_checkpoint(trainer, tmp_path / "one.safetensors", {"seconds": 2.5})
    return tmp_path / "one.safetensors"


def rewrite(path: Path, changes: dict[str, Tensor | None]) -> None:
    """Replace tensors of a checkpoint, or remove them, and keep its metadata."""
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    tensors = read_tensors(path) | changes
    path.write_bytes(save({name: x for name, x in tensors.items() if x is not None}, metadata))


def test_a_checkpoint_says_what_it_is(checkpoint) -> None:
    about = read_about(checkpoint)
    assert list(about) == ["config", "training", "steps", "notes"]
    assert about["config"]["d_ff"] == 20
    assert about["training"]["validate_every"] == 7
    assert about["steps"] == 1
    assert about["notes"] == {"seconds": 2.5}


@pytest.mark.parametrize("cut", [9, 5000])
def test_a_checkpoint_that_was_cut_off_is_refused(checkpoint, cut: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-cut])
    trainer = make_trainer()
    before = state(trainer)
    with pytest.raises(ValueError, match=r"one\.safetensors is damaged or not a safetensors file"):
        load_checkpoint(trainer, checkpoint)
    assert same_bits(state(trainer), before)


@pytest.mark.parametrize("content", [b"", b"{}", b"not a checkpoint at all"], ids=str)
def test_a_file_that_is_something_else_is_refused(tmp_path, content: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"other\.safetensors is damaged or not a safetensors file"
    ):
        load_checkpoint(make_trainer(), path)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        load_checkpoint(make_trainer(), tmp_path / "none.safetensors")


def test_a_checkpoint_of_another_config_is_refused(checkpoint) -> None:
    other = Trainer(small_model(d_ff=21), TrainingConfig(**SHORT))
    before = state(other)
    with pytest.raises(ValueError, match=r"belongs to another config.*'d_ff': 20.*'d_ff': 21"):
        load_checkpoint(other, checkpoint)
    assert same_bits(state(other), before)
    assert other.steps == 0


@pytest.mark.parametrize(
    "metadata",
    [None, {"colour": "red"}, {"about": "{"}, {"about": "[]"}, {"about": '{"steps": 3}'}],
    ids=str,
)
def test_weights_without_a_checkpoints_metadata_are_refused(tmp_path, metadata) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save(small_model().state_dict(), metadata))
    with pytest.raises(ValueError, match=r"weights\.safetensors is not a training checkpoint"):
        load_checkpoint(make_trainer(), path)


def test_a_model_is_not_a_checkpoint(tmp_path) -> None:
    save_model(small_model(), tmp_path)
    with pytest.raises(ValueError, match="is not a training checkpoint"):
        load_checkpoint(make_trainer(), tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"model.bias": None},
        {"ema_model.bias": None},
        {"optimizer.0.exp_avg": None},
        {"optimizer.0.step": None},
        {"random.cpu": None},
        {"model.bias": torch.zeros(12)},
        {"optimizer.0.exp_avg_sq": torch.zeros(5, 5)},
        {"random.cpu": torch.zeros(3)},
    ],
    ids=lambda changes: next(
        f"{name} {'missing' if x is None else list(x.shape)}" for name, x in changes.items()
    ),
)
def test_a_checkpoint_with_a_wrong_tensor_is_refused(checkpoint, changes: dict) -> None:
    rewrite(checkpoint, changes)
    with pytest.raises(ValueError, match=r"one\.safetensors is damaged: "):
        load_checkpoint(make_trainer(), checkpoint)
