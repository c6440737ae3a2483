"""Checks before anything is timed; each raises an AssertionError that says what it found."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.adapters import System
from benchmarks.adapters.base import SPECIAL
from benchmarks.work import BEAM_SIZE, STEPS, VOCABULARY
from transformer.data import BOS, PAD, Batch

SENTENCES = 8
TRAINING_STEPS = 8


def check_parameters(name: str, parameters: int, ours: int) -> None:
    """Check that a model has as many parameters as ours, to 1 %."""
    assert abs(parameters / ours - 1) <= 0.01, (
        f"{name} has {parameters:,} parameters, ours has {ours:,}"
    )


def check_training(system: System, batches: Sequence[Batch]) -> None:
    """Check that a few steps on a small batch start near the loss of a fair guess and lower it."""
    small = Batch(batches[0].src[:SENTENCES], batches[0].tgt[:SENTENCES])
    losses = [float(system.train_step(small)) for _ in range(TRAINING_STEPS)]
    assert all(map(math.isfinite, losses)), f"losses {losses}"
    fair = math.log(VOCABULARY)
    assert abs(losses[0] - fair) < 1.5, (
        f"the first loss is {losses[0]:.2f}, a fair guess has {fair:.2f}"
    )
    assert losses[-1] < losses[0] - 0.1, (
        f"{TRAINING_STEPS} steps on one batch: from {losses[0]:.2f} to {losses[-1]:.2f}"
    )


def check_decoding(system: System, work: str, sources: Sequence[Tensor], dtype: str) -> None:
    """Check that a search writes STEPS tokens for every source, and that they are right.

    The reference is the model itself, in one pass and without a cache: each greedy token must have
    the highest logit after those before it, and beam search must find what a plain one finds, or
    something as probable.
    """
    count = SENTENCES if work != "beam5" else SENTENCES // 2
    ends = [real_part(sources[0][:count]), real_part(sources[-1][-count:])]
    if work == "beam5":
        found = repeatable(ends, lambda: system.beam(ends, STEPS, BEAM_SIZE))
        missed = max(
            float((best_log_prob(system, src) - log_prob(system, src, ids)).mean())
            for src, ids in zip(ends, found)
        )
        slack = 5 * system.tolerance[dtype]
        assert missed <= slack, (
            f"what was found has a log-probability {missed:.3f} below that of plain beam search"
        )
    else:
        found = repeatable(ends, lambda: system.greedy(ends, STEPS))
        missed = max(float(gaps(system, src, ids).max()) for src, ids in zip(ends, found))
        assert missed <= system.tolerance[dtype], (
            f"a token was chosen whose logit is {missed:.3f} below the best"
        )


def real_part(src: Tensor) -> Tensor:
    """Return sources without the columns that are padding in all rows."""
    return src[:, : int((src != PAD).sum(1).max())]


def repeatable(sources: Sequence[Tensor], search: Callable[[], list[Tensor]]) -> list[Tensor]:
    """Return what a search finds.

    It must have the right shape and no special token, and a second search must find it again.
    """
    found = search()
    for src, ids, again in zip(sources, found, search(), strict=True):
        assert ids.shape == (len(src), STEPS), (
            f"{tuple(ids.shape)} for {len(src)} sources and {STEPS} steps"
        )
        assert not torch.isin(ids.cpu(), torch.tensor(SPECIAL)).any(), "a special token was written"
        assert torch.equal(ids, again), "the same search found something else"
    return [ids.to(src.device) for src, ids in zip(sources, found)]


@torch.no_grad()
def scores(system: System, src: Tensor, ids: Tensor) -> Tensor:
    """Return the logits before each token of a translation and after the last one.

    Those of special tokens are -inf.
    """
    logits = system.logits(src, torch.cat([ids.new_full((len(ids), 1), BOS), ids], dim=1)).float()
    logits[..., SPECIAL] = -torch.inf
    return logits


def gaps(system: System, src: Tensor, ids: Tensor) -> Tensor:
    """Return for each token how far its logit lies below the best one."""
    logits = scores(system, src, ids)[:, :-1]
    return logits.amax(-1) - logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def log_prob(system: System, src: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probability of each translation."""
    log_probs = scores(system, src, ids)[:, :-1].log_softmax(-1)
    return log_probs.gather(-1, ids.unsqueeze(-1)).flatten(1).sum(1)


def best_log_prob(system: System, src: Tensor) -> Tensor:
    """Return the log-probability of what a plain beam search finds, which reads whole prefixes."""
    b = len(src)
    n = BEAM_SIZE
    rows = src.repeat_interleave(n, 0)
    ids = src.new_empty((b * n, 0))
    totals = torch.tensor([0.0] + [-torch.inf] * (n - 1), device=src.device).repeat(b)
    for _ in range(STEPS):
        log_probs = scores(system, rows, ids)[:, -1].log_softmax(-1)
        totals, best = (totals.unsqueeze(-1) + log_probs).view(b, -1).topk(n)
        parents = best // VOCABULARY + n * torch.arange(b, device=src.device).unsqueeze(-1)
        ids = torch.cat([ids[parents.flatten()], (best % VOCABULARY).view(-1, 1)], dim=1)
        totals = totals.flatten()
    return totals.view(b, n)[:, 0]
