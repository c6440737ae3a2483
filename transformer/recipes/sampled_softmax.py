"""A softmax over the labels of a step and some other tokens, drawn at random.

A softmax sums over the whole vocabulary, though few tokens are likely anywhere in a batch. Here the
sum is estimated. The tokens that are labels somewhere in the batch are always in it, and of the n
others a sample of k, each of which counts n / k times. The labels are the frequent words and have
most of the probability, so the estimate is close.

Source: Jean et al. 2015, "On Using Very Large Target Vocabulary for Neural Machine Translation",
section 3.1, which estimates the sum from labels and a sample.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from transformer.data import Batch
from transformer.fast_training import chunked_cross_entropy
from transformer.model import Transformer
from transformer.recipes.target_vocab import (
    Outputs,
    kept_outputs,
    may_be_written,
    states_of,
    target_loss,
)


def sampled_loss(model: Transformer, batch: Batch, smoothing: float, n_sampled: int) -> Tensor:
    """Return `target_loss` with a sampled softmax; in eval mode it is `target_loss`.

    Label smoothing is over all tokens that may be written: it needs the mean of their logits only,
    which is the logit of their mean row.
    """
    if not model.training:
        return target_loss(model, batch, smoothing)
    x = states_of(model, batch)
    part = sampled_outputs(model, batch, n_sampled)
    loss = chunked_cross_entropy(x, *part, smoothing)
    mean_x = x[part.labels != part.pad_id].mean(0)
    of_part = mean_logit(mean_x, part.weight, part.bias, torch.ones_like(part.bias), part.pad_id)
    kept = may_be_written(model).to(mean_x.dtype)
    of_all = mean_logit(mean_x, model.embedding.weight, model.bias, kept, model.config.pad_id)
    return loss + smoothing * (of_part - of_all)


def mean_logit(
    x: Float[Tensor, " d_model"],
    weight: Float[Tensor, "vocab d_model"],
    bias: Float[Tensor, " vocab"],
    kept: Float[Tensor, " vocab"],
    pad_id: int,
) -> Float[Tensor, ""]:
    """Return the mean of the logits of `x` over the tokens where `kept` is 1, without padding."""
    kept = kept.index_fill(0, torch.tensor(pad_id, device=x.device), 0.0)
    share = kept / kept.sum()
    return x @ (share @ weight) + share @ bias


def sampled_outputs(model: Transformer, batch: Batch, n_sampled: int) -> Outputs:
    """Return the part of the output layer for the labels of a batch and `n_sampled` other tokens.

    The sampled ones have the logarithm of what each counts in their bias. In eval mode, and if
    fewer tokens are left than are to be drawn, all are there.
    """
    kept = may_be_written(model)
    labels = rearrange(batch.labels, "b t -> (b t)")
    wanted = torch.zeros_like(kept)
    wanted[labels[labels != -100]] = True
    wanted[model.config.pad_id] = True
    others = (kept & ~wanted).nonzero().flatten()
    if not model.training or len(others) <= n_sampled:
        return kept_outputs(model, batch)
    drawn = others[torch.randperm(len(others), device=others.device)[:n_sampled]]
    wanted[drawn] = True
    log_weights = torch.zeros_like(model.bias)
    log_weights[drawn] = math.log(len(others) / n_sampled)
    return Outputs.of(model, batch, wanted & kept, log_weights)
