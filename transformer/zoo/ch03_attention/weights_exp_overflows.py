"""The softmax is exp / sum without subtracting the maximum: large scores give NaN."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "exp overflows"


def wrong(q, k, mask=None):
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).exp()
    weights = scores if mask is None else scores * mask
    return weights / weights.sum(-1, keepdim=True).clamp(
        min=1e-30 if q.dtype.itemsize > 2 else 1e-6
    )
