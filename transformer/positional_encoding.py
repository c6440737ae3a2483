# %% [markdown]
r"""
# 2 · Positional encoding

**Attention sees a bag of words. Waves of many lengths, added to the words, tell it which came where.**

![The architecture; the two positional encodings, of source and of target, are lit](../figures/architecture_02.svg)
"""

# %%
import math

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The question
#
# *There is a cat on the mat* tells; *is there a cat on the mat* asks. The words are the same, and so are their rows of the
# table from chapter 1. Only the order differs.
#
# Attention, the subject of the next chapter, fits in one line: every word takes a weighted mean of all words, and the
# weights come from dot products. What does it make of the two sentences?

# %% tags=["active-ipynb"]
# from transformer.embeddings import TokenEmbedding
#
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
#
# words = "there is a cat on the mat".split()
# embedding = TokenEmbedding(len(words), 512)
# tells = embedding(torch.tensor([[0, 1, 2, 3, 4, 5, 6]])).detach()
# asks = embedding(torch.tensor([[1, 0, 2, 3, 4, 5, 6]])).detach()
#
#
# def mix(x):
#     return (x @ x.mT / 512).softmax(-1) @ x
#
#
# print("'cat' is the same in both:", torch.allclose(mix(tells)[0, 3], mix(asks)[0, 3], atol=1e-5))

# %% [markdown]
# So is every other word, and any other shuffle would give the same again. No layer after this one can find out whether
# something was told or asked. The rows themselves must say **where** they stand.

# %% [markdown]
# ## By hand
#
# How does one write a position into a vector?
#
# - **The number itself**, 0, 1, 2 …: at position 100 it drowns the word, whose features are about 1.
# - **The number divided by the length**: a step to the next word is then smaller in a longer sentence.
# - **Binary digits**: bounded, and different for every position. A good idea:

# %% tags=["active-ipynb"]
# positions = torch.arange(8)
# bits = positions[:, None] >> torch.arange(3) & 1
# bits.T

# %% [markdown]
# Each column is a position. The first digit has a period of 2, the next of 4, the last of 8. But digits **jump**: how many
# of them flip from one position to the next?

# %% tags=["active-ipynb"]
# print("digits that flip:", (bits[1:] != bits[:-1]).sum(-1).tolist())

# %% [markdown]
# From 3 to 4 they all do, so 3 and 4 look less alike than 0 and 4. Replace each digit by a wave: still bounded and
# periodic, some fast and some slow, but **smooth**. Each wave is a sine with its cosine, so that together they are a point
# on a circle, like the tip of a clock hand. With four features there are two hands, one turning by 1 radian for each
# position and one by 1/100:

# %% tags=["active-ipynb"]
# t = torch.arange(4.0)
# torch.stack([t.sin(), t.cos(), (t / 100).sin(), (t / 100).cos()], dim=1)

# %% [markdown]
# Row 1 is $\sin 1 = 0.84$, $\cos 1 = 0.54$, $\sin 0.01 = 0.01$ and $\cos 0.01 = 1.00$: any calculator agrees. The fast
# hand tells neighbours apart, the slow one tells the beginning of a text from its end.

# %% [markdown]
# ## The definition
#
# At position $t$, for $i = 0, 1, 2, \dots$ as far as the width $d$ goes,
#
# $$P_{t,\,2i} = \sin(\omega_i t) \qquad P_{t,\,2i+1} = \cos(\omega_i t) \qquad \omega_i = 10000^{-2i/d}$$
#
# Even features are sines, odd ones cosines. The first hand goes round in $2\pi \approx 6.3$ positions, the last in almost
# $10000 \cdot 2\pi$. Angles are computed in double precision, because thousands of radians leave few digits of a `float32`.


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


# %% [markdown]
# The layer adds the rows to the words. Its table is a **buffer**: a plain attribute would stay behind when the model moves
# to a GPU. And a sentence need not begin at position 0: when chapter 12 writes one word at a time, `start` says where the
# new word stands.


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


# %% [markdown]
# ## The proof
#
# PyTorch has no such layer, so the formula itself is the reference, one number at a time in plain Python. An odd width has
# one sine more than cosines, and nothing crashes.

# %% tags=["active-ipynb"]
# for d in (1, 5, 8, 512):
#     angles = [[t / 10_000 ** (f // 2 * 2 / d) for f in range(d)] for t in range(50)]
#     formula = [[math.cos(a) if f % 2 else math.sin(a) for f, a in enumerate(row)] for row in angles]
#     torch.testing.assert_close(sinusoidal_positions(50, d), torch.tensor(formula))
#
# sinusoidal_positions(3, 5)

# %% [markdown]
# **The cat knows where it is.** Positions are added, not appended, so 64 sentences of 8 tokens keep their shape. And the
# two sentences of the beginning are two at last:

# %% tags=["active-ipynb"]
# encode = PositionalEncoding(512, max_len=5000)
# print(*encode(torch.zeros(64, 8, 512)).shape)
# told, asked = mix(encode(tells)), mix(encode(asks))
# print("'cat' is the same in both:", torch.allclose(told[0, 3], asked[0, 3], atol=1e-5))

# %% [markdown]
# **One word at a time gives the same.** Forget `start`, and each new word believes it is the first: a mistake that raises no
# error and spoils every translation.

# %% tags=["active-ipynb"]
# whole = encode(tells)
# for t in range(7):
#     torch.testing.assert_close(encode(tells[:, t : t + 1], start=t), whole[:, t : t + 1])

# %% [markdown]
# ### Why periodic, and why many periods?
#
# One hand alone repeats itself: with $\omega = 1$, position 44 is back where 0 was, within 0.02. All of them together
# do not. Among the first 5000 positions no two rows are alike, and yet no number exceeds 1, however long the text.

# %% tags=["active-ipynb"]
# table = encode.table
# fast = (table[44, :2] - table[0, :2]).norm()
# closest = torch.pdist(table).min()
# print(f"fast hand, 44 from 0: {fast.item():.2f}   all hands, closest two of 5000: {closest.item():.1f}")

# %% [markdown]
# ### Why smooth?
#
# Because neighbours should look like neighbours. The distance between two rows, 1, 2, 3 … positions apart, starting at
# 0, 10 or 1000:

# %% tags=["active-ipynb"]
# for t in (0, 10, 1000):
#     print(f"from {t:<5}", (table[t + 1 : t + 9] - table[t]).norm(dim=-1))

# %% [markdown]
# It grows with each of these steps, and it is the same wherever one starts. Binary digits had neither of the two. The reason is
# that every hand turns at a steady speed.

# %% [markdown]
# ### A shift is a rotation
#
# ![Three clock hands: three positions further, each turns by an angle of its own, the same from every start](../figures/02_rotation.svg)
#
# Three positions further, hand $i$ has turned by $3\,\omega_i$, from *wherever* it was. So one fixed matrix leads from every
# position to the one three places on. A linear layer can learn such a matrix, and with it "look three words back".

# %% tags=["active-ipynb"]
# angles = (3 * 10_000 ** (-torch.arange(0, 512, 2) / 512)).tolist()
# turns = [[[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]] for a in angles]
# turn = torch.block_diag(*torch.tensor(turns))
#
# torch.testing.assert_close(table[:500] @ turn, table[3:503], atol=1e-4, rtol=0)
# print("the matrix", *turn.shape, "· its first hand:")
# turn[:2, :2]

# %% [markdown]
# The first hand turns by 3 radians: $\cos 3 = -0.99$, $\sin 3 = 0.14$. (Our vectors are rows, so this is the transpose of
# the matrix in the figure.) It follows that the dot product of
# two rows knows only their **distance**: $\sum_i \cos(\omega_i s)$ at $s$ positions apart. Attention lives on dot products.

# %% tags=["active-ipynb"]
# for t in (0, 10, 1000):
#     print(f"from {t:<5}", (table[t : t + 8] @ table[t]).round(decimals=0))

# %% [markdown]
# ### Why may one add?
#
# A sum usually forgets its terms. But 512 dimensions have room: the few directions that positions use are almost orthogonal
# to those of words. A linear map, fitted on ten thousand random words, reads the place off the sum for a thousand that it
# has never met. Guessing would be right once in eight.

# %% tags=["active-ipynb"]
# vocabulary, place = torch.randn(11_000, 512), torch.arange(11_000) % 8
# x = vocabulary + table[place]
#
# reader = torch.linalg.lstsq(x[:10_000], torch.eye(8)[place[:10_000]]).solution
# off = ((x[10_000:] @ reader).argmax(-1) - place[10_000:]).abs()
# exact, near = (off == 0).float().mean(), (off < 2).float().mean()
# print(f"the very place: {exact:.1f}   it or its neighbour, above 0.95: {near > 0.95}")

# %% [markdown]
# These words are noise, as loud as noise can be. A trained model can do better, since its words can make room.
#
# Neither may drown the other. Since $\sin^2 + \cos^2 = 1$, a position's features have a root mean square of
# $\sqrt{1/2}$. The words of chapter 1 come with 1. Drawn with standard deviation 1 *and then* multiplied by $\sqrt{512}$,
# as some codes do, they would be 32 times as loud as their places:

# %% tags=["active-ipynb"]
# def loudness(x):
#     return round(x.square().mean().sqrt().item(), 1)
#
#
# twice = vocabulary * math.sqrt(512)
# print("positions", loudness(table), "· words", loudness(tells), "· words scaled twice", loudness(twice))

# %% [markdown]
# ### The check
#
# The checks try sines and cosines in halves instead of turns, odd widths, an ignored `start`, positions beyond the table,
# and a table that stays behind when the model moves. Pass them your own version, and they say what they saw.

# %% tags=["active-ipynb"]
# from transformer.checks import check_positional_encoding, check_positions
#
# check_positions(sinusoidal_positions)
# check_positional_encoding(PositionalEncoding)

# %% [markdown]
# ## The look
#
# Four of the waves, at a width of 64. The first turns with every word, the last hardly at all.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines, plot_matrix
#
# table = sinusoidal_positions(64, 64)
# waves = {f"feature {f}": table[:, f] for f in (0, 8, 16, 32)}
# plot_lines(waves, xlabel="position", title="Sines, fast and slow")

# %% [markdown]
# All of them at once: a row is a position, a column a feature. On the left the fast hands blink like the lowest digit of a
# counter; on the right the slow ones hold their sines at 0 and their cosines at 1.

# %% tags=["active-ipynb"]
# plot_matrix(table, title="Position (rows) and feature (columns)", center=True)

# %% [markdown]
# And every position asked by every other, by dot product. A dark diagonal that fades to both sides, the same along its
# whole length: near is similar, and only the distance counts.

# %% tags=["active-ipynb"]
# plot_matrix(table @ table.T, title="Dot products of positions")

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $10000^{2i/d}$ (section 3.5) | $e^{-\ln(10000)\,2i/d}$, in double precision | the same number; angles stay exact far out |
# | any position | a table of `max_len` rows, and an error beyond | computed once, and moved with the model |
# | says nothing of odd widths | any width | an odd one ends with a sine |
# | learned positions do as well (table 3, row E) | sines | no parameters, and no row that training never saw |
# | dropout on the sum (section 5.4) | in the model, chapter 9 | this block only adds |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | ids | `b t` | (64, 8) |
# | embeddings | `b t d` | (64, 8, 512) |
# | table of positions | `t d` | (8, 512), the same for every sentence |
# | embeddings + positions | `b t d` | (64, 8, 512) |
#
# Every word now knows its name and its place, and nothing of its neighbours. [Chapter 3](03_attention.ipynb) lets it ask.
