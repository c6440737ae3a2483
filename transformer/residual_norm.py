# %% [markdown]
r"""
# 5 · Residual and norm

**A deep stack forgets its input and loses its gradients. A sum and a norm keep both.**
"""

# %%
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The definition


# %% tags=["exercise"]
def layer_norm(
    x: Float[Tensor, "... d"], gain: Float[Tensor, " d"], bias: Float[Tensor, " d"], eps: float = 1e-5
) -> Float[Tensor, "... d"]:
    """Return every vector moved to mean 0 and scaled to standard deviation 1, then times gain plus bias.

    The variance divides by d, not d - 1, and eps stands inside the root. Source: Ba et al. 2016, section 3.1.
    """
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * gain + bias


# %%
class LayerNorm(nn.Module):
    """`layer_norm` with a learned gain and bias, in one fused kernel."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return F.layer_norm(x, self.gain.shape, self.gain, self.bias, self.eps)


# %% tags=["exercise"]
class PostNorm(nn.Module):
    """Wrap a sublayer as the paper does: LayerNorm(x + Dropout(sublayer(x))). A stack of them needs no norm at its end.

    Source: Vaswani et al. 2017, sections 3.1 and 5.4.
    """

    final = nn.Identity

    def __init__(self, d_model: int, dropout: float = 0.0):
        super().__init__()
        self.norm = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], sublayer: Callable[[Tensor], Tensor]) -> Float[Tensor, "b t d"]:
        return self.norm(x + self.dropout(sublayer(x)))


# %%
class PreNorm(PostNorm):
    """Wrap a sublayer the later way: x + Dropout(sublayer(LayerNorm(x))). A stack of them ends with one more norm.

    Source: Xiong et al. 2020, figure 1.
    """

    final = LayerNorm

    def forward(self, x: Float[Tensor, "b t d"], sublayer: Callable[[Tensor], Tensor]) -> Float[Tensor, "b t d"]:
        return x + self.dropout(sublayer(self.norm(x)))
