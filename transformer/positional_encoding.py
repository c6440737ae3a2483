# %% [markdown]
r"""
# 2 · Positional encoding

**Attention sees a bag of words. Waves of many lengths, added to the words, tell it which came where.**
"""

# %%
import math

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The definition


# %% tags=["exercise"]
def sinusoidal_positions(n_positions: int, d_model: int) -> Float[Tensor, "t d"]:
    """Return one row of sines and cosines for each position: sine at even features, cosine at odd ones.

    Wavelengths grow from 2π to 10000·2π positions. Any width is allowed: an odd one ends with a sine.
    Source: Vaswani et al. 2017, section 3.5.
    """
    even = torch.arange(0, d_model, 2, dtype=torch.float64)
    frequency = torch.exp(-math.log(10_000) * even / d_model)
    angle = einsum(torch.arange(n_positions, dtype=torch.float64), frequency, "t, d -> t d")
    table = torch.empty(n_positions, d_model)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : d_model // 2]
    return table


# %%
class PositionalEncoding(nn.Module):
    """Add to each vector the encoding of its position; the shape stays the same.

    The table is a buffer: it moves with the model from device to device, and is computed, never learned or saved.
    """

    def __init__(self, d_model: int, max_len: int):
        super().__init__()
        self.register_buffer("table", sinusoidal_positions(max_len, d_model), persistent=False)

    def forward(self, x: Float[Tensor, "b t d"], start: int = 0) -> Float[Tensor, "b t d"]:
        """Return `x` plus positions start, start + 1, …; ValueError if they go beyond the table."""
        stop = start + x.shape[1]
        if stop > len(self.table):
            raise ValueError(f"a sentence of {stop} tokens is longer than max_len={len(self.table)}")
        return x + self.table[start:stop]
