"""A softmax over nothing but -∞ is NaN: one empty row ruins a whole training run."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "softmax over nothing but -∞ is NaN"


def wrong(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)
