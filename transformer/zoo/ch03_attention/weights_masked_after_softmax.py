"""The mask is applied after the softmax, so the rows no longer sum to 1."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "set to 0 after the softmax"


def wrong(q, k, mask=None):
    weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    return weights if mask is None else weights * mask
