# %% [markdown]
r"""
# 5 · Residual and norm

**A deep stack forgets its input and loses its gradients. A sum and a norm keep both.**

![The architecture; every add-and-norm, with the residual that leads around its sublayer, is lit](../figures/architecture_05.svg)
"""

# %%
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The question
#
# Chapter 4 ended with a layer that takes (64, 8, 512) and gives (64, 8, 512) back, so layers can be stacked. Stack 24 of
# them: attention and a small net, in turns (the net is chapter 6, ahead of time).

# %% tags=["active-ipynb"]
# from transformer.multi_head import MultiHeadAttention
#
# torch.set_num_threads(1)  # many small products are faster on one thread
#
#
# def layers(n, d):
#     """Yield n layers: attention and a small net, in turns."""
#     for _ in range(n // 2):
#         attention = MultiHeadAttention(d, 8)
#         yield lambda x: attention(x, x)
#         net = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, d))
#         for linear in (net[0], net[2]):
#             nn.init.xavier_uniform_(linear.weight)
#         yield net


# %% [markdown]
# Seven rows, for *there is a cat on the mat*, go up. Then a gradient of length 1 comes down, as from a loss. `wrap` says what
# is done with each layer; for now, it is just called.


# %% tags=["active-ipynb"]
# def stack(wrap, final=lambda x: x, n=24, d=64):
#     """Return what each of n layers gave; its `.grad` is the gradient that reached that layer."""
#     torch.manual_seed(0)
#     x, push = torch.randn(2, 1, 7, d)
#     seen = []
#     for sublayer in layers(n, d):
#         x = wrap(x, sublayer)
#         x.retain_grad()
#         seen.append(x)
#     final(x).backward(push / push.norm())
#     return seen

# %% [markdown]
# What do we want to see? Going up: do the seven rows still **differ** from their average, and by what share? Coming down: how
# much of the gradient arrives?

# %% tags=["active-ipynb"]
# def differ(x):
#     return ((x - x.mean(1, keepdim=True)).norm() / x.norm()).item()
#
#
# bare = stack(lambda x, sublayer: sublayer(x))
# for i in (1, 2, 6, 12, 24):
#     x = bare[i - 1]
#     print(f"layer {i:2}   rows differ {differ(x):.3f}   gradient {x.grad.norm():.5f}")

# %% [markdown]
# Both are lost. At the top, the seven words are one word: each attention averages, and 12 averages in a row leave nothing to
# tell *cat* from *mat* (Dong et al. 2021 prove how fast that goes). At the bottom arrives about one seven-thousandth of the
# gradient. The layers that see the words do not learn, and those that learn do not see the words.

# %% [markdown]
# ## By hand
#
# ### The sum
#
# The chain rule multiplies one factor for each layer. Let every layer be a single slope $s$: 24 layers make $s^{24}$. Now
# give each layer its input back, $x + s\,x$: the factor becomes $1 + s$.

# %% tags=["active-ipynb"]
# for s in (0.5, 0.1, 0.01, -0.01):
#     print(f"slope {s:5}   alone {s**24:.0e}   with its input added {(1 + s) ** 24:.2f}")

# %% [markdown]
# $(1 + s)^{24} = 1 + 24\,s + \dots$: the $1$ is the path that leads around every layer. It leads upwards, too: the input
# itself arrives at the top, and each layer only adds to it.
#
# But look at the first row. What is added 24 times can grow without bound. Something has to keep the size.

# %% [markdown]
# ### The norm
#
# Take the four features $(1, 1, 5, 5)$. Their mean is $\mu = 3$. They are 2 away from it, each of them, so the standard
# deviation is $\sigma = 2$. Subtract one, divide by the other:

# %% tags=["active-ipynb"]
# x = torch.tensor([1.0, 1.0, 5.0, 5.0])
# print((x - 3) / 2)
#
# x = 10 * x + 100
# print((x - x.mean()) / x.std(correction=0))

# %% [markdown]
# Ten times as large and moved by 100, it comes out the same. Whatever a layer adds, the next one gets numbers of one size.
#
# A network might want another size, here and there. So each feature gets a learned **gain** and a learned **bias**, 1 and 0
# at first.

# %% [markdown]
# ## The definition
#
# For a vector $x$ of $d$ features, with mean $\mu$ and variance $\sigma^2$ over these $d$ features,
#
# $$\operatorname{LayerNorm}(x) = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \odot g + b
# \qquad \mu = \frac{1}{d} \sum_i x_i \qquad \sigma^2 = \frac{1}{d} \sum_i (x_i - \mu)^2$$
#
# The small $\varepsilon$ is there for a vector whose features are all equal: without it, $0/0$.


# %% tags=["exercise"]
def layer_norm(
    x: Float[Tensor, "... d"], gain: Float[Tensor, " d"], bias: Float[Tensor, " d"], eps: float = 1e-5
) -> Float[Tensor, "... d"]:
    """Return every vector moved to mean 0 and scaled to standard deviation 1, then times gain plus bias.

    The variance divides by d, not d - 1, and eps stands inside the root. Source: Ba et al. 2016, section 3.1.
    """
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * gain + bias


# %% [markdown]
# The layer owns gain and bias. PyTorch has the same formula in one fused kernel; the library uses it, and below we prove that
# it is the same function.


# %%
class LayerNorm(nn.Module):
    """`layer_norm` with a learned gain and bias, in one fused kernel."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return F.layer_norm(x, self.gain.shape, self.gain, self.bias, self.eps)


# %% [markdown]
# Sum and norm can be put together in two ways. **Post-norm** is the paper's, and our default. **Pre-norm** came later:
#
# $$\text{post-norm: } \operatorname{LayerNorm}(x + \operatorname{sublayer}(x)) \qquad \text{pre-norm: } x + \operatorname{sublayer}(\operatorname{LayerNorm}(x))$$
#
# ![Post-norm has the norm on the main path, after the sum; pre-norm has it inside the branch, before the sublayer](../figures/05_residual.svg)

# %% [markdown]
# The sublayer is handed over when the wrapper is *called*. So the same few lines serve self-attention, cross-attention with
# its memory, and the feed-forward block. Dropout falls on the sublayer's output only: $x$ itself always gets through.


# %% tags=["exercise"]
class PostNorm(nn.Module):
    """Wrap a sublayer as the paper does: LayerNorm(x + Dropout(sublayer(x))). A stack of them needs no norm at its end.

    Source: Vaswani et al. 2017, sections 3.1 and 5.4.
    """

    final = nn.Identity

    def __init__(self, d_model: int, dropout: float = 0.0):
        super().__init__()
        self.norm = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], sublayer: Callable[[Tensor], Tensor]) -> Float[Tensor, "b t d"]:
        return self.norm(x + self.dropout(sublayer(x)))


# %% [markdown]
# Pre-norm leaves the main path free of norms. What leaves the top of such a stack is a bare sum, so it needs one more norm
# there: `final` says so, and the encoder and the decoder ask it.


# %%
class PreNorm(PostNorm):
    """Wrap a sublayer the later way: x + Dropout(sublayer(LayerNorm(x))). A stack of them ends with one more norm.

    Source: Xiong et al. 2020, figure 1.
    """

    final = LayerNorm

    def forward(self, x: Float[Tensor, "b t d"], sublayer: Callable[[Tensor], Tensor]) -> Float[Tensor, "b t d"]:
        return x + self.dropout(sublayer(self.norm(x)))


# %% [markdown]
# ## The proof
#
# The same seed, the same 24 layers, with five different wrappers. Which of them would you trust?

# %% tags=["active-ipynb"]
# norm = LayerNorm(64)
# runs = {
#     "nothing": bare,
#     "norm only": stack(lambda x, sublayer: norm(sublayer(x))),
#     "sum only": stack(lambda x, sublayer: x + sublayer(x)),
#     "post-norm": stack(PostNorm(64)),
#     "pre-norm": stack(PreNorm(64), PreNorm.final(64)),
# }
#
#
# def show(value):
#     return f"{value:5.2f}" if value < 100 else ">100 "
#
#
# print("             rows differ   size at the top   gradient at layer 1")
# for name, seen in runs.items():
#     print(f"{name:16}{differ(seen[-1]):.2f}{show(seen[-1].std()):>18}{show(seen[0].grad.norm()):>19}")

# %% [markdown]
# Each alone fails in its own way. The norm alone keeps sizes and gradients, but its seven words are one. The sum alone keeps
# the words, but numbers and gradients grow beyond use. With both, the numbers stay small, a gradient of the right size
# reaches layer 1, and the words still differ at the top: by half in pre-norm, by little in post-norm, where every norm shrinks
# the older part of the sum.

# %% [markdown]
# ### Equal to PyTorch's layer
#
# At the paper's size: 64 sentences, 8 tokens, 512 features, and a gain and a bias that are not 1 and 0:

# %% tags=["active-ipynb"]
# ours, torchs = LayerNorm(512), nn.LayerNorm(512)
# nn.init.normal_(ours.gain), nn.init.normal_(ours.bias)
# torchs.load_state_dict({"weight": ours.gain, "bias": ours.bias})
#
# x = 5 * torch.randn(64, 8, 512) + 3
# torch.testing.assert_close(ours(x), torchs(x))
# torch.testing.assert_close(layer_norm(x, ours.gain, ours.bias), torchs(x))
# print("x", *x.shape, "→", *ours(x).shape, "· means", *x.mean(-1).shape)

# %% [markdown]
# There is one mean for each of the 64 × 8 words. A batch norm would take one for each feature, over all words, padding
# included. Ours asks nobody: a word alone gets what it gets in company, in training and in translation.

# %% tags=["active-ipynb"]
# torch.testing.assert_close(ours(x)[3:4, 2:3], ours(x[3:4, 2:3]))

# %% [markdown]
# ### Two popular mistakes
#
# Many a homemade norm reads `(x - x.mean(-1)) / (x.std(-1) + eps)`. It looks right, it trains, and it is wrong twice.
#
# First, PyTorch's `std` divides by $d - 1$ unless told otherwise. The result is too small by a factor of $\sqrt{(d-1)/d}$:

# %% tags=["active-ipynb"]
# def homemade(x, eps=1e-5, correction=1):
#     return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=correction) + eps)
#
#
# for d in (4, 64, 512):
#     x = torch.randn(1000, d)
#     print(f"{d=:<4} too small by {1 - homemade(x).norm() / F.layer_norm(x, (d,)).norm():.1%}")

# %% [markdown]
# In width 512 nobody notices, until published weights give almost the published result. In a test of width 4 it stands out.
#
# Second, $\varepsilon$ added to $\sigma$ is not $\varepsilon$ inside the root. Take $(-1, -1, 1, 1)$, smaller and smaller,
# with the right $\sigma$ this time:

# %% tags=["active-ipynb"]
# for size in (1.0, 1e-3, 1e-4):
#     x = size * torch.tensor([-1.0, -1.0, 1.0, 1.0])
#     inside, outside = F.layer_norm(x, (4,))[-1], homemade(x, correction=0)[-1]
#     print(f"{size:6}   inside {inside:.2f}   outside {outside:.2f}")

# %% [markdown]
# Inside, $\varepsilon = 10^{-5}$ means: below $\sqrt\varepsilon \approx 0.003$, take it for noise and leave it small. Outside,
# noise of a ten-thousandth is blown up to a full signal. Its gradient is blown up as well, worst at a vector of zeros, such
# as the embedding of a padding token may be:

# %% tags=["active-ipynb"]
# for name, fn in (("inside", lambda x: F.layer_norm(x, (4,))), ("outside", homemade)):
#     zeros = torch.zeros(4, requires_grad=True)
#     fn(zeros)[0].backward()
#     print(f"{name:8} gradient {zeros.grad[0]:.0f}")

# %% [markdown]
# ### Which one is running?
#
# Well-known courses draw post-norm, program pre-norm, and do not mention the final norm. To find out, whatever the text says,
# give the wrapper a sublayer that returns zeros. Pre-norm hands $x$ through untouched; post-norm returns the norm of $x$.

# %% tags=["active-ipynb"]
# x = 5 * torch.randn(64, 8, 512) + 3
# for wrapper in (PostNorm, PreNorm):
#     out = wrapper(512)(x, torch.zeros_like)
#     is_x, is_normed = torch.equal(out, x), torch.equal(out, LayerNorm(512)(x))
#     print(f"{wrapper.__name__:9} {is_x = !s:6} {is_normed = !s:6} final: {wrapper.final.__name__}")

# %% [markdown]
# In this course **post-norm is running**, wherever nothing else is said: `EncoderLayer`, `DecoderLayer` and `Config` have it as
# their default, and pre-norm is one switch.

# %% [markdown]
# ### Does the placement matter?
#
# In pre-norm, every layer adds its share to a sum that is never normed; the final norm then divides by the size of that sum. So
# the deeper the stack, the less a single layer counts. In post-norm, the last layer is always at full volume:

# %% tags=["active-ipynb"]
# for n in (6, 24, 96):
#     post, pre = stack(PostNorm(64), n=n)[-1], stack(PreNorm(64), LayerNorm(64), n=n)[-1]
#     print(f"{n:2} layers · size at the top: post {post.std():.1f}, pre {pre.std():.1f}", end=" · ")
#     print(f"gradient at the last layer: post {post.grad.norm():.2f}, pre {pre.grad.norm():.2f}")

# %% [markdown]
# Four times the depth, about half the gradient: pre-norm turns itself down, roughly as $1/\sqrt{n}$. Post-norm doesn't, so its
# first steps are large at the top, and it wants a learning rate that starts small (Xiong et al. 2020): the warm-up of
# chapter 11. In return, its last layers are never drowned out.

# %% [markdown]
# ### The check
#
# `check_layer_norm` tries both popular mistakes, and double precision. `check_residual` tells five wrong
# ways to join sum and norm apart, and sees dropout on $x$ and a missing final norm.

# %% tags=["active-ipynb"]
# from transformer.checks import check_layer_norm, check_residual
#
# check_layer_norm(layer_norm)
# check_residual(PostNorm)
# check_residual(PreNorm, placement="pre")

# %% [markdown]
# ## The look
#
# The gradient that reaches each of the 24 layers, at initialisation. It enters at the right and travels left. The scale is
# logarithmic: a straight line is a constant factor at every layer.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# gradients = {name: [x.grad.norm().item() for x in seen] for name, seen in runs.items()}
#
# axes = dict(x=range(1, 25), xlabel="layer", ylabel="gradient")
#
# plot_lines(gradients, title="A gradient on its way down", logy=True, **axes)

# %% [markdown]
# Nothing: it vanishes. Sum only: it explodes. The other three arrive; of these, *norm only* has forgotten the words. The
# two that are left, on a plain scale:

# %% tags=["active-ipynb"]
# both = {name: gradients[name] for name in ("post-norm", "pre-norm")}
#
# plot_lines(both, title="Post-norm and pre-norm, before the first step", **axes)

# %% [markdown]
# Two temperaments. Post-norm is loud in its last layers. Pre-norm is loud in its first ones, where little has been added yet,
# and quiet from then on. Neither lets go of layer 1.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $\operatorname{LayerNorm}(x + \operatorname{Sublayer}(x))$ (section 3.1) | `PostNorm`, the default | the same |
# | dropout on each sublayer's output, before the sum (section 5.4) | the same | $x$ itself is never dropped |
# | no norm at the end of a stack | none with `PostNorm`, one with `PreNorm` | a bare sum leaves a pre-norm stack |
# | does not give $\varepsilon$ | $10^{-5}$, inside the root | as `nn.LayerNorm`, so that weights fit both ways |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | embeddings + positions | `b t d` | (64, 8, 512) |
# | multi-head attention | `b t d` → `b t d` | (64, 8, 512) |
# | mean and variance of each word | `b t` | (64, 8) |
# | gain, bias | `d` | (512) |
# | residual and norm around a sublayer | `b t d` → `b t d` | (64, 8, 512) |
#
# Now a second sublayer can stand on the first. What should it do that attention cannot?
# [Chapter 6](06_feed_forward.ipynb) gives every word time to think.
