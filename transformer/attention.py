# %% [markdown]
r"""
# 3 · Attention

**What a word means depends on the words around it. Attention is the operation that lets a word
look at them.**

![The architecture; the scaled dot-product inside its three attention blocks is lit](../figures/architecture_03.svg)
"""

# %%
import math

import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

# %% [markdown]
# ## The question
#
# After chapters 1 and 2 a sentence is a matrix, one row for each word. A row holds its word and its
# position, and nothing about its neighbours: *mat* has the same row in *on the mat* and in *a yoga
# mat*.
#
# What happens if every word simply takes the mean of all words?

# %% tags=["active-ipynb"]
# import torch
#
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
#
# words = "there is a cat on the mat".split()
# x = torch.randn(7, 16)
#
# mean = x.mean(0).expand_as(x)
# print("different rows before:", len(x.unique(dim=0)), "· after:", len(mean.unique(dim=0)))

# %% [markdown]
# Seven different rows went in, and the same row came out seven times. A plain mean does not depend
# on **which word is looking**, but *cat* and *on* need different things from the same sentence.
# Each word should choose its own weights.

# %% [markdown]
# ## By hand
#
# Give every word three roles:
#
# - its **query** says what it looks for,
# - its **key** says what it offers,
# - its **value** is what it hands over.
#
# All three are copies of the same row; chapter 4 will multiply each copy by a learned matrix. A
# query and a key that point the same way have a large dot product. Take three words with two
# features:

# %% tags=["active-ipynb"]
# q = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
# k = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
# v = torch.tensor([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])
#
# scores = q @ k.T
# scores

# %% [markdown]
# The scores have one row for each query and one column for each key. Query 0 agrees with key 0 and
# with no other. Softmax turns each row into a **mixing formula**, positive numbers that sum to 1.
# In row 0 it compares $e^2 = 7.39$ with $1$ and $1$, so the weights are $7.39 / 9.39 = 0.79$ and
# twice $0.11$.

# %% tags=["active-ipynb"]
# weights = scores.softmax(-1)
# print(weights)
# print(weights @ v)

# %% [markdown]
# The first word looked for what key 0 offers and got mostly value 0:
# $0.79 \cdot 10 + 0.11 \cdot 5 = 8.4$. The third looked for both and got an even mix. Check a
# number or two on paper: attention computes nothing more than this.

# %% [markdown]
# ## The definition
#
# For queries $Q$, keys $K$ and values $V$ whose rows have $d$ features,
#
# $$\operatorname{Attention}(Q, K, V)
# = \operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{d}}\right) V$$
#
# ![Queries meet keys in a table of scores, softmax makes each row a mixing formula, and the values are mixed](../figures/03_attention.svg)

# %% [markdown]
# The factor in front of $V$ gets a function of its own, because the weights are what we will plot.
# A mask says which keys a query may use: `True` means *may attend*.


# %% tags=["exercise"]
def attention_weights(
    q: Float[Tensor, "... q d_head"],
    k: Float[Tensor, "... k d_head"],
    mask: Bool[Tensor, "... #q #k"] | None = None,
) -> Float[Tensor, "... q k"]:
    """Return the attention weights, how much each query attends to each key; every row sums to 1.

    Keys where `mask` is False get weight 0. A query that may attend to no key gets a row of zeros.
    Source: Vaswani et al. 2017, equation 1.
    """
    scores = einsum(q, k, "... q d_head, ... k d_head -> ... q k") / math.sqrt(q.shape[-1])
    if mask is None:
        return scores.softmax(-1)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    return weights.where(mask.any(-1, keepdim=True), 0.0)


# %% [markdown]
# Mixing the values is one more product. PyTorch computes both steps in one fused kernel that never
# stores the $q \times k$ weights. The library uses this kernel, and below we prove that it is the
# same function.


# %%
def attention(
    q: Float[Tensor, "... q d_head"],
    k: Float[Tensor, "... k d_head"],
    v: Float[Tensor, "... k d_v"],
    mask: Bool[Tensor, "... #q #k"] | None = None,
) -> Float[Tensor, "... q d_v"]:
    """Return the values mixed by the attention weights, one row for each query.

    The mask means the same as in `attention_weights`. The fused kernel never stores the q × k
    weights. Source: Vaswani et al. 2017, equation 1.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


# %% [markdown]
# ## The proof
#
# A batch of 2 with 8 heads, 5 queries, 7 keys and 64 features each, and a mask that hides some keys
# at random:

# %% tags=["active-ipynb"]
# q = torch.randn(2, 8, 5, 64)
# k = torch.randn(2, 8, 7, 64)
# v = torch.randn(2, 8, 7, 64)
# mask = torch.rand(2, 1, 5, 7) < 0.7
#
# by_hand = einsum(attention_weights(q, k, mask), v, "b h q k, b h k d -> b h q d")
# torch.testing.assert_close(attention(q, k, v, mask), by_hand)
# print("q", *q.shape, "· k", *k.shape, "· v", *v.shape, "→", *by_hand.shape)

# %% [markdown]
# The result has one row for each **query**, whatever the number of keys. Chapter 8 relies on this:
# there the queries come from the decoder and the keys from the encoder.

# %% [markdown]
# ### Why divide by $\sqrt{d}$?
#
# If the features of $q$ and $k$ are independent with variance 1, their dot product is a sum of $d$
# terms of variance 1. Its variance is $d$ and its standard deviation $\sqrt{d}$; at $d = 512$ that
# is 22.6. Before you run the cell: what will softmax make of such scores?

# %% tags=["active-ipynb"]
# for d in (4, 64, 512):
#     q = torch.randn(1000, d)
#     k = torch.randn(8, d)
#     for name, scale in (("raw", 1.0), ("scaled", math.sqrt(d))):
#         scores = (q @ k.T / scale).requires_grad_()
#         largest = scores.softmax(-1).amax(-1)
#         largest.sum().backward()
#         print(
#             f"{d=:<4} {name:7} variance {scores.var().item():5.0f}   largest weight "
#             f"{largest.mean().item():.1f}   gradient {scores.grad.abs().mean().item():.2f}"
#         )

# %% [markdown]
# Without the scale, softmax is almost **binary** at $d = 512$: one key gets nearly all of the
# weight. Almost no gradient flows back, so training could hardly change that choice. With the
# scale, the variance is 1 and the numbers are the same at every width.

# %% [markdown]
# ### Three properties
#
# **It ignores order.** Shuffle the keys together with their values, and nothing changes. Shuffle
# the queries, and the results are shuffled in the same way. Attention is *permutation-equivariant*;
# this is why chapter 2 had to add positions first.

# %% tags=["active-ipynb"]
# q, k, v = torch.randn(3, 6, 16).unbind()
# shuffled = torch.tensor([3, 0, 5, 1, 4, 2])
#
# torch.testing.assert_close(attention(q, k[shuffled], v[shuffled]), attention(q, k, v))
# torch.testing.assert_close(attention(q[shuffled], k, v), attention(q, k, v)[shuffled])

# %% [markdown]
# **It has no parameters.** Everything it needs is passed in. The model learns the matrices that
# make $q$, $k$ and $v$.
#
# **$-\infty$ switches an interaction off.** $e^{-\infty} = 0$: a masked key gets a weight of
# exactly 0, whatever it offers, and the rest of the row still sums to 1. Here are four equal words,
# each of which may attend to itself and to earlier words:

# %% tags=["active-ipynb"]
# alike = torch.zeros(4, 8)
# causal = torch.ones(4, 4, dtype=torch.bool).tril()
# attention_weights(alike, alike, causal)

# %% [markdown]
# Read it by rows: a row is a query, a column is a key. Most mask bugs confuse these two, or the
# meaning of `True`.
#
# What about a query that may attend to nothing? A plain softmax computes $0/0$, and one `nan` in a
# batch ruins a training run. Our function returns zeros, and so does PyTorch's kernel:

# %% tags=["active-ipynb"]
# nothing = torch.zeros(1, 4, dtype=torch.bool)
# print(scores[:1, :4].masked_fill(~nothing, -math.inf).softmax(-1))
# print(attention_weights(alike[:1], alike, nothing))
# print(attention(alike[:1], alike, alike + 1, nothing))

# %% [markdown]
# ### The check
#
# `check_attention` looks for mistakes that are made in practice: an inverted mask, a mask on the
# wrong axis, a missing scale, softmax over the wrong axis, `nan` rows, wrong results in half
# precision. Pass it a function of your own, and it reports what it found.

# %% tags=["active-ipynb"]
# from transformer.checks import check_attention, check_attention_weights
#
# check_attention_weights(attention_weights)
# check_attention(attention)

# %% [markdown]
# ## The look
#
# *There is a cat on the mat*: which word attends to which? With random rows the map has no meaning
# yet, but its form is already right. Every row is a mixing formula, and the diagonal is dark,
# because each word agrees most with itself.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_attention
#
# plot_attention(attention_weights(x, x), words, words, "Seven random vectors attend to each other")

# %% [markdown]
# Now give the words two features with a meaning, *thing* and *place*, and choose what each word
# looks for. Articles and prepositions look for things, things look for places. Nothing is learned
# here, but the map can be read.

# %% tags=["active-ipynb"]
# offers = torch.tensor([[0.0, 0], [0, 0], [0, 0], [1, 0], [0, 1], [0, 0], [1, 1]])
# seeks = torch.tensor([[0.0, 1], [1, 0], [1, 0], [0, 1], [1, 0], [1, 0], [0, 1]])
#
# weights = attention_weights(5 * seeks, offers)
# plot_attention(weights, words, words, "Which word (row) attends to which (column)")

# %% [markdown]
# In chapter 12 the same picture comes from a trained model, whose features are learned and have no
# names.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $\operatorname{softmax}(QK^\top/\sqrt{d_k})\,V$ (equation 1) | the same, in one fused kernel | the $q \times k$ weights are never stored |
# | masks by "setting to $-\infty$" (section 3.2.3) | boolean, `True` = may attend | one polarity everywhere |
# | does not mention a query without keys | returns zeros | padding can hide every key of a row, and `nan` spreads |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | ids → embeddings + positions | `b t` → `b t d` | (64, 8) → (64, 8, 512) |
# | queries, keys, values | `b q d`, `b k d`, `b k d_v` | (64, 8, 512) each, three copies of one |
# | scores, weights | `b q k` | (64, 8, 8) |
# | mixed values | `b q d_v` | (64, 8, 512) |
#
# One attention gives each word one weighted mean. [Chapter 4](04_multi_head.ipynb) computes eight
# of them side by side.
