"""The mask is taken as an argument and never used."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "mask is ignored"


def wrong(q, k, mask=None):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
