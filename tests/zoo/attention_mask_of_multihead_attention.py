"""`nn.MultiheadAttention` hides where a mask is True, functional attention shows there: one is taken for the other."""

import torch.nn.functional as F

CHECK = "check_attention"
CAUGHT_BY = "mask is inverted"


def wrong(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else ~mask)
