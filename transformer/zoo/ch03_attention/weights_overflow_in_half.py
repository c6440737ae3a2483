"""-1e9 does not fit into float16: the first run in half precision ends in an error."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "-1e9 does not fit into float16"


def wrong(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if mask is None:
        return scores.softmax(-1)
    return scores.masked_fill(~mask, -1e9).softmax(-1).where(mask.any(-1, keepdim=True), 0.0)
