"""The `== 0` of `masked_fill(mask == 0, …)` is forgotten: rows see only the future."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "mask is inverted"


def wrong(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (
        (scores if mask is None else scores.masked_fill(mask, -math.inf)).softmax(-1).nan_to_num()
    )
