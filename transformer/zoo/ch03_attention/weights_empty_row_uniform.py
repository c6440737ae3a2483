"""With -1e9 for -∞, a query that may attend to nothing attends to every key equally."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "With -1e9 .* every key gets the same weight"


def wrong(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -1e9)).softmax(-1)
