"""A boolean mask is added to the scores as if it held 0 and -∞: it only shifts them by 1."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "added to the scores as 0 and 1"


def wrong(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores + mask).softmax(-1)
