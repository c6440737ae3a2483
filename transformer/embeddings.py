# %% [markdown]
r"""
# 1 · Embeddings

**A network computes with numbers, a sentence is made of words. A table turns one into the other, and the table is learned.**
"""

# %%
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

# %% [markdown]
# ## The definition


# %% tags=["exercise"]
class TokenEmbedding(nn.Module):
    """Turn token ids into vectors: one learned row of the table for each id, times √d_model.

    The rows start with standard deviation 1/√d_model, so the product has unit variance. The same table read the other
    way round makes the logits (`Transformer.logits`), where rows of that size are what is wanted.
    Source: Vaswani et al. 2017, section 3.4.
    """

    def __init__(self, vocab_size: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model) / math.sqrt(d_model))

    def forward(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return the rows for `ids`, each in [0, vocab_size)."""
        return F.embedding(ids, self.weight) * math.sqrt(self.weight.shape[-1])
