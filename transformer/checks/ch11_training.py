"""Checks of chapter 11: the loss, the learning rate and the trainer."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.checks.harness import Suspects, agree, call, check, expect, size
from transformer.checks.steps import (
    smoothed,
    trainer_accumulates,
    trainer_averages,
    trainer_clips,
    trainer_follows_adam,
    trainer_stops_at_nan,
    trainer_validates,
)


def loss_suspects(logits: Tensor, labels: Tensor, pad_id: int, smoothing: float) -> Suspects:
    """Return the usual mistakes of a loss; labels hold padding."""
    flat = logits.double().flatten(0, 1)
    wanted = labels.flatten()
    real = wanted != pad_id
    targets = smoothed(wanted, logits.shape[-1], smoothing, pad_id)
    with_padding = smoothed(wanted, logits.shape[-1], smoothing, None)
    each = cross_entropy(flat, targets)
    kl = F.kl_div(flat.log_softmax(-1), targets, reduction="none").sum(-1)
    divided = (
        "The sum is divided by all tokens, padding too: the more padding, the better it looks. "
        "Divide by real tokens."
    )
    divergence = (
        "This is the KL divergence: smaller by the entropy of the smoothed labels, so its "
        "exponential is no perplexity. Use the cross-entropy."
    )
    mass = "Smoothing puts mass on padding, which is never right: share it among the others."
    zero = "Id 0 is ignored instead of pad_id: the padding of the labels counts."
    twice = "A softmax was applied before the loss, which has its own."
    return {
        divided: lambda: (each * real).sum() / len(each),
        f"KL divergence, and {divided}": lambda: (kl * real).sum() / len(each),
        divergence: lambda: kl[real].mean(),
        mass: lambda: cross_entropy(flat, with_padding)[real].mean(),
        "Padding counts as a word to be learned.": lambda: each.mean(),
        "Smoothing is not applied.": lambda: F.cross_entropy(flat[real], wanted[real]),
        "It is the sum: divide by the real tokens.": lambda: each[real].sum(),
        zero: lambda: each[wanted != 0].mean(),
        twice: lambda: cross_entropy(flat.softmax(-1), targets)[real].mean(),
    }


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each row."""
    return -(targets * logits.log_softmax(-1)).sum(-1)


@check(
    "equal to PyTorch's cross-entropy, padding counts for nothing, smoothing avoids it, gradient, "
    "float16"
)
def check_loss(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (logits: … vocab, labels: …, pad_id, smoothing).

    It gives the mean loss in nats a token.
    """
    logits = 2 * torch.randn(2, 5, 9).to(device)
    labels = torch.tensor([[4, 8, 1, 2, 0], [6, 2, 3, 3, 3]], device=device)
    real = labels != 3
    where = "on logits 2×5×9 with 3 of 10 labels padding (pad_id 3)"
    for smoothing in (0.0, 0.1, 0.4):
        targets = smoothed(labels[real], 9, smoothing, 3)
        want = F.cross_entropy(logits[real].double(), targets)
        got = call(fn, logits, labels, 3, smoothing)
        expect(got.shape == (), f"{where}: the loss is {size(got)}, wanted one number")
        suspects = loss_suspects(logits, labels, 3, smoothing)
        agree(got.double(), want, f"{where}, smoothing {smoothing}", suspects, 1e-5)
    logits.requires_grad_()
    call(fn, logits, labels, 3, 0.1).backward()
    leaks = f"{where}: a gradient flows from the logits of padding"
    expect(not logits.grad[~real].any(), leaks)
    targets = smoothed(labels[real], 9, 0.1, 3)
    want = (logits.detach()[real].softmax(-1).double() - targets) / real.sum()
    where = f"{where}: the gradient must be softmax minus label"
    agree(logits.grad[real].double(), want, where, None, 1e-5)
    large = call(fn, (80 * logits.detach()).half(), labels, 3, 0.1)
    overflow = "on float16 logits of some hundreds the loss is not finite: compute it in float32"
    expect(large.isfinite(), overflow)
    ignores_marked_labels(fn, logits.detach(), labels)


def ignores_marked_labels(fn: Callable, logits: Tensor, labels: Tensor) -> None:
    """Expect labels of -100 not to count; pad_id is 3."""
    marked = labels.masked_fill(labels == 2, -100)
    real = (labels != 3) & (labels != 2)
    want = F.cross_entropy(logits[real].double(), smoothed(labels[real], 9, 0.1, 3))
    cause = "a label of -100 is PyTorch's mark for a position that does not count"
    got = call(fn, logits, marked, 3, 0.1, hint=f"{cause[0].upper()}{cause[1:]}.")
    agree(got.double(), want, cause, None, 1e-5)


@check("linear to the peak, then the inverse square root, no warm-up allowed")
def check_schedule(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (step, warmup, peak) that gives the learning rate; steps count from 1."""
    cases = {
        1: (0.0001, "Steps count from 1: the first has the peak divided by warmup, never 0"),
        50: (0.005, "Warm-up is linear"),
        100: (0.01, "The peak is reached at step warmup"),
        400: (0.005, "It falls with the inverse square root: four times the steps, half the rate"),
        10_000: (
            0.001,
            "It falls with the inverse square root, neither exponentially nor linearly",
        ),
    }
    for step, (want, cause) in cases.items():
        rate = call(fn, step, 100, 0.01)
        found = f"with warmup=100 and peak=0.01, step {step} has the rate {rate:.3g}"
        expect(math.isclose(rate, want, rel_tol=1e-6), f"{found}, wanted {want:.3g}. {cause}")
    hint = "0 ** -1.5 is not a number: without warm-up the first step has the peak."
    first, fourth = (call(fn, step, 0, 0.01, hint=hint) for step in (1, 4))
    right = math.isclose(first, 0.01) and math.isclose(fourth, 0.005)
    expect(right, f"with warmup=0, steps 1 and 4: {first}, {fourth}")


@check(
    "one step is one step of Adam, batches add up to one, clipping, the running average, "
    "validation in eval mode, NaN stops"
)
def check_trainer(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(model, config) with step(*batches) and validate(batches).

    It has model, config, optimizer, steps and ema_model.
    """
    trainer_follows_adam(cls, device)
    trainer_accumulates(cls, device)
    trainer_clips(cls, device)
    trainer_averages(cls, device)
    trainer_validates(cls, device)
    trainer_stops_at_nan(cls, device)
