"""True hides in `nn.MultiheadAttention`, and shows in functional attention."""

import torch.nn.functional as F

CHECK = "check_attention"
CAUGHT_BY = "mask is inverted"


def wrong(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else ~mask)
