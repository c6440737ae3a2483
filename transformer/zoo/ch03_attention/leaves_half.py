"""Everything is computed in float32 and stays there: half precision is lost."""

import torch.nn.functional as F

CHECK = "check_attention"
CAUGHT_BY = "dtype must be kept"


def wrong(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
