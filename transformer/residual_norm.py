# %% [markdown]
r"""
# 5 · Residual and norm

**A deep stack forgets its input and loses its gradients. A sum and a norm keep both.**

![The architecture; every add-and-norm, with the residual that leads around its sublayer, is
lit](../figures/architecture_05.svg)
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
# Chapter 4 ended with a layer that maps (64, 8, 512) to (64, 8, 512), so layers can be stacked. We
# stack 24, alternating between attention and a small network (chapter 6 is about the network).

# %% tags=["active-ipynb"]
# from transformer.multi_head import MultiHeadAttention
#
# torch.set_num_threads(1)  # many small products are faster on one thread
#
#
# def layers(n, d):
#     """Yield n layers, alternating between attention and a small network."""
#     for _ in range(n // 2):
#         attention = MultiHeadAttention(d, 8)
#         yield lambda x: attention(x, x)
#         net = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, d))
#         for linear in (net[0], net[2]):
#             nn.init.xavier_uniform_(linear.weight)
#         yield net


# %% [markdown]
# Seven rows, one for each word of *there is a cat on the mat*, pass through the stack. Then a
# gradient of length 1 goes back down, as it would from a loss. `wrap` decides how each layer is
# applied; at first it only calls the layer.


# %% tags=["active-ipynb"]
# def stack(wrap, final=lambda x: x, n=24, d=64):
#     """Return the output of each of n layers; its `.grad` is the gradient that reached it."""
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
# We look for two things. On the way up: how far do the seven rows still **differ** from their
# average, as a share of their size? On the way down: how much of the gradient arrives?

# %% tags=["active-ipynb"]
# def difference(x):
#     """Return how far the rows are from their average, as a share of their size."""
#     return ((x - x.mean(1, keepdim=True)).norm() / x.norm()).item()
#
#
# bare = stack(lambda x, sublayer: sublayer(x))
# for i in (1, 2, 6, 12, 24):
#     x = bare[i - 1]
#     print(f"layer {i:2}   rows differ {difference(x):.3f}   gradient {x.grad.norm():.5f}")

# %% [markdown]
# Both are lost. At the top all seven rows are the same: each attention layer averages, and after 12
# averages nothing distinguishes *cat* from *mat* (Dong et al. 2021 prove how fast the rows
# converge). Layer 1 receives about 1/7,000 of the gradient. The layers near the input can tell the
# words apart but hardly learn; the layers near the output learn but can no longer tell the words
# apart.

# %% [markdown]
# ## By hand
#
# ### The sum
#
# The chain rule multiplies one factor for each layer. Let every layer multiply its input by a slope
# $s$: 24 layers make $s^{24}$. Now add each layer's input to its output, $x + s\,x$: the factor
# becomes $1 + s$.

# %% tags=["active-ipynb"]
# for s in (0.5, 0.1, 0.01, -0.01):
#     print(f"slope {s:5}   alone {s**24:.0e}   with its input added {(1 + s) ** 24:.2f}")

# %% [markdown]
# $(1 + s)^{24} = 1 + 24\,s + \dots$: the $1$ is the path that bypasses every layer. It helps on the
# way up, too: the input itself reaches the top, and each layer only adds to it.
#
# But look at the first row. A sum over 24 layers can explode, so something must keep it small.

# %% [markdown]
# ### The norm
#
# Take the four features $(1, 1, 5, 5)$. Their mean is $\mu = 3$. Each is 2 away from the mean, so
# the standard deviation is $\sigma = 2$. Subtract the mean and divide by the standard deviation:

# %% tags=["active-ipynb"]
# x = torch.tensor([1.0, 1.0, 5.0, 5.0])
# print((x - 3) / 2)
#
# x = 10 * x + 100
# print((x - x.mean()) / x.std(correction=0))

# %% [markdown]
# The second vector is ten times as large and shifted by 100, and the result is the same. Whatever a
# layer adds, the next one receives numbers of the same size.
#
# Some features may need a different size. So each feature has a learned **gain** and a learned
# **bias**, which start at 1 and 0.

# %% [markdown]
# ## The definition
#
# For a vector $x$ of $d$ features, with mean $\mu$ and variance $\sigma^2$ over these $d$ features,
#
# $$\operatorname{LayerNorm}(x) = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \odot g + b
# \qquad \mu = \frac{1}{d} \sum_i x_i \qquad \sigma^2 = \frac{1}{d} \sum_i (x_i - \mu)^2$$
#
# The small $\varepsilon$ is for a vector whose features are all equal: without it, the fraction
# would be $0/0$.


# %% tags=["exercise"]
def layer_norm(
    x: Float[Tensor, "... d_model"],
    gain: Float[Tensor, " d_model"],
    bias: Float[Tensor, " d_model"],
    eps: float = 1e-5,
) -> Float[Tensor, "... d_model"]:
    """Return every vector normalised to mean 0 and standard deviation 1, times gain plus bias.

    The variance divides by d, not d - 1, and eps is added inside the root.
    Source: Ba et al. 2016, section 3.1.
    """
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * gain + bias


# %% [markdown]
# The module holds gain and bias. PyTorch has the same formula in one fused kernel; the library uses
# it, and below we prove that it is the same function.


# %%
class LayerNorm(nn.Module):
    """Apply `layer_norm` with a learned gain and bias, in one fused kernel.

    Source: Ba et al. 2016, section 3.1.
    """

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return every vector of `x` normalised over its features."""
        return F.layer_norm(x, self.gain.shape, self.gain, self.bias, self.eps)


# %% [markdown]
# Sum and norm can be combined in two ways. **Post-norm** is the paper's, and our default.
# **Pre-norm** came later:
#
# $$\begin{aligned}
# \text{post-norm: } & \operatorname{LayerNorm}(x + \operatorname{sublayer}(x)) \\
# \text{pre-norm: } & x + \operatorname{sublayer}(\operatorname{LayerNorm}(x))
# \end{aligned}$$
#
# ![Post-norm has the norm on the main path, after the sum; pre-norm has it inside the branch,
# before the sublayer](../figures/05_residual.svg)

# %% [markdown]
# The sublayer is passed in when the wrapper is *called*. So the same few lines serve
# self-attention, cross-attention with its memory, and the feed-forward block. Dropout applies to
# the sublayer's output only: $x$ itself is never dropped.


# %% tags=["exercise"]
class PostNorm(nn.Module):
    """Wrap a sublayer in post-norm, as in the paper: LayerNorm(x + Dropout(sublayer(x))).

    `final` is the layer at the end of a stack; after post-norm there is nothing left to do.
    Source: Vaswani et al. 2017, sections 3.1 and 5.4.
    """

    final: type[nn.Module] = nn.Identity

    def __init__(self, d_model: int, dropout: float = 0.0):
        super().__init__()
        self.norm = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b t d_model"], sublayer: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "b t d_model"]:
        """Return the norm of `x` plus the sublayer's output; `sublayer` keeps the shape of `x`."""
        return self.norm(x + self.dropout(sublayer(x)))


# %% [markdown]
# Pre-norm keeps the main path free of norms. The output of such a stack is a plain sum, so it needs
# one more norm at the end. The class attribute `final` says which layer that is; the encoder and
# the decoder build it.


# %%
class PreNorm(PostNorm):
    """Wrap a sublayer in pre-norm: x + Dropout(sublayer(LayerNorm(x))).

    `final` is the layer at the end of a stack; after pre-norm it is one more norm.
    Source: Xiong et al. 2020, figure 1.
    """

    final: type[nn.Module] = LayerNorm

    def forward(
        self, x: Float[Tensor, "b t d_model"], sublayer: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "b t d_model"]:
        """Return `x` plus the sublayer's output for the norm of `x`."""
        return x + self.dropout(sublayer(self.norm(x)))


# %% [markdown]
# ## The proof
#
# The same seed and the same 24 layers, with five different wrappers. Which of them would you trust?

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
#     top = show(seen[-1].std())
#     gradient = show(seen[0].grad.norm())
#     print(f"{name:16}{difference(seen[-1]):.2f}{top:>18}{gradient:>19}")

# %% [markdown]
# Neither is enough alone. With the norm only, sizes and gradients are fine, but the seven rows
# become the same. With the sum only, the rows still differ, but numbers and gradients explode. With
# both, the numbers stay small, a gradient of the right size reaches layer 1, and the rows still
# differ at the top: by half in pre-norm, by little in post-norm, where every norm shrinks the older
# part of the sum.

# %% [markdown]
# ### Equal to PyTorch's layer
#
# At the paper's size: 64 sentences, 8 tokens, 512 features, and a gain and a bias that are not 1
# and 0:

# %% tags=["active-ipynb"]
# ours = LayerNorm(512)
# theirs = nn.LayerNorm(512)
# nn.init.normal_(ours.gain)
# nn.init.normal_(ours.bias)
# theirs.load_state_dict({"weight": ours.gain, "bias": ours.bias})
#
# x = 5 * torch.randn(64, 8, 512) + 3
# torch.testing.assert_close(ours(x), theirs(x))
# torch.testing.assert_close(layer_norm(x, ours.gain, ours.bias), theirs(x))
# print("x", *x.shape, "→", *ours(x).shape, "· means", *x.mean(-1).shape)

# %% [markdown]
# There is one mean for each of the 64 × 8 words. Batch norm would take one for each feature, over
# all words, padding included. Layer norm looks at one word only, so a word gets the same result in
# any batch, in training and in translation:

# %% tags=["active-ipynb"]
# torch.testing.assert_close(ours(x)[3:4, 2:3], ours(x[3:4, 2:3]))

# %% [markdown]
# ### Two popular mistakes
#
# Many hand-written norms compute `(x - x.mean(-1)) / (x.std(-1) + eps)`. This looks right and it
# trains, but it is wrong twice.
#
# First, PyTorch's `std` divides by $d - 1$ unless told otherwise. The result is too small by a
# factor of $\sqrt{(d-1)/d}$:

# %% tags=["active-ipynb"]
# def homemade(x, eps=1e-5, correction=1):
#     centred = x - x.mean(-1, keepdim=True)
#     return centred / (x.std(-1, keepdim=True, correction=correction) + eps)
#
#
# for d in (4, 64, 512):
#     x = torch.randn(1000, d)
#     print(f"{d=:<4} too small by {1 - homemade(x).norm() / F.layer_norm(x, (d,)).norm():.1%}")

# %% [markdown]
# At width 512 the error is easy to miss: with published weights you get almost, but not quite, the
# published result. A test at width 4 shows it at once.
#
# Second, $\varepsilon$ added to $\sigma$ is not $\varepsilon$ inside the root. Take
# $(-1, -1, 1, 1)$ and make it smaller and smaller, with the right $\sigma$ this time:

# %% tags=["active-ipynb"]
# for size in (1.0, 1e-3, 1e-4):
#     x = size * torch.tensor([-1.0, -1.0, 1.0, 1.0])
#     inside = F.layer_norm(x, (4,))[-1]
#     outside = homemade(x, correction=0)[-1]
#     print(f"{size:6}   inside {inside:.2f}   outside {outside:.2f}")

# %% [markdown]
# With $\varepsilon = 10^{-5}$ inside the root, a vector whose $\sigma$ is below
# $\sqrt\varepsilon \approx 0.003$ counts as noise and stays small. With $\varepsilon$ outside,
# noise of size 0.0001 is amplified almost to a full signal. The gradient is amplified as well, most
# of all at a vector of zeros, such as the embedding of a padding token may be:

# %% tags=["active-ipynb"]
# for name, fn in (("inside", lambda x: F.layer_norm(x, (4,))), ("outside", homemade)):
#     zeros = torch.zeros(4, requires_grad=True)
#     fn(zeros)[0].backward()
#     print(f"{name:8} gradient {zeros.grad[0]:.0f}")

# %% [markdown]
# ### Which one is running?
#
# Text and code can disagree: The Annotated Transformer states the post-norm formula, but its code
# puts the norm first, "for code simplicity", and adds one at the end. To find out which one is
# running, give the wrapper a sublayer that returns zeros. Pre-norm returns $x$ unchanged; post-norm
# returns the norm of $x$.

# %% tags=["active-ipynb"]
# x = 5 * torch.randn(64, 8, 512) + 3
# for cls in (PostNorm, PreNorm):
#     out = cls(512)(x, torch.zeros_like)
#     is_x = torch.equal(out, x)
#     is_normed = torch.equal(out, LayerNorm(512)(x))
#     print(f"{cls.__name__:9} {is_x = !s:6} {is_normed = !s:6} final: {cls.final.__name__}")

# %% [markdown]
# This course runs **post-norm** unless it says otherwise: it is the default of `EncoderLayer`,
# `DecoderLayer` and `Config`, and one argument switches to pre-norm.

# %% [markdown]
# ### Does the placement matter?
#
# In pre-norm, every layer adds its share to a sum that is never normalised; the final norm then
# divides by the size of that sum. So the deeper the stack, the less a single layer counts. In
# post-norm, the last layer counts the same at any depth:

# %% tags=["active-ipynb"]
# for n in (6, 24, 96):
#     post = stack(PostNorm(64), n=n)[-1]
#     pre = stack(PreNorm(64), LayerNorm(64), n=n)[-1]
#     top = f"post {post.std():.1f}, pre {pre.std():.1f}"
#     last = f"post {post.grad.norm():.2f}, pre {pre.grad.norm():.2f}"
#     print(f"{n:2} layers · size at the top: {top} · gradient at the last layer: {last}")

# %% [markdown]
# At four times the depth, pre-norm has about half the gradient: it shrinks roughly as $1/\sqrt{n}$.
# Post-norm does not shrink it. Its first steps are therefore large at the top, and it needs a
# learning rate that starts small (Xiong et al. 2020): the warm-up of chapter 11. In return, its
# last layers keep their full effect at any depth.

# %% [markdown]
# ### The check
#
# `check_layer_norm` tries both popular mistakes, and double precision. `check_residual` recognises
# five wrong ways to combine sum and norm, and detects dropout on $x$ and a missing final norm.

# %% tags=["active-ipynb"]
# from transformer.checks import check_layer_norm, check_residual
#
# check_layer_norm(layer_norm)
# check_residual(PostNorm)
# check_residual(PreNorm, placement="pre")

# %% [markdown]
# ## The look
#
# The gradient that reaches each of the 24 layers, at initialisation. It enters at the right and
# moves left. The scale is logarithmic: a straight line is the same factor at every layer.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# gradients = {name: [x.grad.norm().item() for x in seen] for name, seen in runs.items()}
#
# axes = dict(x=range(1, 25), xlabel="layer", ylabel="gradient")
#
# plot_lines(gradients, title="The gradient at each layer", logy=True, **axes)

# %% [markdown]
# With nothing around the layers the gradient vanishes; with the sum only it explodes. In the other
# three it arrives, but *norm only* can no longer tell the words apart. The remaining two, on a
# linear scale:

# %% tags=["active-ipynb"]
# both = {name: gradients[name] for name in ("post-norm", "pre-norm")}
#
# plot_lines(both, title="Post-norm and pre-norm, before the first step", **axes)

# %% [markdown]
# In post-norm, the last layers receive the largest gradients. In pre-norm, the first ones do, where
# little has been added yet, and all later ones receive less. In both, layer 1 receives enough to
# learn.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $\operatorname{LayerNorm}(x + \operatorname{Sublayer}(x))$ (section 3.1) | `PostNorm`, the default | the same |
# | dropout on each sublayer's output, before the sum (section 5.4) | the same | $x$ itself is never dropped |
# | no norm at the end of a stack | none with `PostNorm`, one with `PreNorm` | a plain sum leaves a pre-norm stack |
# | does not give $\varepsilon$ | $10^{-5}$, inside the root | as in `nn.LayerNorm`, so that weights can be exchanged |

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
# Now a second sublayer can follow the first. What should it do that attention cannot?
# [Chapter 6](06_feed_forward.ipynb) shows what is missing, and adds it.
