# %% [markdown]
r"""
# 5 · Residual and norm

**A deep stack forgets its input and loses its gradients. A sum and a norm keep both.**

![The architecture; every add-and-norm, with the residual that leads around its sublayer, is
lit](../figures/architecture_05.svg)
"""

# %% [markdown]
# **What you need**: [chapter 4](04_multi_head.ipynb), for the layer that is stacked; mean and
# standard deviation; the chain rule. About 40 minutes. In the paper: [sections 3.1 and
# 5.4](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/05_residual_norm.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/05_residual_norm.ipynb).
#
# **What you will be able to do**
#
# - say what a deep stack loses, and which of the two, the sum or the norm, keeps what;
# - write layer norm without the two popular mistakes;
# - tell post-norm from pre-norm by a test, and choose between them.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The question
#
# Chapter 4 ended with a layer that returns the shape it was given, so layers can be stacked. We
# stack 24, alternating between attention and the small network of chapter 6, all with new random
# weights. `wrap` decides how each layer is applied; at first it only calls the layer.

# %% tags=["active-ipynb"]
# from transformer.example import after, tokens, weights
# from transformer.feed_forward import FeedForward
# from transformer.multi_head import MultiHeadAttention
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
#
#
# def layers(n):
#     return [FeedForward(24, 48) if i % 2 else MultiHeadAttention(24, 4) for i in range(n)]
#
#
# def as_function(layer):
#     return (lambda x: layer(x, x)) if isinstance(layer, MultiHeadAttention) else layer
#
#
# class Nothing(nn.Module):
#     final = nn.Identity  # what stands at the end of the stack
#
#     def __init__(self, d_model):
#         super().__init__()
#
#     def forward(self, x, sublayer):
#         return sublayer(x)

# %% [markdown]
# The eight rows of *there is a cat on the mat* pass through the stack. Then a gradient of length 1
# goes back down, as it would from a loss. On the way up: how far do the rows still **differ** from
# their average, as a share of their size? On the way down: how much of the gradient arrives? Both
# are measured at each layer, as the median of five seeds.

# %% tags=["active-ipynb"]
# sentence = after(2)[:1]
#
#
# def difference(x):
#     return ((x - x.mean(1, keepdim=True)).norm() / x.norm()).item()
#
#
# def measure(wrapper, n=24):
#     """Return difference, size and gradient at each of n layers, and the last one's effect."""
#     runs = []
#     effects = []
#     for seed in range(5):
#         torch.manual_seed(seed)
#         seen = [sentence]
#         push = torch.randn(1, 8, 24)
#         wrap = wrapper(24)
#         final = wrapper.final(24)
#         for layer in layers(n):
#             seen.append(wrap(seen[-1], as_function(layer)))
#             seen[-1].retain_grad()
#         final(seen[-1]).backward(push / push.norm())
#         runs.append([[difference(x), x.std().item(), x.grad.norm().item()] for x in seen[1:]])
#         change = final(seen[-1]) - final(seen[-2])
#         effects.append((change.norm() / final(seen[-1]).norm()).item())
#     return torch.tensor(runs).median(0).values, sorted(effects)[2]

# %% [markdown]
# Which will be lost first, the differences or the gradient?

# %% tags=["active-ipynb"]
# bare, _ = measure(Nothing)
# for i in (1, 2, 6, 12, 24):
#     rows, _, gradient = bare[i - 1].tolist()
#     print(f"layer {i:2}   rows differ {rows:.2f}   gradient {gradient:.4f}")

# %% [markdown]
# Both are lost. After six layers all eight rows are nearly the same: each attention layer averages,
# and soon nothing distinguishes *cat* from *mat* (Dong et al. 2021 prove how fast the rows
# converge). Layer 1 receives less than a five-hundredth of the gradient. The layers near the input
# can tell the words apart but hardly learn; the layers near the output learn but can no longer tell
# the words apart.

# %% [markdown]
# ## By hand
#
# ### The sum
#
# The chain rule multiplies one factor for each layer. Let every layer multiply its input by a slope
# $s$: 24 layers make $s^{24}$. Now add each layer's input to its output, $x + s\,x$: the factor
# becomes $1 + s$. What will be left of a slope of 0.01?

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
# For a vector $x$ with mean $\mu$ and variance $\sigma^2$ over its $d_\text{model}$ features,
#
# $$\operatorname{LayerNorm}(x) = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \odot g + b$$
#
# $$\mu = \frac{1}{d_\text{model}} \sum_i x_i
# \qquad \sigma^2 = \frac{1}{d_\text{model}} \sum_i (x_i - \mu)^2$$
#
# with the gain $g$ and the bias $b$, multiplied and added feature by feature. The small
# $\varepsilon$ is for a vector whose features are all equal: without it, the fraction would be
# $0/0$.


# %% tags=["exercise"]
def layer_norm(
    x: Float[Tensor, "... d_model"],
    gain: Float[Tensor, " d_model"],
    bias: Float[Tensor, " d_model"],
    eps: float = 1e-5,
) -> Float[Tensor, "... d_model"]:
    """Return every vector normalised to mean 0 and standard deviation 1, times gain plus bias.

    The variance divides by d_model, not d_model - 1, and eps is added inside the root.
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
# self-attention, cross-attention with its memory, and the feed-forward block.
#
# **Dropout** sets each number to 0 with a given probability in training, and enlarges the others so
# that their mean stays; in translation it does nothing. No sublayer can then rely on a single
# feature. It applies to the sublayer's output only: $x$ itself is never dropped.


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
# ### The running example
#
# Chapter 4's attention was computed from `after(2)`. Add the two, and norm the sum with the trained
# gain and bias, to get `after(5)`:

# %% tags=["active-ipynb"]
# torch.set_printoptions(precision=2, sci_mode=False)
# residual = PostNorm(24)
# residual.load_state_dict(weights("encoder.layers.0.residuals.0"))
# x = residual(after(2), lambda x: after(4))
#
# torch.testing.assert_close(x, after(5))
# cat = tokens(after(0))[0].index("cat")
# print("cat          ", after(2)[0, cat, :4])
# print("its attention", after(4)[0, cat, :4])
# print("after(5)     ", x[0, cat, :4].detach())

# %% [markdown]
# ### Which part keeps what?
#
# The same seeds and the same 24 layers, with five different wrappers. Before you run the cell:
# which of them will keep the rows apart *and* the gradient alive?

# %% tags=["active-ipynb"]
# class NormOnly(Nothing):
#     def __init__(self, d_model):
#         super().__init__(d_model)
#         self.norm = LayerNorm(d_model)
#
#     def forward(self, x, sublayer):
#         return self.norm(sublayer(x))
#
#
# class SumOnly(Nothing):
#     def forward(self, x, sublayer):
#         return x + sublayer(x)
#
#
# wrappers = dict(zip(("nothing", "norm only", "sum only"), (Nothing, NormOnly, SumOnly)))
# wrappers |= {"post-norm": PostNorm, "pre-norm": PreNorm}
# runs = {name: measure(wrapper)[0] for name, wrapper in wrappers.items()}
#
# print("           rows differ at layer 6 and 24   size at 24   gradient at 1")
# for name, run in runs.items():
#     values = [run[5, 0], run[23, 0], run[23, 1], run[0, 2]]
#     shown = [f"{value:.1f}" if value < 100 else ">100" for value in values]
#     print("{:10}{:>20}{:>8}{:>15}{:>14}".format(name, *shown))

# %% [markdown]
# - **Norm only**: the sizes are right and a gradient arrives, but after six layers the rows are the
#   same.
# - **Sum only**: the rows differ much longer, but numbers and gradients explode.
# - **Both**: the numbers stay small, a gradient arrives, and at layer 6 the rows differ.
#
# At layer 24 only pre-norm still keeps the rows well apart. With the sum alone and in post-norm
# they have become similar: every layer of untrained attention adds the average of all rows once
# more, and what the rows share outgrows what they do not. Training can correct this if a usable
# gradient reaches every layer. Below we test which of the five can be trained.

# %% [markdown]
# ### Equal to PyTorch
#
# At the paper's size: 64 sentences, 8 tokens, 512 features, and a gain and a bias that are not 1
# and 0:

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
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
# Many hand-written norms, that of The Annotated Transformer among them, divide by
# `x.std(-1, keepdim=True) + eps`. This looks right and it trains, but it is wrong twice.
#
# First, PyTorch's `std` divides by $d_\text{model} - 1$ unless told otherwise. The result is too
# small by a factor of $\sqrt{(d_\text{model}-1)/d_\text{model}}$. At which width would you look for
# this?

# %% tags=["active-ipynb"]
# def homemade(x, eps=1e-5, correction=1):
#     centred = x - x.mean(-1, keepdim=True)
#     return centred / (x.std(-1, keepdim=True, correction=correction) + eps)
#
#
# for d_model in (4, 64, 512):
#     x = torch.randn(1000, d_model)
#     shrunk = homemade(x).norm() / F.layer_norm(x, (d_model,)).norm()
#     print(f"{d_model=:<4} too small by {1 - shrunk:.1%}")

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
# of all at a vector of zeros:

# %% tags=["active-ipynb"]
# for name, norm in (("inside", lambda x: F.layer_norm(x, (4,))), ("outside", homemade)):
#     zeros = torch.zeros(4, requires_grad=True)
#     norm(zeros)[0].backward()
#     print(f"{name:8} gradient {zeros.grad[0]:.0f}")

# %% [markdown]
# ### Which one is running?
#
# Text and code can disagree: The Annotated Transformer states the post-norm formula, but its code
# puts the norm first, "for code simplicity", and adds one at the end. Give the wrapper a sublayer
# that returns zeros. What does each of the two return then?

# %% tags=["active-ipynb"]
# x = 5 * torch.randn(64, 8, 512) + 3
# for cls in (PostNorm, PreNorm):
#     out = cls(512)(x, torch.zeros_like)
#     is_x = torch.equal(out, x)
#     is_normed = torch.equal(out, LayerNorm(512)(x))
#     print(f"{cls.__name__:9} {is_x = !s:6} {is_normed = !s:6} final: {cls.final.__name__}")

# %% [markdown]
# Pre-norm returns $x$ unchanged, post-norm the norm of $x$. This course runs **post-norm** unless
# it says otherwise: it is the default of `EncoderLayer`, `DecoderLayer` and `Config`, and one
# argument switches to pre-norm.

# %% [markdown]
# ### Does the placement matter?
#
# In pre-norm, every layer adds its share to a sum that is never normed; the final norm then divides
# by the size of that sum. By how much does the output change if the last layer is left out?

# %% tags=["active-ipynb"]
# for n in (6, 24, 96):
#     shown = [f"{name} {measure(wrappers[name], n)[1]:.2f}" for name in ("post-norm", "pre-norm")]
#     print(f"{n:2} layers · effect of the last one: {shown[0]}, {shown[1]}")

# %% [markdown]
# In pre-norm, the deeper the stack, the less a single layer counts. In post-norm, the last layer
# changes half of the output at any depth.

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
# gradients = {name: run[:, 2] for name, run in runs.items()}
# axes = dict(x=range(1, 25), xlabel="layer", ylabel="gradient")
#
# plot_lines(gradients, title="The gradient at each layer", logy=True, **axes)

# %% [markdown]
# With nothing around the layers the gradient vanishes; with the sum only it explodes. The two that
# combine sum and norm, on a linear scale:

# %% tags=["active-ipynb"]
# both = {name: gradients[name] for name in ("post-norm", "pre-norm")}
#
# plot_lines(both, title="Post-norm and pre-norm, before the first step", among=gradients, **axes)

# %% [markdown]
# In post-norm, the last layers receive the largest gradients, so their first steps are large. In
# pre-norm, the first layers do, and nothing stands out at the top.
#
# And how far do the rows of the *trained* example differ, from its input over both sums of its
# first layer to the output of its second?

# %% tags=["active-ipynb"]
# for step in (2, 5, 6, 7):
#     print(f"after({step})   rows differ {difference(after(step)[:1]):.1f}")

# %% [markdown]
# As much at the top as at the input: in training, its four sublayers learned to keep the words
# apart.

# %% [markdown]
# ## What if
#
# What if the sum or the norm is left out, and the stack is *trained*? Sixteen layers are to name,
# at each place, the word that stands there. The input says it; the stack only has to keep it. Apart
# from the wrapper everything is the same: seeds, batches and steps, and a learning rate that rises
# to its peak within 20 steps, which is called **warm-up**.


# %% tags=["active-ipynb"]
# from transformer.embeddings import TokenEmbedding
# from transformer.positional_encoding import PositionalEncoding
#
#
# def share_right(wrapper, peak, warmup, seed):
#     torch.manual_seed(seed)
#     embed = nn.Sequential(TokenEmbedding(10, 24), PositionalEncoding(24, 8))
#     stack = nn.ModuleList(layers(16))
#     wraps = nn.ModuleList(wrapper(24) for _ in stack)
#     name = nn.Sequential(wrapper.final(24), nn.Linear(24, 10))
#     weights = nn.ModuleList([embed, stack, wraps, name]).parameters()
#     optimizer = torch.optim.Adam(weights, lr=peak, fused=True)
#     schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup)
#     right = []
#     for _ in range(50):
#         ids = torch.randint(10, (16, 8))
#         x = embed(ids)
#         for layer, wrap in zip(stack, wraps):
#             x = wrap(x, as_function(layer))
#         logits = name(x)
#         optimizer.zero_grad()
#         F.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
#         optimizer.step()
#         schedule.step()
#         right.append((logits.argmax(-1) == ids).float().mean())
#     return torch.stack(right)

# %% [markdown]
# The sum alone gets a second chance with a tenth of the rate, because its gradients are large. And
# post-norm is tried without warm-up, too. Which of the six will learn to copy?

# %% tags=["active-ipynb"]
# variants = {name: (wrapper, 0.007, 20) for name, wrapper in wrappers.items() if name != "nothing"}
# variants["sum only, rate / 10"] = (SumOnly, 0.0007, 20)
# variants["post-norm, no warm-up"] = (PostNorm, 0.007, 1)
# curves = {
#     name: torch.stack([share_right(*variant, seed) for seed in range(3)])
#     for name, variant in variants.items()
# }
# for name, right in curves.items():
#     at_the_end = right[:, -5:].mean(1)
#     learned = name in ("post-norm", "pre-norm")
#     assert at_the_end.min() > 0.8 if learned else at_the_end.max() < 0.4
#
# means = {name: right.mean(0) for name, right in curves.items()}
# plot_lines(
#     means,
#     xlabel="step",
#     ylabel="share right",
#     title="Copy: mean of 3 seeds, 16 layers",
#     among=[*gradients, *means],  # the colours of the plots above
# )

# %% [markdown]
# Only sum and norm together learn it; with one of them alone the stack stays near one in ten, which
# is chance. Pre-norm learns first. Post-norm, whose rows were even more alike before training than
# those of the sum alone, learns as well, but only with warm-up: without it, the first steps spoil
# the stack (Xiong et al. 2020 trace this to the large gradients at the top). This is why chapter 11
# has a schedule.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 5.1 | Layer norm | write the block | 10 | ★☆☆ |
# | 5.2 | Post-norm | write the block | 10 | ★☆☆ |
# | 5.3 | Two layers on paper | by hand | 10 | ★☆☆ |
# | 5.4 | Around the sublayer | find the bug | 10 | ★★☆ |
# | 5.5 | A test for a norm | write the test | 20 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 5` says what is wrong, and `course hint 5.1` gives a hint.

# %% [markdown]
# ## Summary
#
# The sum gives input and gradient a path around every layer, and the norm keeps the numbers small;
# a deep stack needs both. The norm uses the mean and variance of one word's features, divided by
# $d_\text{model}$ and with $\varepsilon$ inside the root. Post-norm, the paper's order, gives every
# last layer its full effect but needs warm-up; pre-norm trains more easily, and its late layers
# count less.
#
# **Write it from memory**: close the chapter and write `layer_norm` and `PostNorm`;
# `check_layer_norm(layer_norm)` and `check_residual(PostNorm)` say whether they are right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $\operatorname{LayerNorm}(x + \operatorname{Sublayer}(x))$ ([section 3.1](https://arxiv.org/abs/1706.03762)) | `PostNorm`, the default | the same |
# | dropout on each sublayer's output, before the sum (section 5.4) | the same | $x$ itself is never dropped |
# | no norm at the end of a stack | none with `PostNorm`, one with `PreNorm` | a plain sum leaves a pre-norm stack |
# | does not give $\varepsilon$ | $10^{-5}$, inside the root | as in `nn.LayerNorm`, so that weights can be exchanged |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | embeddings + positions | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
# | multi-head attention | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
# | mean and variance of each word | `b t` | (2, 8) | (64, 8) |
# | gain, bias | `d_model` | (24) | (512) |
# | residual and norm around a sublayer | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
#
# Now a second sublayer can follow the first. What should it do that attention cannot? [Chapter
# 6](06_feed_forward.ipynb) shows what is missing, and adds it.
