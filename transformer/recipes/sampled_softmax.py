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

from transformer.data import Batch
from transformer.model import Transformer
from transformer.recipes.target_vocab import Outputs, kept_outputs, may_be_written


def sampled_outputs(model: Transformer, batch: Batch, n_sampled: int) -> Outputs:
    """Return the part of the output layer for the labels of a batch and `n_sampled` other tokens.

    The sampled ones have the logarithm of what each counts in their bias. In eval mode, and if
    fewer tokens are left than are to be drawn, all are there. Label smoothing is spread over the
    tokens that are there, which gives the labels more of it than the rest.
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
    counted = torch.zeros_like(model.bias)
    counted[drawn] = math.log(len(others) / n_sampled)
    return Outputs.of(model, batch, wanted & kept, counted)
