"""The softmax runs over the queries, from a `dim=1` in an example without a batch."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "softmax runs over the queries"


def wrong(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-2)
