# %% [markdown]
r"""
# 3 · Attention

**What a word means depends on the words around it. Attention is the operation that lets a word
look at them.**

![The architecture; the scaled dot-product inside its three attention blocks is lit](../figures/architecture_03.svg)
"""

# %% [markdown]
# **What you need**: [chapter 1](01_embeddings.ipynb) and [chapter 2](02_positional_encoding.ipynb),
# for the rows that attention reads; softmax, which turns numbers into positive shares that sum to 1
# by $e^{x_i} / \sum_j e^{x_j}$. About 45 minutes. In the paper:
# [section 3.2.1](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/03_attention.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/03_attention.ipynb).
#
# **What you will be able to do**
#
# - compute attention for three words on paper, and write it with a mask;
# - say what queries, keys and values are for, and which axis of the weights is which;
# - explain the division by the square root, and show what happens without it.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
import math

import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

# %% [markdown]
# ## The question
#
# After chapters 1 and 2 a sentence is a matrix, one row for each token. A row holds its word and
# its position, and nothing about its neighbours. But *on* must become *sul* before the masculine
# *tappeto* and *sulla* before the feminine *sedia*, so the row of *on* needs something from *mat*.
#
# What happens if every word simply takes the mean of all words? How many different rows will be
# left?

# %% tags=["active-ipynb"]
# import torch
#
# from transformer.example import after, tokens
#
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
#
# x = after(2)
# words = tokens(after(0))
#
# mean = x[0].mean(0).expand(8, 24)
# print("different rows before:", len(x[0].unique(dim=0)), "· after:", len(mean.unique(dim=0)))

# %% [markdown]
# Eight different rows went in, and the same row came out eight times. A plain mean does not depend
# on **which word is looking**, but *on* and *cat* need different things from the same sentence.
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
# All three are made from the same row, each by a matrix of its own, which chapter 4 will learn. A
# query and a key that point the same way have a large dot product. Take three words whose queries,
# keys and values are already there, with four features in a query or key and two in a value:

# %% tags=["active-ipynb"]
# q = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
# k = torch.tensor([[2.0, 0.0, 2.0, 0.0], [0.0, 2.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
# v = torch.tensor([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])
#
# scores = q @ k.T / math.sqrt(4)
# scores

# %% [markdown]
# The scores have one row for each query and one column for each key. The dot product of query 0 and
# key 0 is $2 + 2 = 4$, and it is divided by $\sqrt 4$, the root of the number of features; below we
# measure why. Softmax turns each row into a **mixing formula**, positive numbers that sum to 1. In
# row 0 it compares $e^2 = 7.39$ with $1$ and $1$, so the weights are $7.39 / 9.39 = 0.79$ and twice
# $0.11$.

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
# For queries $Q$ and keys $K$ whose rows have $d_\text{head}$ features, and values $V$,
#
# $$\operatorname{Attention}(Q, K, V)
# = \operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{d_\text{head}}}\right) V$$
#
# ![Queries meet keys in a table of scores, softmax makes each row a mixing formula, and the values are mixed](../figures/03_attention.svg)

# %% [markdown]
# The factor in front of $V$ gets a function of its own, because the weights are what we will plot.
# A mask says which keys a query may use: `True` means *may attend*. In the signature, `...` stands
# for any further axes, and `#q` for an axis that may also have length 1, as in a mask that is the
# same for all queries.


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
# stores the weights, a row of `k` numbers for each of `q` queries. The library uses this kernel,
# and below we prove that it is the same function.


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
# First the three words from above. The functions give the numbers that we computed by hand:

# %% tags=["active-ipynb"]
# torch.testing.assert_close(attention_weights(q, k), weights)
# torch.testing.assert_close(attention(q, k, v), weights @ v)

# %% [markdown]
# Then a batch of 2 with 8 heads, 5 queries, 7 keys and 64 features each, and a mask that hides some
# keys at random:

# %% tags=["active-ipynb"]
# q = torch.randn(2, 8, 5, 64)
# k = torch.randn(2, 8, 7, 64)
# v = torch.randn(2, 8, 7, 64)
# mask = torch.rand(2, 1, 5, 7) < 0.7
#
# mixed = einsum(attention_weights(q, k, mask), v, "b h q k, b h k d_v -> b h q d_v")
# torch.testing.assert_close(attention(q, k, v, mask), mixed)
# print("q", *q.shape, "· k", *k.shape, "· v", *v.shape, "→", *mixed.shape)

# %% [markdown]
# The result has one row for each **query**, whatever the number of keys. Chapter 8 relies on this:
# there the queries come from the decoder and the keys from the encoder.

# %% [markdown]
# ### The running example
#
# The trained model has four attentions side by side in its first layer, its *heads*; chapter 4 says
# why. Here is one of them. Three linear layers, learned in training, make its queries, keys and
# values from chapter 2's rows. The mask hides the padding of the second sentence.

# %% tags=["active-ipynb"]
# from transformer.example import head_projections
#
# w_q, w_k, w_v = head_projections()
# q = w_q(x)
# k = w_k(x)
# v = w_v(x)
# real = (after(0) != 0)[:, None]  # b 1 k
#
# torch.testing.assert_close(attention(q, k, v, real), after(3))
# on = words[0].index("on")
# print("x", *x.shape, "→ q", *q.shape, "→ scores", *(q @ k.mT).shape, "→", *after(3).shape)
# print("weights of on:", attention_weights(q, k, real)[0, on])

# %% [markdown]
# *On* takes 0.80 of its new row from *mat* and 0.18 from *cat*, the two nouns of the sentence. This
# is what it needs in order to become *sul*.

# %% [markdown]
# ### Why divide by the root?
#
# If the features of $q$ and $k$ are independent with variance 1, their dot product is a sum of
# $d_\text{head}$ terms of variance 1. Its variance is $d_\text{head}$ and its standard deviation
# $\sqrt{d_\text{head}}$; with 512 features that is 22.6. Before you run the cell: what will softmax
# make of such scores?

# %% tags=["active-ipynb"]
# for d_head in (4, 64, 512):
#     queries = torch.randn(1000, d_head)
#     keys = torch.randn(8, d_head)
#     for name, scale in (("raw", 1.0), ("scaled", math.sqrt(d_head))):
#         scores = (queries @ keys.T / scale).requires_grad_()
#         largest = scores.softmax(-1).amax(-1)
#         largest.sum().backward()
#         print(
#             f"{d_head=:<4} {name:7} variance {scores.var().item():5.0f}   largest weight "
#             f"{largest.mean().item():.1f}   gradient {scores.grad.abs().mean().item():.2f}"
#         )

# %% [markdown]
# Without the scale, softmax is almost **binary** at 512 features: one key gets nearly all of the
# weight, and for most queries almost no gradient reaches the scores. With the scale, the variance
# is 1 and the numbers are the same at every width. What this does to learning is measured below.

# %% [markdown]
# ### Three properties
#
# **It ignores order.** Shuffle the keys together with their values, and nothing changes. Shuffle
# the queries, and the results are shuffled in the same way. Attention is *permutation-equivariant*;
# this is why chapter 2 had to add positions first.

# %% tags=["active-ipynb"]
# a, b, c = torch.randn(3, 6, 16).unbind()
# shuffled = torch.tensor([3, 0, 5, 1, 4, 2])
#
# torch.testing.assert_close(attention(a, b[shuffled], c[shuffled]), attention(a, b, c))
# torch.testing.assert_close(attention(a[shuffled], b, c), attention(a, b, c)[shuffled])

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
# print(torch.zeros(1, 4).masked_fill(~nothing, -math.inf).softmax(-1))
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
# Before the trained map, one that we choose. Give the words two features with a meaning, *thing*
# and *place*, and decide what each word looks for. Articles and prepositions look for things,
# things look for places. Which column will be the darkest?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_attention
#
# offers = torch.tensor([[0.0, 0], [0, 0], [0, 0], [1, 0], [0, 1], [0, 0], [1, 1]])
# seeks = torch.tensor([[0.0, 1], [1, 0], [1, 0], [0, 1], [1, 0], [1, 0], [0, 1]])
# seven = words[0][:7]
#
# chosen = attention_weights(5 * seeks, offers)
# plot_attention(chosen, seven, seven, "Chosen: which word (row) attends to which (column)")

# %% [markdown]
# And the head of the trained model, whose features nobody named. It was trained only to translate.

# %% tags=["active-ipynb"]
# learned = attention_weights(q, k, real)
# plot_attention(learned[0], words[0], words[0], "Learned: one head of the running example")

# %% [markdown]
# It looks for nouns: the columns of *cat* and *mat* are dark, and *on* attends to *mat*. In the
# second sentence, which has no noun, it attends to the pronouns *i* and *you*, which decide how
# *love* is translated. The columns of `<pad>` are exactly 0 (its rows are computed, too, but no
# word attends to them):

# %% tags=["active-ipynb"]
# plot_attention(learned[1], words[1], words[1], "The second sentence: its padding is hidden")

# %% [markdown]
# ## What if
#
# What if the scores are not divided? Sixteen random words pass through a linear layer each for keys
# and for queries, 256 features wide. The query is made from a noisy copy of one of the words, and
# the attention must find that word. With and without the scale, the first weights, the batches and
# the seeds are the same.


# %% tags=["active-ipynb"]
# from torch import nn
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
#
#
# def share_found(scaled, rate, seed, d_head=256):
#     torch.manual_seed(seed)
#     to_q, to_k = (nn.Linear(64, d_head, bias=False) for _ in range(2))
#     for layer in (to_q, to_k):
#         nn.init.normal_(layer.weight, std=1 / 8)  # features of variance 1
#     optimizer = torch.optim.Adam([to_q.weight, to_k.weight], lr=rate)
#     found = []
#     for _ in range(100):
#         batch = torch.randn(32, 16, 64)
#         wanted = torch.randint(16, (32,))
#         asked = batch[range(32), wanted][:, None] + torch.randn(32, 1, 64)
#         query = to_q(asked) * (1 if scaled else math.sqrt(d_head))  # undoes the division
#         looks = attention_weights(query, to_k(batch))[:, 0]
#         optimizer.zero_grad()
#         (looks - F.one_hot(wanted, 16)).square().sum(-1).mean().backward()
#         optimizer.step()
#         found.append((looks.argmax(-1) == wanted).float().mean())
#     return torch.stack(found)

# %% [markdown]
# A bad learning rate could make either of them look bad, so each gets two. Will a larger rate make
# up for the missing scale?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# curves = {}
# for name, scaled in (("scaled", True), ("not scaled", False)):
#     for rate in (0.003, 0.01):
#         runs = torch.stack([share_found(scaled, rate, seed) for seed in range(3)])
#         halfway = runs[:, 45:55].mean(1)
#         assert halfway.min() > 0.9 if scaled else halfway.max() < 0.8
#         curves[f"{name}, rate {rate}"] = runs.mean(0)
#
# plot_lines(curves, xlabel="step", ylabel="share found", title="Find one of 16: mean of 3 seeds")

# %% [markdown]
# It does not: with the scale both rates find the word after some twenty steps, without it neither
# does in a hundred. The choices at the start are random but confident. For most of them almost no
# gradient reaches the scores, as measured above, so they are unlearned slowly.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 3.1 | The attention weights | write the block | 20 | ★★☆ |
# | 3.2 | What attention does not see | predict, then run | 10 | ★☆☆ |
# | 3.3 | A row of weights, on paper | by hand | 10 | ★☆☆ |
# | 3.4 | It trains, but it is wrong | find the bug | 15 | ★★☆ |
# | 3.5 | A test that finds what others did wrong | write the test | 25 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 3` says what is wrong, and `course hint 3.1` gives a hint.

# %% [markdown]
# ## Summary
#
# Each query is compared with every key, softmax turns its scores into weights that sum to 1, and
# the weights mix the values. Rows are queries, columns are keys, and `True` in a mask means *may
# attend*. The division by $\sqrt{d_\text{head}}$ keeps the scores near 1, where softmax can still
# learn.
#
# **Write it from memory**: close the chapter and write `attention_weights`, with its mask and its
# rows without a key; `check_attention_weights(attention_weights)` says whether it is right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $\operatorname{softmax}(QK^\top/\sqrt{d_k})\,V$ ([equation 1](https://arxiv.org/abs/1706.03762)) | the same, in one fused kernel; $d_k$ is called $d_\text{head}$ | the weights are never stored |
# | masks by "setting to $-\infty$" (section 3.2.3) | boolean, `True` = may attend | one polarity everywhere |
# | does not mention a query without keys | returns zeros | padding can hide every key of a row, and `nan` spreads |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | ids → embeddings + positions | `b t` → `b t d_model` | (2, 8) → (2, 8, 24) | (64, 8) → (64, 8, 512) |
# | queries and keys of one head | `b q d_head`, `b k d_head` | (2, 8, 6) each | (64, 8, 64) each |
# | values | `b k d_v` | (2, 8, 6) | (64, 8, 64) |
# | scores, weights | `b q k` | (2, 8, 8) | (64, 8, 8) |
# | mixed values | `b q d_v` | (2, 8, 6) | (64, 8, 64) |
#
# One attention gives each word one weighted mean. [Chapter 4](04_multi_head.ipynb) computes four of
# them side by side in the example, and eight in the paper.
