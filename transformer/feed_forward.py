# %% [markdown]
r"""
# 6 · Feed-forward

**Attention moves information between words. This block thinks about what arrived, at each word alone.**

![The architecture; the feed-forward block of encoder and decoder is lit](../figures/architecture_06.svg)
"""

# %%
from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The question
#
# Attention relates all words to each other, several heads at once, in as many layers as one likes. What could be missing?
#
# Look at what it does with the **values**. The weights are a mixing formula; once they are chosen, the result is a weighted
# sum. Mix $a + b$, or mix $a$ and $b$ and add: it is the same.

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
# Attention is **linear in the values**. It can collect *furry* and *purrs* in one row, but it cannot say *both of these: a
# cat*. What is handed over is averaged, never judged. Does that matter?

# %% [markdown]
# ## By hand
#
# In chapter 3 each word had two features, *thing* and *place*. A cat is a thing, *on* points to a place, a mat is both, and
# *there*, as in *there is*, is neither. We ask for **one of the two, but not both**:
#
# | | thing | place | wanted |
# |---|---|---|---|
# | cat | 1 | 0 | 1 |
# | on | 0 | 1 | 1 |
# | mat | 1 | 1 | 0 |
# | there | 0 | 0 | 0 |

# %% [markdown]
# No linear function can do it, with or without a bias, and the proof fits on one line. As vectors, *cat* + *on* = *mat* + *there*:
# $(1, 0) + (0, 1) = (1, 1) + (0, 0)$. So for every such $f$
#
# $$f(\text{cat}) + f(\text{on}) = f(\text{mat}) + f(\text{there}),$$
#
# but we want $1 + 1$ on the left and $0 + 0$ on the right.

# %% [markdown]
# And attention? Give it a word alone. Softmax over one score is 1, whatever the score, and only linear steps are left: $W^V$,
# $W^O$, the residual. Six layers with random weights, four sentences of one word each:

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
# The trap holds after six layers, and no training can open it. What does? One bend. Count the features, $h_1 = t + p$; and count
# what is over one, $h_2 = \max(0,\, t + p - 1)$. Then $h_1 - 2 h_2$ is the answer:

# %% tags=["active-ipynb"]
# t_and_p = features.sum(-1)
# h_1, h_2 = F.relu(t_and_p), F.relu(t_and_p - 1)
# print(h_1 - 2 * h_2)

# %% [markdown]
# Three steps: widen into hidden features, keep what is positive, come back by a weighted sum. That is the block.

# %% [markdown]
# ## The definition
#
# For a row $x$ of $d_{model}$ features, and a wider layer of $d_{ff}$ in between,
#
# $$\operatorname{FFN}(x) = \max(0,\; x W_1 + b_1)\, W_2 + b_2$$
#
# ![Each word goes through the same two matrices, 512 to 2048 to 512, and no arrow leads from one word to another](../figures/06_feed_forward.svg)


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


# %% [markdown]
# The activation is handed in, so GELU or another bend needs no change here. ReLU is the paper's.

# %% [markdown]
# ## The proof
#
# ### Two linear layers, and that is all
#
# At the paper's size, against PyTorch's own layers with the same weights:

# %% tags=["active-ipynb"]
# ours = FeedForward(512, 2048)
# torchs = nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512))
# torchs[0].load_state_dict(ours.w_1.state_dict())
# torchs[2].load_state_dict(ours.w_2.state_dict())
#
# x = torch.randn(64, 8, 512)
# torch.testing.assert_close(ours(x), torchs(x))
# print("x", *x.shape, "→ hidden", *ours.w_1(x).shape, "→", *ours(x).shape)

# %% [markdown]
# ### The same at every position, and each alone
#
# Feed the sentence word by word, and the result is the same. Change one word, and one row changes. Attention is the opposite:
# there, everyone notices.

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
# So one matrix serves sentences of any length, and a batch of (64, 8) words is 512 rows to it. The paper calls the same thing
# two **convolutions of kernel size 1**: a window that slides over the words and is one word wide.

# %% tags=["active-ipynb"]
# from einops import rearrange
#
# rows = rearrange(x, "b t d -> b d t")
# hidden = F.conv1d(rows, ours.w_1.weight[:, :, None], ours.w_1.bias).relu()
# out = F.conv1d(hidden, ours.w_2.weight[:, :, None], ours.w_2.bias)
# torch.testing.assert_close(rearrange(out, "b d t -> b t d"), ours(x))

# %% [markdown]
# ### Wide alone is not enough
#
# Without the ReLU, the 2048 features are for nothing: two matrices in a row are one matrix of 512 × 512.

# %% tags=["active-ipynb"]
# flat = FeedForward(512, 2048, activation=lambda hidden: hidden)
# one = flat.w_2.weight @ flat.w_1.weight
# torch.testing.assert_close(flat(x), x @ one.T, rtol=1e-4, atol=1e-4)
# print("w_2 · w_1:", *one.shape)

# %% [markdown]
# ### 2048 questions
#
# With it, each hidden feature is a question about the word, *is it so?*, answered by 0 or by how much. Each answer above 0 adds
# its own row of $W_2$ to the result. Put so, the block looks like attention to keys and values that belong to the model and
# not to the sentence (Geva et al. 2021): a memory.

# %% tags=["active-ipynb"]
# keys, values = ours.w_1.weight, ours.w_2.weight.T
# answers = F.relu(sentence @ keys.T + ours.w_1.bias)
# torch.testing.assert_close(answers @ values + ours.w_2.bias, ours(sentence))
# print("keys", *keys.shape, "· values", *values.shape, "· answers", *answers.shape)

# %% [markdown]
# ### Where the parameters are
#
# Attention has four matrices of 512 × 512. This block has two of 512 × 2048, as much as eight of those.

# %% tags=["active-ipynb"]
# from transformer.residual_norm import LayerNorm
#
# parts = {"attention": attend, "feed-forward": ours, "norm": LayerNorm(512)}
# attention, block, norm = (sum(p.numel() for p in part.parameters()) for part in parts.values())
# print(f"attention {attention:,} · feed-forward {block:,} · norm {norm:,}")
# print(f"share of an encoder layer {block / (attention + block + 2 * norm):.1%}")
# print(f"share of a decoder layer  {block / (2 * attention + block + 3 * norm):.1%}")

# %% [markdown]
# **Two thirds** of an encoder layer are here, and half of a decoder layer, which has two attentions. *Attention is all you need*,
# says the title; by count, the larger part of the layers is feed-forward.

# %% [markdown]
# ### Without it
#
# Back to *one but not both*. One attention layer, trained with and without the block behind it. `wrap` is the residual of
# chapter 5; at first only its sum, since a norm is not linear either and would blur the picture.


# %% tags=["active-ipynb"]
# def train(x, wanted, think, wrap, steps=300):
#     """Train one attention layer, with a feed-forward block behind it if `think`; return its answers."""
#     torch.manual_seed(0)
#     attend, block, read = MultiHeadAttention(16, 4), FeedForward(16, 64), nn.Linear(16, 1)
#     parts = nn.ModuleList([attend, block, read])
#     optimizer = torch.optim.Adam(parts.parameters(), lr=3e-3)
#     for _ in range(steps):
#         heard = wrap(x, lambda y: attend(y, y))
#         answers = read(wrap(heard, block) if think else heard)[:, 0, 0]
#         optimizer.zero_grad()
#         F.mse_loss(answers, wanted).backward()
#         optimizer.step()
#     return answers.detach()

# %% tags=["active-ipynb"]
# print("                   cat on mat there")
# for think in (False, True):
#     answers = train(start, wanted, think, wrap=lambda x, sublayer: x + sublayer(x))
#     loss = F.mse_loss(answers, wanted).item()
#     assert loss < 0.01 if think else loss > 0.24
#     print(f"feed-forward {think!s:5}", *(f"{answer.abs():.1f}" for answer in answers), f"  loss {loss:.2f}")

# %% [markdown]
# Without the block it answers *half* to every word, a loss of $\tfrac14$, and no linear function does better. With it, all four
# are right.
#
# To be fair to attention: in longer sentences its *weights* depend on the words, by a softmax, which is not linear. By that side
# door it can learn this toy, once other words are there. The norm's division is another door, open for a word alone. How far
# does that one lead? With the norms in place, let 256 random words, each alone, have a *yes* or a *no* to be learned by heart:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.residual_norm import PostNorm
#
# torch.manual_seed(0)
# dictionary, yes = torch.randn(256, 1, 16), torch.randint(0, 2, (256,)).float()
#
# for think in (False, True):
#     answers = train(dictionary, yes, think, wrap=PostNorm(16))
#     right = ((answers > 0.5) == (yes > 0.5)).float().mean().item()
#     assert right > 0.99 if think else right < 0.85
#     print(f"feed-forward {think!s:5}  {right:.0%} right")

# %% [markdown]
# Half would be right by chance. After 300 steps attention with its norm is below 85 %; the same layer with 64 hidden features behind it knows
# them all. Attention says *who listens to whom*. What follows from it is worked out here.

# %% [markdown]
# ### The check
#
# `check_feed_forward` looks for a missing or misplaced activation, positions that are not treated alike, a residual that
# belongs to another block, and weights that get no gradient.

# %% tags=["active-ipynb"]
# from transformer.checks import check_feed_forward
#
# check_feed_forward(FeedForward)

# %% [markdown]
# ## The look
#
# The hidden features of the seven words, the first 40 of 2048, before any training. White is a zero. About half of the
# features are silent at each word, and each word wakes its own.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_matrix
#
# hidden = F.relu(ours.w_1(sentence))[0]
# print(f"silent: {hidden.eq(0).float().mean():.1f}")
#
# plot_matrix(hidden[:, :40], rows=words, title="Which hidden features fire for which word")

# %% [markdown]
# And the bend itself: the block that we made by hand, over the whole plane of *thing* and *place*. White is 0, dark is 1.
# The answer rises towards the diagonal and falls behind it; the fold is where the ReLU lies. A linear function could only tilt
# the sheet.

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
# | ReLU | ReLU, or what is passed in | a variant enters by composition |
# | no dropout between the two | none | some later code has it; the paper names only the output |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | multi-head attention, with residual and norm | `b t d` → `b t d` | (64, 8, 512) |
# | hidden features | `b t d_ff` | (64, 8, 2048) |
# | feed-forward, with residual and norm | `b t d` → `b t d` | (64, 8, 512) |
#
# One block lets words listen, the other lets each of them think. [Chapter 7](07_encoder.ipynb) puts the two together, six
# times, and calls it an encoder.
