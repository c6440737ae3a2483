"""The keys are mixed instead of the values, unnoticed where both come from one matrix."""

import torch.nn.functional as F

CHECK = "check_attention"
CAUGHT_BY = "keys are mixed"


def wrong(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, k, attn_mask=mask)
