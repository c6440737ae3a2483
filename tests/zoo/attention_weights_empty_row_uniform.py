"""With -1e9 in place of -∞ a query that may attend to nothing attends to everything, equally."""

import math

CHECK = "check_attention_weights"
CAUGHT_BY = "With -1e9 .* all keys come out equal"


def wrong(q, k, mask=None):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -1e9)).softmax(-1)
