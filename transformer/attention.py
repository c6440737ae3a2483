# %% [markdown]
r"""
# 3 · Attention

**A word learns what it means by asking the others. Here is the operation that lets it ask.**
"""

# %%
import math

import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

# %% [markdown]
# ## The definition


# %% tags=["exercise"]
def attention_weights(
    q: Float[Tensor, "... q d"],
    k: Float[Tensor, "... k d"],
    mask: Bool[Tensor, "... #q #k"] | None = None,
) -> Float[Tensor, "... q k"]:
    """Return how much each query attends to each key; every row sums to 1.

    Keys where `mask` is False get weight 0. A query that may attend to no key gets a row of zeros.
    Source: Vaswani et al. 2017, equation 1.
    """
    scores = einsum(q, k, "... q d, ... k d -> ... q k") / math.sqrt(q.shape[-1])
    if mask is None:
        return scores.softmax(-1)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    return weights.where(mask.any(-1, keepdim=True), 0.0)


# %%
def attention(
    q: Float[Tensor, "... q d"],
    k: Float[Tensor, "... k d"],
    v: Float[Tensor, "... k d_v"],
    mask: Bool[Tensor, "... #q #k"] | None = None,
) -> Float[Tensor, "... q d_v"]:
    """Return the values mixed by the attention weights, one row for each query.

    The fused kernel never stores the q × k weights. Source: Vaswani et al. 2017, equation 1.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
