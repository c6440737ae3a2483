# %% [markdown]
r"""
# 7 · Encoder

**Two sublayers, six times: every word of the source comes out knowing the whole sentence.**
"""

# %%
from jaxtyping import Bool, Float
from torch import Tensor, nn

from transformer.feed_forward import FeedForward
from transformer.multi_head import MultiHeadAttention
from transformer.residual_norm import PostNorm

# %% [markdown]
# ## The definition


# %% tags=["exercise"]
class EncoderLayer(nn.Module):
    """Look at the whole sentence, then think about it: self-attention and feed-forward, each with its residual.

    `residual` is `PostNorm` or `PreNorm`. Source: Vaswani et al. 2017, section 3.1.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0, residual: type = PostNorm):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.residuals = nn.ModuleList(residual(d_model, dropout) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "#b #h #q #k"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return `x` refined; `mask` says which positions may be looked at."""
        attend, think = self.residuals
        x = attend(x, lambda y: self.self_attention(y, y, mask))
        return think(x, self.feed_forward)


# %%
class Encoder(nn.Module):
    """A stack of n_layers encoder layers: the same shape in and out."""

    def __init__(
        self, n_layers: int, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0, residual: type = PostNorm
    ):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(d_model, n_heads, d_ff, dropout, residual) for _ in range(n_layers))
        self.norm = residual.final(d_model)

    def forward(
        self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "#b #h #q #k"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return the memory: what the decoder will ask."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)
