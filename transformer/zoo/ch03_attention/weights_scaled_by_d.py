"""The scores are divided by d_head instead of √d_head: every row comes out nearly uniform."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "divided by d_head: the divisor is √d_head"


def wrong(q, k, mask=None):
    scores = q @ k.mT / q.shape[-1]
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)
