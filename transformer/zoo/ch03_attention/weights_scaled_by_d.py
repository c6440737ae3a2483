"""The scores are divided by d instead of √d: every row comes out nearly uniform."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "divided by d: the divisor is √d"


def wrong(q, k, mask=None):
    scores = q @ k.mT / q.shape[-1]
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)
