# %% [markdown]
r"""
# 4 · Multi-head attention

**One attention is one opinion. Eight small ones look at eight things at once, for the price of one.**
"""

# %%
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from transformer.attention import attention, attention_weights

# %% [markdown]
# ## The definition


# %% tags=["exercise"]
class MultiHeadAttention(nn.Module):
    """Let every position of `x` attend to every position of `memory`, in n_heads subspaces at once.

    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model={d_model} must be a multiple of n_heads={n_heads}, and n_heads at least 1")
        self.n_heads, self.kernel = n_heads, attention
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        for linear in self.children():
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def split(self, x: Float[Tensor, "b t d_model"]) -> Float[Tensor, "b h t d"]:
        """Cut every vector into n_heads pieces of d_model / n_heads features."""
        return rearrange(x, "b t (h d) -> b h t d", h=self.n_heads)

    def keys_values(self, memory: Float[Tensor, "b k d_model"]) -> tuple[Tensor, Tensor]:
        """Return what `memory` offers and what it hands over, split into heads."""
        return self.split(self.w_k(memory)), self.split(self.w_v(memory))

    def attend(self, x: Float[Tensor, "b q d_model"], k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Ask keys and values that are split already; decoding keeps them from step to step."""
        heads = self.kernel(self.split(self.w_q(x)), k, v, mask)
        return self.w_o(rearrange(heads, "b h q d -> b q (h d)"))

    def forward(
        self, x: Float[Tensor, "b q d_model"], memory: Float[Tensor, "b k d_model"], mask: Tensor | None = None
    ) -> Float[Tensor, "b q d_model"]:
        """Return a new vector for each query position; `mask` broadcasts to b h q k, True = may attend."""
        return self.attend(x, *self.keys_values(memory), mask)


# %%
def head_weights(
    module: MultiHeadAttention,
    x: Float[Tensor, "b q d_model"],
    memory: Float[Tensor, "b k d_model"],
    mask: Bool[Tensor, "#b #h #q #k"] | None = None,
) -> Float[Tensor, "b h q k"]:
    """Return each head's mixing formula: which key each query looks at."""
    return attention_weights(module.split(module.w_q(x)), module.split(module.w_k(memory)), mask)
