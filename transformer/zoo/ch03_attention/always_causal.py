"""`is_causal=True` is left on from the decoder's example: the encoder sees only the past."""

import torch.nn.functional as F

CHECK = "check_attention"
CAUGHT_BY = "on q 2×5×4 .* off by"


def wrong(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)
