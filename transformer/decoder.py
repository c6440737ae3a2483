# %% [markdown]
r"""
# 8 · Decoder with masking

**It writes one word after the other, but learns all of them at once: a mask hides what is still to come.**
"""

# %%
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.feed_forward import FeedForward
from transformer.multi_head import MultiHeadAttention
from transformer.residual_norm import PostNorm

# %% [markdown]
# ## The definition


# %% tags=["exercise"]
def causal_mask(t: int, device: torch.device | None = None) -> Bool[Tensor, "q k"]:
    """Return the mask that lets position q look at itself and the past: True where k ≤ q.

    Source: Vaswani et al. 2017, section 3.2.3.
    """
    return torch.ones(t, t, dtype=torch.bool, device=device).tril()


# %%
def padding_mask(ids: Int[Tensor, "b t"], pad_id: int) -> Bool[Tensor, "b 1 1 t"]:
    """Return the mask that hides padding from everybody: it speaks of keys, so it varies along the last axis."""
    return rearrange(ids != pad_id, "b t -> b 1 1 t")


# %% tags=["exercise"]
class DecoderLayer(nn.Module):
    """Look back at what is written, ask the source, then think: three sublayers, each with its residual.

    Source: Vaswani et al. 2017, section 3.1.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0, residual: type = PostNorm):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.residuals = nn.ModuleList(residual(d_model, dropout) for _ in range(3))

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        memory: Float[Tensor, "b k d"],
        tgt_mask: Bool[Tensor, "#b #h #t #t"] | None = None,
        src_mask: Bool[Tensor, "#b #h #t #k"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Return `x` refined; `tgt_mask` is for looking back, `src_mask` for asking the source."""
        look_back, ask, think = self.residuals
        x = look_back(x, lambda y: self.self_attention(y, y, tgt_mask))
        x = ask(x, lambda y: self.cross_attention(y, memory, src_mask))
        return think(x, self.feed_forward)


# %%
class Decoder(nn.Module):
    """A stack of n_layers decoder layers, all of which ask the same memory."""

    def __init__(
        self, n_layers: int, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0, residual: type = PostNorm
    ):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(d_model, n_heads, d_ff, dropout, residual) for _ in range(n_layers))
        self.norm = residual.final(d_model)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        memory: Float[Tensor, "b k d"],
        tgt_mask: Bool[Tensor, "#b #h #t #t"] | None = None,
        src_mask: Bool[Tensor, "#b #h #t #k"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Return one vector for each target position, from which the next token can be told."""
        for layer in self.layers:
            x = layer(x, memory, tgt_mask, src_mask)
        return self.norm(x)
