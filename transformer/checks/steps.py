"""What the check of a trainer computes by hand: steps of Adam, gradients, clipping and average."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.checks.fixtures import SRC, small_model
from transformer.checks.harness import Suspects, agree, call, expect
from transformer.data import Batch
from transformer.model import Transformer
from transformer.training import TrainingConfig

TARGETS = [[1, 4, 10, 6, 2], [1, 9, 2, 0, 0]]
SMOOTHING = 0.1


def whole_batch(device: torch.device | str) -> Batch:
    """Return a batch of two pairs, with 4 and 2 labels that are not padding."""
    return Batch(torch.tensor(SRC), torch.tensor(TARGETS)).to(device)


def single_pairs(device: torch.device | str) -> list[Batch]:
    """Return the two pairs of the batch as two batches without padding."""
    first = Batch(torch.tensor(SRC[:1]), torch.tensor(TARGETS[:1]))
    second = Batch(torch.tensor([SRC[1][:4]]), torch.tensor([TARGETS[1][:3]]))
    return [first.to(device), second.to(device)]


def make_trainer(cls: type, device: torch.device | str, dropout: float = 0.0, **changes) -> Any:
    """Return a trainer of a small model, an object of the class that is checked."""
    options = dict(steps=9, peak_lr=1e-2, warmup=4, label_smoothing=SMOOTHING) | changes
    return call(cls, small_model(device=device, dropout=dropout), TrainingConfig(**options))


def smoothed(labels: Tensor, v: int, smoothing: float, pad_id: int | None) -> Tensor:
    """Return smoothed targets: 1 - smoothing on the label, the rest shared, except with pad_id."""
    others = v - (pad_id is not None)
    share = torch.full((v,), smoothing / others, dtype=torch.float64, device=labels.device)
    if pad_id is not None:
        share[pad_id] = 0.0
    return share + (1 - smoothing) * F.one_hot(labels, v)


def count_labels(batch: Batch) -> int:
    """Return the number of labels that are not padding."""
    return int((batch.tgt[:, 1:] != 0).sum())


def loss_by_hand(model: Transformer, batch: Batch) -> Tensor:
    """Return the loss of a batch from PyTorch's cross-entropy."""
    config = model.config
    logits = model(batch.src, batch.tgt[:, :-1])
    labels = batch.tgt[:, 1:]
    real = labels != config.pad_id
    targets = smoothed(labels[real], config.vocab_size, SMOOTHING, config.pad_id)
    return F.cross_entropy(logits[real], targets.float())


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Return a copy of all tensors as one vector."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def gradient_by_hand(model: Transformer, batch: Batch) -> Tensor:
    """Return the gradient of a batch's loss as one vector."""
    loss = loss_by_hand(model.train(), batch)
    return flat(torch.autograd.grad(loss, list(model.parameters())))


def watched_step(trainer: Any, batches: Sequence[Batch]) -> tuple[float, Tensor, float]:
    """Do one step; return its loss, and the gradient and the learning rate that Adam was given."""
    seen = []

    def look(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        parameters = trainer.model.parameters()
        gradient = flat(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
        seen.append((gradient, optimizer.param_groups[0]["lr"]))

    hook = trainer.optimizer.register_step_pre_hook(look)
    try:
        loss = call(trainer.step, *batches)
    finally:
        hook.remove()
    cause = "Gradients of several batches are added up before one step of the optimizer"
    found = f"step called the optimizer {len(seen)} times on {len(batches)} batches, wanted once"
    expect(len(seen) == 1, f"{found}. {cause}")
    return loss, *seen[0]


def trainer_follows_adam(cls: type, device: torch.device | str) -> None:
    """Expect the losses of three steps of Adam."""
    trainer = make_trainer(cls, device)
    by_hand = small_model(device=device, dropout=0.0)
    by_hand.load_state_dict(trainer.model.state_dict())
    optimizer = torch.optim.Adam(by_hand.parameters(), betas=(0.9, 0.98), eps=1e-9)
    batch = whole_batch(device)
    for step in (1, 2, 3):
        want = step_by_hand(by_hand, optimizer, batch, rate=1e-2 * step / 4)
        got = call(trainer.step, batch)
        cause = (
            "Are gradients set to zero, is the rate set before the step, is padding left out of "
            "the loss?"
        )
        found = f"step {step} has the loss {got:.4f}, by hand it is {want:.4f}"
        expect(abs(got - want) < 1e-4, f"{found}. {cause}")
    expect(trainer.steps == 3, f"after three steps trainer.steps is {trainer.steps}")


def step_by_hand(
    model: Transformer, optimizer: torch.optim.Optimizer, batch: Batch, rate: float
) -> float:
    """Do what a trainer does in one step, the long way, and return the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss = loss_by_hand(model, batch)
    loss.backward()
    optimizer.step()
    return loss.item()


def sum_suspects(first: Tensor, second: Tensor) -> Suspects:
    """Return the usual mistakes with the losses, or the gradients, of two batches."""
    means = (
        "It is the mean of the batches' means: weigh each batch by its number of labels that are "
        "not padding."
    )
    undivided = "The batches' means are added up: divide by the tokens of the whole step."
    last = "Only the last batch counts: are gradients set to zero between batches?"
    return {
        means: lambda: (first + second) / 2,
        undivided: lambda: first + second,
        last: lambda: second,
        "Only the first batch counts.": lambda: first,
    }


def trainer_accumulates(cls: type, device: torch.device | str) -> None:
    """Expect a step on two batches to be the step on one batch that holds both."""
    trainer = make_trainer(cls, device)
    pairs = single_pairs(device)
    batches = [whole_batch(device), *pairs]
    losses = [loss_by_hand(trainer.model, batch).detach() for batch in batches]
    gradients = [gradient_by_hand(trainer.model, batch) for batch in batches]
    loss, gradient, rate = watched_step(trainer, pairs)
    where = "step on two batches of 4 and 2 tokens"
    found = losses[0].new_tensor(loss)
    agree(found, losses[0], f"{where}, its loss", sum_suspects(*losses[1:]))
    agree(gradient, gradients[0], f"{where}, its gradient", sum_suspects(*gradients[1:]))
    cause = "The schedule advances once a step, however many batches are accumulated"
    right = math.isclose(rate, 1e-2 / 4, rel_tol=1e-6)
    expect(right, f"{where}: the rate is {rate:.4g}, wanted {1e-2 / 4:.4g}. {cause}")
    expect(trainer.steps == 1, f"{where}: trainer.steps is {trainer.steps}, wanted 1. {cause}")


def trainer_clips(cls: type, device: torch.device | str) -> None:
    """Expect the gradient of a whole step, scaled to the norm that the config allows."""
    limit = 0.1
    trainer = make_trainer(cls, device, max_grad_norm=limit)
    model = trainer.model
    gradient = gradient_by_hand(model, whole_batch(device))
    first, second = (gradient_by_hand(model, batch) for batch in single_pairs(device))

    def clipped(vector: Tensor) -> Tensor:
        return vector * min(1.0, limit / (vector.norm().item() + 1e-6))

    each = "Each batch is clipped by itself: clip once, when all are added up."
    values = "Every number is clipped by itself, which turns the gradient: scale it as a whole."
    suspects = {
        "Clipping is left out: scale gradients longer than max_grad_norm.": lambda: gradient,
        each: lambda: (4 * clipped(first) + 2 * clipped(second)) / 6,
        values: lambda: gradient.clamp(-limit, limit),
    }
    _, got, _ = watched_step(trainer, single_pairs(device))
    where = f"with max_grad_norm={limit}, the gradient of a step"
    agree(got, clipped(gradient), where, suspects, tolerance=1e-6)


def averaged(history: Sequence[Tensor], keep: Callable[[int], float]) -> Tensor:
    """Return the running average of weights; keep(step) is the share of what was there before."""
    mean = history[0]
    for step, weights in enumerate(history[1:], start=1):
        mean = keep(step) * mean + (1 - keep(step)) * weights
    return mean


def average_suspects(history: Sequence[Tensor], decay: float) -> Suspects:
    """Return the usual mistakes of a running average."""
    ramp = (
        "It keeps ema_decay from the first step, so the initial weights stay in it for long: "
        "keep min(ema_decay, steps / (steps + 10))."
    )
    swapped = "The two shares changed places: keep belongs to the average so far."
    return {
        "ema_model is a copy of the last weights: average them.": lambda: history[-1],
        "ema_model still has the initial weights: update it after each step.": lambda: history[0],
        ramp: lambda: averaged(history, lambda step: decay),
        "ema_decay is ignored.": lambda: averaged(history, lambda step: step / (step + 10)),
        swapped: lambda: averaged(history, lambda step: 1 - min(decay, step / (step + 10))),
    }


def trainer_averages(cls: type, device: torch.device | str) -> None:
    """Expect ema_model to follow its formula after each of several steps."""
    decay = 0.2
    trainer = make_trainer(cls, device, ema_decay=decay, warmup=0, peak_lr=0.1)
    history = [flat(trainer.model.parameters())]
    for step in (1, 2, 3, 4):
        call(trainer.step, whole_batch(device))
        history.append(flat(trainer.model.parameters()))
        want = averaged(history, lambda step: min(decay, step / (step + 10)))
        where = f"ema_model after step {step}"
        got = flat(trainer.ema_model.parameters())
        agree(got, want, where, average_suspects(history, decay))
    trained = any(parameter.requires_grad for parameter in trainer.ema_model.parameters())
    expect(not trained, "the parameters of ema_model require gradients: it is never trained")


def trainer_validates(cls: type, device: torch.device | str) -> None:
    """Expect the loss of ema_model: a mean over tokens, smoothed as in training, no dropout."""
    trainer = make_trainer(cls, device, dropout=0.5, warmup=0, peak_lr=0.1)
    short = Batch(torch.tensor([[6, 2]]), torch.tensor([[1, 5, 2]])).to(device)
    batches = [whole_batch(device), short]
    call(trainer.step, *batches)
    model = copy.deepcopy(trainer.ema_model).eval()
    counts = [count_labels(batch) for batch in batches]
    with torch.no_grad():
        losses = [loss_by_hand(model, batch).item() for batch in batches]
    want = sum(n * loss for n, loss in zip(counts, losses, strict=True)) / sum(counts)
    got = call(trainer.validate, batches)
    eval_mode = not trainer.ema_model.training
    expect(eval_mode, "validation runs in train mode: dropout spoils the loss")
    cause = "It is the loss of ema_model, a mean over all tokens, in eval mode"
    found = f"the validation loss of two batches is {got:.4f}, by hand {want:.4f}"
    expect(abs(got - want) < 1e-4, f"{found}. {cause}")


def trainer_stops_at_nan(cls: type, device: torch.device | str) -> None:
    """Expect a FloatingPointError that names the step, here the fourth."""
    trainer = make_trainer(cls, device)
    for _ in range(3):
        call(trainer.step, whole_batch(device))
    with torch.no_grad():
        trainer.model.bias.fill_(math.nan)
    try:
        trainer.step(whole_batch(device))
    except FloatingPointError as error:
        missing = f"a loss of NaN stops training, but the message lacks the step, 4: {error}"
        expect("4" in str(error), missing)
    else:
        cause = "stop with a FloatingPointError that names the step"
        expect(False, f"a loss of NaN was trained on: {cause}")
