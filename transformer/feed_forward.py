# %% [markdown]
r"""
# 6 · Feed-forward

**Attention moves information between words. This block thinks about what arrived, at each word alone.**
"""

# %%
from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The definition


# %% tags=["exercise"]
class FeedForward(nn.Module):
    """Widen every vector to d_ff features, keep the positive ones, and come back to d_model.

    Source: Vaswani et al. 2017, equation 2.
    """

    def __init__(self, d_model: int, d_ff: int, activation: Callable[[Tensor], Tensor] = F.relu):
        super().__init__()
        self.w_1 = nn.Linear(d_model, d_ff)
        self.w_2 = nn.Linear(d_ff, d_model)
        self.activation = activation
        for linear in (self.w_1, self.w_2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.w_2(self.activation(self.w_1(x)))
