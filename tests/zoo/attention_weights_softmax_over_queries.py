"""The softmax runs over the queries: `dim=-2`, or a `dim=1` copied from an example without a batch."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "softmax runs over the queries"


def wrong(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-2)
