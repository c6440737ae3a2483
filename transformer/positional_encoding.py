# %% [markdown]
r"""
# 2 · Positional encoding

**Attention ignores the order of words. Waves of many lengths, added to the word vectors, tell it
which word came where.**

![The architecture; the two positional encodings, of source and of target, are lit](../figures/architecture_02.svg)
"""

# %% [markdown]
# **What you need**: [chapter 1](01_embeddings.ipynb), for the word vectors and their size; sine and
# cosine. About 35 minutes. In the paper: [section 3.5](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/02_positional_encoding.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/02_positional_encoding.ipynb).
#
# **What you will be able to do**
#
# - say what attention cannot know without positions, and when a mask gives some of it back;
# - compute the encoding of a position by hand, and write the table for any width;
# - explain why a shift is a rotation, and why a sum of word and position can be read.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
import math

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The question
#
# *There is a cat on the mat* is a statement; *is there a cat on the mat* is a question. The words
# are the same, and so are their vectors. Only the order differs.
#
# Attention, the subject of the next chapter, fits in two lines: every word becomes a weighted mean
# of all words, with weights from dot products. Start from what chapter 1 made of the statement, and
# exchange its first two rows to get the question. Will *cat* become the same vector in both?

# %% tags=["active-ipynb"]
# from transformer.example import after, tokens
#
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
#
# statement = after(1)[:1]
# question = statement[:, [1, 0, 2, 3, 4, 5, 6, 7]]
# cat = tokens(after(0))[0].index("cat")
#
#
# def mix(x):
#     scores = x @ x.mT / math.sqrt(24)  # chapter 3 says why they are divided
#     return scores.softmax(-1) @ x
#
#
# same = torch.allclose(mix(statement)[0, cat], mix(question)[0, cat], atol=1e-5)
# print("'cat' is the same in both:", same)

# %% [markdown]
# It does, and so does every other word, in any other order, after any number of such layers: a mean
# over all words does not depend on their order. So each row must itself say **where** it stands.
# (If a word may only see the words before it, as in chapter 8, their number tells it something. The
# last experiment of this chapter measures how much.)

# %% [markdown]
# ## By hand
#
# How can a vector hold a position?
#
# - **The number itself**, 0, 1, 2 …: at position 100 it drowns the word's features of about 1.
# - **The number divided by the length**: in a longer sentence, the step from one word to the next
#   is smaller.
# - **Binary digits**: bounded, and different for every position. This is a good start:

# %% tags=["active-ipynb"]
# positions = torch.arange(8)
# bits = positions[:, None] >> torch.arange(3) & 1
# bits.T

# %% [markdown]
# Each column is a position. The first digit has a period of 2, the next of 4, the last of 8. But
# digits **jump**: how many of them flip from one position to the next?

# %% tags=["active-ipynb"]
# print("digits that flip:", (bits[1:] != bits[:-1]).sum(-1).tolist())

# %% [markdown]
# From 3 to 4 all three flip, so 3 and 4 look less alike than 0 and 4. Replace each digit by a wave,
# some fast and some slow: still bounded and periodic, but **smooth**. Each wave is a sine with its
# cosine; together they are a point on a circle, like the tip of a clock hand. Four features make
# two hands. The first turns by 1 radian for each position, the second by 1/100:

# %% tags=["active-ipynb"]
# t = torch.arange(4.0)
# torch.stack([t.sin(), t.cos(), (t / 100).sin(), (t / 100).cos()], dim=1)

# %% [markdown]
# Row 1 is $\sin 1 = 0.84$, $\cos 1 = 0.54$, $\sin 0.01 = 0.01$ and $\cos 0.01 = 1.00$; check it
# with a calculator. The fast hand tells neighbours apart, the slow one tells the beginning of a
# text from its end.

# %% [markdown]
# ## The definition
#
# At position $t$, for $i = 0, 1, 2, \dots$ as far as the width $d_\text{model}$ goes,
#
# $$P_{t,\,2i} = \sin(\omega_i t) \qquad P_{t,\,2i+1} = \cos(\omega_i t)
# \qquad \omega_i = 10000^{-2i/d_\text{model}}$$
#
# Even features are sines, odd ones cosines. The first hand goes round in $2\pi \approx 6.3$
# positions, the last in almost $10000 \cdot 2\pi$. Angles are computed in double precision, because
# a `float32` of several thousand radians has few decimal places left.


# %% tags=["exercise"]
def sinusoidal_positions(n_positions: int, d_model: int) -> Float[Tensor, "t d_model"]:
    """Return the table of positional encodings: row t has sines at even features, cosines at odd.

    Wavelengths grow from 2π to 10000·2π positions. Any width is allowed: an odd one ends with a
    sine. Source: Vaswani et al. 2017, section 3.5.
    """
    even = torch.arange(0, d_model, 2, dtype=torch.float64)
    frequency = torch.exp(-math.log(10_000) * even / d_model)
    angle = einsum(torch.arange(n_positions, dtype=torch.float64), frequency, "t, i -> t i")
    table = torch.empty(n_positions, d_model)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : d_model // 2]
    return table


# %% [markdown]
# The layer adds the rows to the words. Its table is a **buffer**: a plain attribute would stay
# behind when the model moves to a GPU. The input need not begin at position 0: when chapter 12
# generates one token at a time, `start` is the position of the new token.


# %%
class PositionalEncoding(nn.Module):
    """Add the encoding of its position to each vector; the shape stays the same.

    The table is a buffer: it moves with the model from device to device. It is computed from the
    formula, so it is neither learned nor saved.
    """

    table: Float[Tensor, "t d_model"]

    def __init__(self, d_model: int, max_len: int):
        super().__init__()
        self.register_buffer("table", sinusoidal_positions(max_len, d_model), persistent=False)

    def forward(
        self, x: Float[Tensor, "b t d_model"], start: int = 0
    ) -> Float[Tensor, "b t d_model"]:
        """Return `x` plus positions start, start + 1, …; ValueError if they exceed the table."""
        stop = start + x.shape[1]
        if stop > len(self.table):
            raise ValueError(
                f"a sentence of {stop} tokens is longer than max_len={len(self.table)}"
            )
        return x + self.table[start:stop]


# %% [markdown]
# ## The proof
#
# PyTorch has no such layer, so the reference is the formula itself, one number at a time in plain
# Python. An odd width has one more sine than cosines, and that works too.

# %% tags=["active-ipynb"]
# def formula(t, f, d_model):
#     angle = t / 10_000 ** (f // 2 * 2 / d_model)
#     return math.cos(angle) if f % 2 else math.sin(angle)
#
#
# for width in (1, 5, 24, 512):
#     by_hand = [[formula(t, f, width) for f in range(width)] for t in range(50)]
#     torch.testing.assert_close(sinusoidal_positions(50, width), torch.tensor(by_hand))
#
# sinusoidal_positions(3, 5)

# %% [markdown]
# ### The running example
#
# Add the positions to chapter 1's vectors, and you have `after(2)`. Follow *cat*, at position 3:
# which number will its second feature be?

# %% tags=["active-ipynb"]
# encode = PositionalEncoding(24, max_len=64)
# x = encode(after(1))
#
# torch.testing.assert_close(x, after(2))
# print("word       ", after(1)[0, cat, :4])
# print("position   ", encode.table[cat, :4])
# print("their sum  ", x[0, cat, :4])

# %% [markdown]
# $\cos 3 = -0.99$, so it is $-0.61 - 0.99 = -1.60$. Positions are added, not appended: the shape
# stays `(2, 8, 24)`, or `(64, 8, 512)` at the paper's size. And *cat* is no longer the same in the
# statement and in the question:

# %% tags=["active-ipynb"]
# same = torch.allclose(mix(encode(statement))[0, cat], mix(encode(question))[0, cat], atol=1e-5)
# print("'cat' is the same in both:", same)

# %% [markdown]
# **One word at a time gives the same result.** Without `start`, every new word would get position
# 0: this raises no error and spoils every translation.

# %% tags=["active-ipynb"]
# whole = encode(statement)
# for t in range(8):
#     torch.testing.assert_close(encode(statement[:, t : t + 1], start=t), whole[:, t : t + 1])

# %% [markdown]
# ### Why periodic, and why many periods?
#
# One hand alone repeats itself: with $\omega = 1$, position 44 is within 0.02 of position 0. All
# hands together do not: at the paper's width, no two of the first 5000 rows are alike. And no
# number exceeds 1, however long the text is.

# %% tags=["active-ipynb"]
# table = sinusoidal_positions(5000, 512)
# fast = (table[44, :2] - table[0, :2]).norm().item()
# closest = torch.pdist(table).min().item()
# print(f"fast hand, 44 from 0: {fast:.2f}   all hands, closest two of 5000: {closest:.1f}")

# %% [markdown]
# ### Why smooth?
#
# Neighbouring positions should have similar rows. Here is the distance between two rows that are 1,
# 2, 3 … positions apart, starting at 0, 10 or 1000:

# %% tags=["active-ipynb"]
# for t in (0, 10, 1000):
#     print(f"from {t:<5}", (table[t + 1 : t + 9] - table[t]).norm(dim=-1))

# %% [markdown]
# The distance grows with each of these steps, and it does not depend on the start. Binary digits
# have neither property. The reason is that every hand turns at a constant speed.

# %% [markdown]
# ### A shift is a rotation
#
# ![Three clock hands: three positions further, each turns by an angle of its own, the same from every start](../figures/02_rotation.svg)
#
# Three positions later, hand $i$ has turned by $3\,\omega_i$, *wherever* it started. So one fixed
# matrix leads from every position to the position three later. A linear layer can learn such a
# matrix, and with it "look three words back".

# %% tags=["active-ipynb"]
# angles = (3 * 10_000 ** (-torch.arange(0, 512, 2) / 512)).tolist()
# turns = [[[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]] for a in angles]
# turn = torch.block_diag(*torch.tensor(turns))
#
# torch.testing.assert_close(table[:500] @ turn, table[3:503], atol=1e-4, rtol=0)
# print("the matrix", *turn.shape, "· its first hand:")
# turn[:2, :2]

# %% [markdown]
# The first hand turns by 3 radians: $\cos 3 = -0.99$, $\sin 3 = 0.14$. (Our vectors are rows, so
# this is the transpose of the matrix in the figure.) It follows that the dot product of two rows
# depends only on their **distance**: it is $\sum_i \cos(\omega_i s)$ at $s$ positions apart. This
# is useful because attention compares words by dot products.

# %% tags=["active-ipynb"]
# for t in (0, 10, 1000):
#     print(f"from {t:<5}", (table[t : t + 8] @ table[t]).round(decimals=0))

# %% [markdown]
# ### Why can positions be added?
#
# In general, a sum does not reveal its terms. But positions use few of the 512 directions: the
# first 50 rows spread over 15 of them. A linear map can learn to look at these and to ignore the
# rest. Fit one on ten thousand random words that reads the position from the sum, and test it on a
# thousand other words. Guessing would be right once in eight. How often will it be right?

# %% tags=["active-ipynb"]
# spread = torch.linalg.svdvals(table[:50] - table[:50].mean(0)).square()
# print(f"in 15 directions above 0.98: {spread[:15].sum() / spread.sum() > 0.98}")
#
# vocabulary = torch.randn(11_000, 512)
# place = torch.arange(11_000) % 8
# x = vocabulary + table[place]
#
# reader = torch.linalg.lstsq(x[:10_000], torch.eye(8)[place[:10_000]]).solution
# off = ((x[10_000:] @ reader).argmax(-1) - place[10_000:]).abs()
# exact = (off == 0).float().mean()
# near = (off < 2).float().mean()
# print(f"exact position: {exact:.1f}   at most one off, above 0.95: {near > 0.95}")

# %% [markdown]
# These words are random vectors. A trained model can do better, because its embeddings can learn to
# leave room for positions.
#
# Neither term may drown the other. Since $\sin^2 + \cos^2 = 1$, a position's features have a root
# mean square of $\sqrt{1/2}$. The words of chapter 1 have 1. Drawn with standard deviation 1 *and
# then* multiplied by $\sqrt{512}$, words would be 32 times as large as their positions:

# %% tags=["active-ipynb"]
# def size(x):
#     return round(x.square().mean().sqrt().item(), 1)
#
#
# twice = vocabulary * math.sqrt(512)
# print("positions", size(table), "· words", size(vocabulary), "· words scaled twice", size(twice))

# %% [markdown]
# ### The check
#
# The checks look for sines and cosines in two halves instead of in pairs, failures at odd widths,
# an ignored `start`, positions beyond the table, and a table that stays behind when the model
# moves. Pass them your own version, and they report what they found.

# %% tags=["active-ipynb"]
# from transformer.checks import check_positional_encoding, check_positions
#
# check_positions(sinusoidal_positions)
# check_positional_encoding(PositionalEncoding)

# %% [markdown]
# ## The look
#
# Four of the waves, at a width of 64. The first changes with every word, the last hardly at all.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines, plot_matrix
#
# table = sinusoidal_positions(64, 64)
# waves = {f"feature {f}": table[:, f] for f in (0, 8, 16, 32)}
# plot_lines(waves, xlabel="position", title="Sines, fast and slow")

# %% [markdown]
# All features at once: a row is a position, a column a feature. On the left the fast hands
# alternate like the lowest digit of a counter; on the right the slow ones keep their sines near 0
# and their cosines near 1.

# %% tags=["active-ipynb"]
# plot_matrix(table, title="Position (rows) and feature (columns)", center=True)

# %% [markdown]
# And the dot products of all pairs of positions. Every diagonal has one shade, because only the
# distance counts. What happens to the shade as the distance grows?

# %% tags=["active-ipynb"]
# products = table @ table.T
# plot_matrix(products, title="Dot products of positions")
# print("0, 1, 2 … positions apart:", *(f"{product:.1f}" for product in products[0, :8]))

# %% [markdown]
# It fades quickly over the first four positions, then slowly and in small waves, and not to zero
# (white is 13): the slow hands of two positions in the same text hardly differ. So positions tell
# neighbours apart well, and distant words roughly.

# %% [markdown]
# ## What if
#
# What if there were no positions? A small model reads *the cat sees the dog* and must name who
# sees. There are six animals, and so 30 sentences, half of which are the other half with two words
# exchanged. The model is one encoder layer of chapter 7, with a mean over its five outputs. Only
# the positions differ between the runs; the seeds, the steps and the sentences are the same.


# %% tags=["active-ipynb"]
# import torch.nn.functional as F
#
# from transformer.embeddings import TokenEmbedding
# from transformer.encoder import EncoderLayer
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
#
#
# def sentences(n):
#     who, whom = torch.rand(n, 6).topk(2).indices.unbind(1)  # two different animals
#     the = torch.full((n,), 6)
#     return torch.stack([the, who, the + 1, the, whom], dim=1), who
#
#
# def train(positions, seed, mask=None):
#     torch.manual_seed(seed)
#     embed = nn.Sequential(TokenEmbedding(8, 32), positions)
#     layer = EncoderLayer(32, 2, 64)
#     name = nn.Linear(32, 6)
#     weights = nn.ModuleList([embed, layer, name]).parameters()
#     optimizer = torch.optim.Adam(weights, lr=3e-3)
#     right = []
#     for _ in range(60):
#         ids, who = sentences(64)
#         logits = name(layer(embed(ids), mask).mean(1))
#         optimizer.zero_grad()
#         F.cross_entropy(logits, who).backward()
#         optimizer.step()
#         right.append((logits.argmax(-1) == who).float().mean())
#     best_two = logits.topk(2).indices.sort().values
#     there = ids[:, [1, 4]].sort().values
#     return torch.stack(right), (best_two == there).all(1).float().mean().item()

# %% [markdown]
# How often can the model without positions be right at best? And what if each word may only see
# itself and the words before it (a causal mask, chapter 8), still without positions?

# %% tags=["active-ipynb"]
# from transformer.decoder import causal_mask
#
# variants = {
#     "with positions": (PositionalEncoding(32, 8), None),
#     "without": (nn.Identity(), None),
#     "without, causal mask": (nn.Identity(), causal_mask(5)),
# }
# curves = {}
# for label, (positions, mask) in variants.items():
#     runs = [train(positions, seed, mask) for seed in range(3)]
#     curves[label] = torch.stack([right for right, _ in runs])
#     at_the_end = curves[label][:, -20:].mean(1)
#     print(f"{label:21} right in the last 20 steps {at_the_end.mean():.1f}")
#     if label == "without":
#         assert 0.4 < at_the_end.min() and at_the_end.max() < 0.6
#         assert all(knows_both > 0.95 for _, knows_both in runs)
#     else:
#         assert at_the_end.min() > 0.95
#
# means = {label: runs.mean(0) for label, runs in curves.items()}
# plot_lines(means, xlabel="step", ylabel="share right", title="Who sees? Mean of 3 seeds")

# %% [markdown]
# Half: without positions the model knows *which* two animals are there (they are its best two
# answers, as the cell asserts) and can only guess who sees whom. With positions it is always right.
# With a causal mask it is right, too, because the first animal sees two words and the second five,
# which makes their means differ. Some language models rely on this (Haviv et al. 2022); an encoder,
# which has no such mask, cannot.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 2.1 | The table of waves | write the block | 15 | ★★☆ |
# | 2.2 | Adding positions | write the block | 10 | ★☆☆ |
# | 2.3 | What two positions have in common | predict, then run | 10 | ★★☆ |
# | 2.4 | Right in training, wrong in use | find the bug | 10 | ★★☆ |
# | 2.5 | A test for waves | write the test | 15 | ★★☆ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 2` says what is wrong, and `course hint 2.1` gives a hint.

# %% [markdown]
# ## Summary
#
# Attention treats its words as a set, so each vector gets its position added. A position is a row
# of clock hands, fast and slow: bounded, smooth, never repeated, and a shift turns each hand by a
# fixed angle wherever it starts. The shape does not change, and a linear layer can read the
# position from the sum.
#
# **Write it from memory**: close the chapter and write `sinusoidal_positions`, for odd widths too;
# `check_positions(sinusoidal_positions)` says whether it is right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $10000^{2i/d_\text{model}}$ ([section 3.5](https://arxiv.org/abs/1706.03762)) | $e^{-\ln(10000)\,2i/d_\text{model}}$, in double precision | the same number; angles stay exact at far positions |
# | any position | a table of `max_len` rows, and an error beyond | computed once, and moved with the model |
# | does not mention odd widths | any width | an odd one ends with a sine |
# | learned positions work as well (table 3, row E) | sines | no parameters, and no row that training never saw |
# | dropout on the sum (section 5.4) | in the model, chapter 9 | this block only adds |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | ids | `b t` | (2, 8) | (64, 8) |
# | embeddings | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
# | table of positions | `t d_model` | (8, 24) | (8, 512), the same for every sentence |
# | embeddings + positions | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
#
# Each row now holds a word and its position, and nothing about the other words. [Chapter
# 3](03_attention.ipynb) lets the words look at each other.
