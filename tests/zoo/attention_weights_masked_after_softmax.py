"""The mask is applied after the softmax: the hidden keys have taken their share, and the row no longer sums to 1."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "set to 0 after the softmax"


def wrong(q, k, mask=None):
    weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    return weights if mask is None else weights * mask
