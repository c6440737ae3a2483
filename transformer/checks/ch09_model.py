"""Checks of chapter 9: the whole model."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.checks.fixtures import SRC, TGT, keys, only_past, small_model
from transformer.checks.harness import (
    Suspects,
    agree,
    call,
    check,
    drops_in_training_only,
    reaches_every_parameter,
    refuses,
    sees_no_future,
    size,
)
from transformer.checks.twins import embedded, torch_logits
from transformer.model import NORMS, Transformer


def logits_suspects(model: Transformer, src: Tensor, tgt: Tensor) -> Suspects:
    """Return the usual mistakes of a whole model."""
    want = torch_logits(model, src, tgt)
    scale = math.sqrt(model.config.d_model)
    pad_id = model.config.pad_id
    src_mask = keys(src != pad_id)
    tgt_mask = only_past(tgt.shape[1], tgt.device) & keys(tgt != pad_id)

    def from_vectors(source: Tensor, target: Tensor) -> Tensor:
        memory = model.encoder(source, src_mask)
        return model.logits(model.decoder(target, memory, tgt_mask, src_mask))

    bare_src, bare_tgt = (model.embedding.weight[ids] * scale for ids in (src, tgt))
    full_src, full_tgt = (embedded(model, ids) for ids in (src, tgt))
    unmasked = "Cross-attention sees the source's padding: it needs the source's padding mask."
    softmax = "It gives probabilities: it must give the logits, before any softmax."
    log_softmax = "It gives log-probabilities: it must give the logits, before any softmax."
    bags = "There are no positions: the model sees bags of words."
    return {
        unmasked: lambda: torch_logits(model, src, tgt, hide_source=False),
        "The logits are divided by √d_model.": lambda: want / scale,
        softmax: lambda: want.softmax(-1),
        log_softmax: lambda: want.log_softmax(-1),
        "The source gets no positions.": lambda: from_vectors(bare_src, full_tgt),
        "The target gets no positions.": lambda: from_vectors(full_src, bare_tgt),
        bags: lambda: from_vectors(bare_src, bare_tgt),
    }


@check(
    "equal to PyTorch in both norm placements, sees no future, padding, batch, tied table, "
    "gradient, refusals"
)
def check_model(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made from a Config, called with src b k and tgt b t.

    It gives logits b t vocab.
    """
    src = torch.tensor(SRC, device=device)
    tgt = torch.tensor(TGT, device=device)
    for norm in NORMS:
        model = small_model(cls, device, norm=norm)
        model_is_causal(model, src, tgt.clamp(min=1))
        logits_are_tied(model)
        where = f"in {norm}-norm, on src {size(src)} and tgt {size(tgt)}, both padded"
        suspects = logits_suspects(model, src, tgt)
        agree(call(model, src, tgt), torch_logits(model, src, tgt), where, suspects, 2e-5)
        reaches_every_parameter(model, call(model, src, tgt))
    model_keeps_sentences_apart(model, src, tgt)
    model_refuses(model, src, tgt)


def model_is_causal(model: Transformer, src: Tensor, tgt: Tensor) -> None:
    """Expect the logits to see no future token, in train and in eval mode."""
    vocab_size = model.config.vocab_size

    def run(ids: Tensor) -> Tensor:
        return call(model, src, ids)

    def change(ids: Tensor) -> Tensor:
        return (ids + 3) % vocab_size

    for mode in ("train", "eval"):
        model.train(mode == "train")
        sees_no_future(run, tgt, change, f"2×5 in {mode}()")


def logits_are_tied(model: Transformer) -> None:
    """Expect the logits to come from the table of the embedding."""
    weight = model.embedding.weight
    x = torch.randn(2, 5, weight.shape[1]).to(weight)
    tied = F.linear(x, weight, model.bias)
    suspects = {
        "They are divided by √d_model.": lambda: tied / math.sqrt(weight.shape[1]),
        "They went through a softmax.": lambda: tied.softmax(-1),
        "They went through a log-softmax.": lambda: tied.log_softmax(-1),
    }
    where = "logits(x) must be x Eᵀ + b with E the embedding's table, tied"
    agree(call(model.logits, x), tied, where, suspects)


def model_keeps_sentences_apart(model: Transformer, src: Tensor, tgt: Tensor) -> None:
    """Expect the same logits alone and padded in a batch, and dropout as configured."""
    alone = call(model, src[1:, :4], tgt[1:, :3])
    where = "a sentence alone and padded in a batch of 2 gets different logits"
    agree(call(model, src, tgt)[1:, :3], alone, where)
    noisy = small_model(type(model), src.device, dropout=0.5)
    drops_in_training_only(noisy, src, tgt)


def model_refuses(model: Transformer, src: Tensor, tgt: Tensor) -> None:
    """Expect a ValueError for ids outside the vocabulary and for sentences over max_len."""
    refuses(model, src + 8, tgt, what="a source with id 17 in a vocabulary of 11")
    refuses(model, src, tgt - 2, what="a target with id -2")
    long = torch.full((1, 17), 5, device=src.device)
    refuses(model, long, tgt[:1], what="a source of 17 tokens with max_len=16")
