"""The scores are not divided by √d_head: at d_head = 512 the softmax saturates."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "not scaled: divide by √d_head"


def wrong(q, k, mask=None):
    scores = q @ k.mT
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)
