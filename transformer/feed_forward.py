# %% [markdown]
r"""
# 6 · Feed-forward

**Attention moves information between words. This block transforms what arrived, at each word
separately.**

![The architecture; the feed-forward block of encoder and decoder is
lit](../figures/architecture_06.svg)
"""

# %%
from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The question
#
# Attention relates all words to each other, with several heads at once, in as many layers as we
# like. What could be missing?
#
# Look at what it does with the **values**. The weights are a mixing formula; once they are fixed,
# the result is a weighted sum. Mix $a + b$, or mix $a$ and $b$ separately and add: the result is
# the same.

# %% tags=["active-ipynb"]
# import torch
#
# from transformer.attention import attention_weights
#
# torch.set_num_threads(1)  # many small products are faster on one thread
# torch.manual_seed(0)
# words = "there is a cat on the mat".split()
#
# x, a, b = torch.randn(3, 7, 16)
# weights = attention_weights(x, x)
#
# torch.testing.assert_close(weights @ (a + b), weights @ a + weights @ b)
# torch.testing.assert_close(weights @ (3 * a), 3 * (weights @ a))

# %% [markdown]
# Attention is **linear in the values**. It can collect *furry* and *purrs* in one row, but it
# cannot conclude *both of these, so a cat*. Values are averaged, never compared. Does that matter?

# %% [markdown]
# ## By hand
#
# In chapter 3 each word had two features, *thing* and *place*. A cat is a thing, *on* points to a
# place, a mat is both, and *there*, as in *there is*, is neither. The block has to answer: **one of
# the two, but not both** (XOR)?
#
# | | thing | place | wanted |
# |---|---|---|---|
# | cat | 1 | 0 | 1 |
# | on | 0 | 1 | 1 |
# | mat | 1 | 1 | 0 |
# | there | 0 | 0 | 0 |

# %% [markdown]
# No linear function can do this, with or without a bias, and the proof fits on one line. As
# vectors, *cat* + *on* = *mat* + *there*: $(1, 0) + (0, 1) = (1, 1) + (0, 0)$. So for every such
# $f$
#
# $$f(\text{cat}) + f(\text{on}) = f(\text{mat}) + f(\text{there}),$$
#
# but we want $1 + 1$ on the left and $0 + 0$ on the right.

# %% [markdown]
# Can attention do it? Give it a single word. Softmax over one score is 1, whatever the score, so
# only linear steps are left: $W^V$, $W^O$, the residual. Six layers with random weights, four
# sentences of one word each:

# %% tags=["active-ipynb"]
# from transformer.multi_head import MultiHeadAttention
#
# features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
# wanted = torch.tensor([1.0, 1.0, 0.0, 0.0])
#
# start = (features @ torch.randn(2, 16))[:, None]
# x = start
# for layer in [MultiHeadAttention(16, 4) for _ in range(6)]:
#     x = x + layer(x, x)
#
# cat, on, mat, there = x
# torch.testing.assert_close(cat + on, mat + there, rtol=1e-4, atol=1e-4)

# %% [markdown]
# The equation still holds after six layers. It holds for any weights, so training cannot help. One
# nonlinear step can. Count the features, $h_1 = t + p$; and count those beyond the first,
# $h_2 = \max(0,\, t + p - 1)$. Then $h_1 - 2 h_2$ is the answer:

# %% tags=["active-ipynb"]
# t_and_p = features.sum(-1)
# h_1 = F.relu(t_and_p)
# h_2 = F.relu(t_and_p - 1)
# print(h_1 - 2 * h_2)

# %% [markdown]
# Three steps: compute hidden features, set the negative ones to 0, and return by a weighted sum.
# That is the feed-forward block.

# %% [markdown]
# ## The definition
#
# For a row $x$ of $d_{model}$ features, and a wider layer of $d_{ff}$ in between,
#
# $$\operatorname{FFN}(x) = \max(0,\; x W_1 + b_1)\, W_2 + b_2$$
#
# ![Each word goes through the same two matrices, 512 to 2048 to 512, and no arrow leads from one
# word to another](../figures/06_feed_forward.svg)


# %% tags=["exercise"]
class FeedForward(nn.Module):
    """Apply two linear layers to every vector, d_model → d_ff → d_model, with a ReLU between them.

    `activation` replaces the ReLU. Source: Vaswani et al. 2017, equation 2.
    """

    def __init__(self, d_model: int, d_ff: int, activation: Callable[[Tensor], Tensor] = F.relu):
        super().__init__()
        self.w_1 = nn.Linear(d_model, d_ff)
        self.w_2 = nn.Linear(d_ff, d_model)
        self.activation = activation
        for linear in (self.w_1, self.w_2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "b t d_model"]) -> Float[Tensor, "b t d_model"]:
        """Return every vector of `x` transformed on its own."""
        return self.w_2(self.activation(self.w_1(x)))


# %% [markdown]
# The activation is an argument, so GELU or another function needs no change here. ReLU is the
# paper's.

# %% [markdown]
# ## The proof
#
# ### Two linear layers, and that is all
#
# At the paper's size, against PyTorch's own layers with the same weights:

# %% tags=["active-ipynb"]
# ours = FeedForward(512, 2048)
# theirs = nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512))
# theirs[0].load_state_dict(ours.w_1.state_dict())
# theirs[2].load_state_dict(ours.w_2.state_dict())
#
# x = torch.randn(64, 8, 512)
# torch.testing.assert_close(ours(x), theirs(x))
# print("x", *x.shape, "→ hidden", *ours.w_1(x).shape, "→", *ours(x).shape)

# %% [markdown]
# ### The same at every position, and each separately
#
# Feed in the sentence word by word, and the result is the same. Change one word, and one row
# changes. With attention, every row changes.

# %% tags=["active-ipynb"]
# sentence = torch.randn(1, 7, 512)
# one_by_one = torch.cat([ours(sentence[:, i : i + 1]) for i in range(7)], dim=1)
# torch.testing.assert_close(ours(sentence), one_by_one)
#
# changed = sentence.clone()
# changed[:, 3] += 1
# attend = MultiHeadAttention(512, 8)
# for name, block in (("feed-forward", ours), ("attention", lambda x: attend(x, x))):
#     moved = (block(changed) - block(sentence)).abs().amax(-1)[0] > 1e-5
#     print(f"{name:13} rows that changed:", [word for word, yes in zip(words, moved) if yes])

# %% [markdown]
# So the same matrices serve sentences of any length, and a batch of (64, 8) words is simply 512
# rows. The paper describes the same thing as two **convolutions with kernel size 1**: a window that
# slides over the words and is one word wide.

# %% tags=["active-ipynb"]
# from einops import rearrange
#
# rows = rearrange(x, "b t d -> b d t")
# hidden = F.conv1d(rows, ours.w_1.weight[:, :, None], ours.w_1.bias).relu()
# out = F.conv1d(hidden, ours.w_2.weight[:, :, None], ours.w_2.bias)
# torch.testing.assert_close(rearrange(out, "b d t -> b t d"), ours(x))

# %% [markdown]
# ### Width alone is not enough
#
# Without the ReLU, the 2048 features add nothing: two matrices in a row are one matrix of 512 ×
# 512.

# %% tags=["active-ipynb"]
# flat = FeedForward(512, 2048, activation=lambda hidden: hidden)
# one = flat.w_2.weight @ flat.w_1.weight
# torch.testing.assert_close(flat(x), x @ one.T, rtol=1e-4, atol=1e-4)
# print("w_2 · w_1:", *one.shape)

# %% [markdown]
# ### 2048 questions
#
# With the ReLU, each hidden feature is a question about the word, *does this pattern match?* The
# answer is 0 for *no*, or a positive number for how well it matches. Each positive answer adds its
# own row of $W_2$ to the result. Seen this way, the block looks like attention to keys and values
# that belong to the model and not to the sentence (Geva et al. 2021): a memory.

# %% tags=["active-ipynb"]
# keys = ours.w_1.weight
# values = ours.w_2.weight.T
# answers = F.relu(sentence @ keys.T + ours.w_1.bias)
# torch.testing.assert_close(answers @ values + ours.w_2.bias, ours(sentence))
# print("keys", *keys.shape, "· values", *values.shape, "· answers", *answers.shape)

# %% [markdown]
# ### Where the parameters are
#
# Attention has four matrices of 512 × 512. This block has two of 512 × 2048, as many numbers as in
# eight of those.

# %% tags=["active-ipynb"]
# from transformer.residual_norm import LayerNorm
#
# parts = {"attention": attend, "feed-forward": ours, "norm": LayerNorm(512)}
# attention, block, norm = (sum(p.numel() for p in part.parameters()) for part in parts.values())
# print(f"attention {attention:,} · feed-forward {block:,} · norm {norm:,}")
# print(f"share of an encoder layer {block / (attention + block + 2 * norm):.1%}")
# print(f"share of a decoder layer  {block / (2 * attention + block + 3 * norm):.1%}")

# %% [markdown]
# **Two thirds** of an encoder layer's parameters are here, and half of a decoder layer's, which has
# two attention blocks. The paper is called *Attention Is All You Need*, but by count the larger
# part of its layers is feed-forward.

# %% [markdown]
# ### Without it
#
# Back to *one but not both*. We train one attention layer with and without the block after it.
# `wrap` is the residual of chapter 5; at first only its sum, since a norm is nonlinear too and
# would blur the comparison.


# %% tags=["active-ipynb"]
# def train(x, wanted, use_block, wrap, steps=300):
#     """Train one attention layer, with a feed-forward block after it if `use_block`."""
#     torch.manual_seed(0)
#     attend = MultiHeadAttention(16, 4)
#     block = FeedForward(16, 64)
#     read = nn.Linear(16, 1)
#     parts = nn.ModuleList([attend, block, read])
#     optimizer = torch.optim.Adam(parts.parameters(), lr=3e-3)
#     for _ in range(steps):
#         hidden = wrap(x, lambda y: attend(y, y))
#         if use_block:
#             hidden = wrap(hidden, block)
#         answers = read(hidden)[:, 0, 0]
#         optimizer.zero_grad()
#         F.mse_loss(answers, wanted).backward()
#         optimizer.step()
#     return answers.detach()

# %% tags=["active-ipynb"]
# print("                   cat on mat there")
# for use_block in (False, True):
#     answers = train(start, wanted, use_block, wrap=lambda x, sublayer: x + sublayer(x))
#     loss = F.mse_loss(answers, wanted).item()
#     assert loss < 0.01 if use_block else loss > 0.24
#     shown = (f"{answer.abs():.1f}" for answer in answers)
#     print(f"feed-forward {use_block!s:5}", *shown, f"  loss {loss:.2f}")

# %% [markdown]
# Without the block the answer is 0.5 for every word, a loss of $\tfrac14$, and no linear function
# does better. With it, all four are right.
#
# To be fair to attention: in longer sentences its *weights* depend on the words through a softmax,
# which is nonlinear, so it can learn this toy task once other words are there. The norm's division
# is nonlinear even for a single word. How far does that go? With the norms in place, give each of
# 256 random words, each a sentence of its own, a *yes* or a *no* to memorise:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.residual_norm import PostNorm
#
# torch.manual_seed(0)
# dictionary = torch.randn(256, 1, 16)
# yes = torch.randint(0, 2, (256,)).float()
#
# for use_block in (False, True):
#     answers = train(dictionary, yes, use_block, wrap=PostNorm(16))
#     right = ((answers > 0.5) == (yes > 0.5)).float().mean().item()
#     assert right > 0.99 if use_block else right < 0.85
#     print(f"feed-forward {use_block!s:5}  {right:.0%} right")

# %% [markdown]
# Chance would be 50 %. After 300 steps attention with its norm is below 85 %; with 64 hidden
# features after it, the same layer memorises more than 99 %. Attention decides *which words
# exchange information*; the feed-forward block computes with what was exchanged.

# %% [markdown]
# ### The check
#
# `check_feed_forward` looks for a missing or misplaced activation, positions that are treated
# differently or mixed, a residual inside the block, and weights without a gradient.

# %% tags=["active-ipynb"]
# from transformer.checks import check_feed_forward
#
# check_feed_forward(FeedForward)

# %% [markdown]
# ## The look
#
# The hidden features of the seven words, the first 40 of 2048, before any training. White is 0. At
# each word about half of the features are silent, and which ones differs from word to word.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_matrix
#
# hidden = F.relu(ours.w_1(sentence))[0]
# print(f"silent: {hidden.eq(0).float().mean():.1f}")
#
# plot_matrix(hidden[:, :40], rows=words, title="Which hidden features are active at which word")

# %% [markdown]
# And the nonlinear step itself: the block that we made by hand, over the whole plane of *thing* and
# *place*. White is 0, dark is 1. The answer rises up to the diagonal and falls beyond it; the ReLU
# makes the fold. A linear function could only tilt the plane.

# %% tags=["active-ipynb"]
# steps = torch.linspace(0, 1, 11)
# plane = steps[:, None] + steps
# labels = [f"{step:.1f}" for step in steps.tolist()]
# sheet = F.relu(plane) - 2 * F.relu(plane - 1)
#
# plot_matrix(sheet, rows=labels, columns=labels, title="Rows: thing · columns: place")

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $\max(0, xW_1 + b_1)W_2 + b_2$ (equation 2) | the same, by two `nn.Linear` | they hold $W^\top$; the product is the same |
# | "two convolutions with kernel size 1" (section 3.3) | two linear layers | the same numbers, shown above |
# | ReLU | ReLU, or what is passed in | a variant is an argument |
# | no dropout between the two | none | later code often adds it; the paper has it on the output only |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | multi-head attention, with residual and norm | `b t d` → `b t d` | (64, 8, 512) |
# | hidden features | `b t d_ff` | (64, 8, 2048) |
# | feed-forward, with residual and norm | `b t d` → `b t d` | (64, 8, 512) |
#
# One block exchanges information between words, the other transforms it.
# [Chapter 7](07_encoder.ipynb) puts the two together, six times, and calls it an encoder.
