"""Small models, ids and masks to check with, and searches by hand to compare with.

Sizes are small and different from one another, so that swapped axes fail.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor

from transformer.checks.harness import call, shaken
from transformer.model import Config, Transformer

SIZES = dict(d_model=12, n_heads=3, d_ff=20)

SRC = [[5, 7, 3, 9, 4, 2], [6, 8, 5, 2, 0, 0]]
TGT = [[1, 4, 10, 6, 7], [1, 9, 3, 0, 0]]

# Seeds whose decoding models give different translations of different lengths.
LIVELY = (0, 30)
TREES = (34, 4)


def padded_pair(t: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return vectors b t d_model and which positions b t are real.

    The second sentence is 2 shorter.
    """
    real = torch.arange(t) < torch.tensor([t, t - 2]).unsqueeze(-1)
    return torch.randn(2, t, SIZES["d_model"]).to(device), real.to(device)


def keys(real: Tensor) -> Tensor:
    """Return the mask b 1 1 k that hides what is not real."""
    return rearrange(real, "b k -> b 1 1 k")


def only_past(t: int, device: torch.device | str) -> Tensor:
    """Return the causal mask 1 1 t t."""
    return torch.ones(1, 1, t, t, dtype=torch.bool, device=device).tril()


def small_model(
    cls: type = Transformer, device: torch.device | str = "cpu", **changes
) -> Transformer:
    """Return a model of a few thousand parameters whose predictions are far from uniform."""
    sizes = dict(vocab_size=11, n_layers=2, dropout=0.0, max_len=16) | SIZES | changes
    model = call(cls, Config(**sizes))
    shaken(model, device)
    return model


def decoding_model(
    device: torch.device | str, vocab_size: int = 9, seed: int = LIVELY[0], norm: str = "post"
) -> Transformer:
    """Return a model for search, with different translations and a dropout to be switched off."""
    torch.default_generator.manual_seed(seed)
    model = small_model(vocab_size=vocab_size, dropout=0.5, max_len=24, norm=norm)
    last = model.decoder.layers[-1]
    final_norm = last.residuals[-1].norm if norm == "post" else model.decoder.norm
    some = torch.randint(3, vocab_size, (2, 50, 6))
    with torch.no_grad():
        model.positions.table.mul_(2)
        last.feed_forward.w_2.weight.mul_(8)
        final_norm.gain.normal_(std=2)
        model.bias.sub_(model(*some).mean((0, 1)))
        model.bias[model.config.eos_id] += 0.3
    return model.to(device)


def sources(vocab_size: int, device: torch.device | str) -> Tensor:
    """Return four source sentences of different lengths, padded."""
    ids = torch.randint(3, vocab_size, (4, 6))
    for row, length in enumerate((6, 4, 3, 1)):
        ids[row, length - 1] = 2
        ids[row, length:] = 0
    return ids.to(device)


def greedy_by_hand(model: Transformer, src: Tensor, max_len: int) -> Tensor:
    """Return greedy translations b t, running the whole model again for each token."""
    config = model.config
    tgt = src.new_full((len(src), 1), config.bos_id)
    done = torch.zeros_like(tgt[:, 0], dtype=torch.bool)
    with torch.no_grad():
        while tgt.shape[1] <= max_len and not done.all():
            logits = model.eval()(src, tgt)[:, -1]
            logits[:, [config.pad_id, config.bos_id]] = -math.inf
            ids = logits.argmax(-1).masked_fill(done, config.pad_id)
            tgt = torch.cat([tgt, ids.unsqueeze(-1)], dim=1)
            done = done | (ids == config.eos_id)
    return tgt[:, 1:]


def log_probs_of(model: Transformer, src: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probability of every translation, and the sum of its logits."""
    config = model.config
    tgt = torch.cat([torch.full_like(ids[:, :1], config.bos_id), ids], dim=1)[:, :-1]
    with torch.no_grad():
        logits = model.eval()(src, tgt)
    padding = ids == config.pad_id

    def total(scores: Tensor) -> Tensor:
        chosen = scores.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        return chosen.masked_fill(padding, 0.0).sum(-1)

    return total(logits.log_softmax(-1)), total(logits)


def every_sequence(words: Sequence[int], eos: int, max_len: int) -> list[list[int]]:
    """Return all translations of at most max_len tokens: those ended by </s>, and those cut off."""
    bodies = [list(body) for n in range(max_len) for body in itertools.product(words, repeat=n)]
    cut_off = [list(body) for body in itertools.product(words, repeat=max_len)]
    return [[*body, eos] for body in bodies] + cut_off


def best_of_all(model: Transformer, src: Tensor, max_len: int, penalty: float) -> list[list[int]]:
    """Return the best translation of each sentence, found by trying all."""
    config = model.config
    special = (config.pad_id, config.bos_id, config.eos_id)
    words = [i for i in range(config.vocab_size) if i not in special]
    rows = every_sequence(words, config.eos_id, max_len)
    padded = [row + [config.pad_id] * (max_len - len(row)) for row in rows]
    ids = torch.tensor(padded, device=src.device)
    lengths = (ids != config.pad_id).sum(-1)
    best = []
    for sentence in src:
        log_probs, _ = log_probs_of(model, repeat(sentence, "k -> c k", c=len(ids)), ids)
        best.append(rows[int((log_probs / lengths**penalty).argmax())])
    return best
