# %% [markdown]
r"""
# 15 · Fast training

**The same loss and the same gradients, in less time and memory. Optional, and for engineers.**

![The architecture; the three attention blocks, and the linear layer and softmax at the end, are lit](../figures/architecture_15.svg)
"""

# %% [markdown]
# **What you need**: [chapter 11](11_training.ipynb), for the loss and the `Trainer`;
# [chapters 3](03_attention.ipynb) and [8](08_decoder.ipynb), for attention and the causal mask.
# About 45 minutes. The paper says hardly anything about this.
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/15_fast_training.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/15_fast_training.ipynb).
#
# **What you will be able to do**
#
# - find out which part of a training step is worth the work, before you do it;
# - compute cross-entropy and its gradients without ever holding the logits of all tokens;
# - say which changes keep the numbers, which keep only their distribution, and which change them.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
# Submodules have no types of their own in PyTorch.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
import copy
import math
from collections.abc import Callable
from itertools import chain

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.attention import attention
from transformer.cpu.linear import FastLinear, fast_linear, refuse_second_derivative
from transformer.cpu.operators import causal_flash_attention
from transformer.data import Batch
from transformer.model import Transformer
from transformer.multi_head import MultiHeadAttention
from transformer.training import label_smoothed_loss

# %% [markdown]
# ## The question
#
# Every block of the course is written to be read. Where PyTorch has a fused kernel, a training step
# with these blocks already runs it. What is left to gain, and where does the time go?
#
# There is one rule: **measure, change one thing, measure again**, and prove what has stayed the
# same. Nothing here changes the earlier chapters: each faster part is passed in from above, as the
# loss of a `Trainer` or as the attention function of a layer.

# %% [markdown]
# The subject is a model of the size that `python -m transformer train` gives to Multi30k, and a
# batch of 32 pairs of sentences with 16 tokens each. This is one step with the blocks as they are:

# %% tags=["active-ipynb"]
# import time
#
# from transformer.model import Config
# from transformer.training import translation_loss
#
# torch.set_num_threads(1)
# torch.manual_seed(0)
# model = Transformer(Config.tiny(10_000, dropout=0.1))
# src = torch.randint(3, 10_000, (32, 16))
# tgt = torch.randint(3, 10_000, (32, 17))
# tgt[::3, -4:] = 0  # some are shorter
# batch = Batch(src, tgt)
#
#
# def step_of(model, loss):
#     """Return one forward and backward pass, to be called."""
#     return lambda: loss(model, batch, 0.1).backward()
#
#
# print(f"loss {translation_loss(model, batch, 0.1):.1f}, and log 10,000 is {math.log(10_000):.1f}")

# %% [markdown]
# Times depend on what else the computer does. So we count the processor's time that this process
# gets, let the candidates take turns, and keep the shortest time of each, because a disturbance
# only adds to it. And we measure the same step twice: **a difference as small as that of the two
# says nothing.**

# %% tags=["active-ipynb"]
# def race(candidates, rounds=3):
#     """Return the shortest time of each candidate, in milliseconds; they take turns."""
#     times = {name: [] for name in candidates}
#     for turn in range(rounds + 1):
#         for name, run in candidates.items():
#             start = time.process_time()
#             run()
#             if turn:  # the first turn warms up
#                 times[name].append(1e3 * (time.process_time() - start))
#     return {name: min(each) for name, each in times.items()}

# %% [markdown]
# What can be gained? **Leave a part out.** The step is wrong then, but no faster form of this part
# can save more than leaving it out does. A part with a share $s$ of the time makes the step at most
# $1 / (1 - s)$ times as fast: with a half, twice. (A profiler lists operators. It does not say
# which of them would be gone.)
#
# Before you run the cell: which of the three has the largest share, dropout, attention between its
# linear layers, or the loss with the layer that makes the logits?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.plotting import plot_bars, plot_lines
#
#
# def without_loss(model, batch, smoothing):
#     return model.decoder_states(batch.decoder_input, model.encode(batch.src), batch.src).sum()
#
#
# no_dropout = Transformer(Config.tiny(10_000, dropout=0.0))
# no_attention = copy.deepcopy(model)
# for module in no_attention.modules():
#     if isinstance(module, MultiHeadAttention):
#         module.attention_fn = lambda q, k, v, mask=None: q
#
# times = race(
#     {
#         "nothing": step_of(model, translation_loss),
#         "nothing, again": step_of(model, translation_loss),
#         "dropout": step_of(no_dropout, translation_loss),
#         "attention": step_of(no_attention, translation_loss),
#         "logits and loss": step_of(model, without_loss),
#     }
# )
# whole = times["nothing"]
# saved_shares = {name: round(1 - spent / whole, 2) for name, spent in times.items()}
# plot_bars(saved_shares, ylabel="share of the step", title="What leaving it out would save")

# %% tags=["active-ipynb", "nbval-ignore-output"]
# largest = max(saved_shares, key=saved_shares.get)
# print("the largest share:", largest)

# %% [markdown]
# So we begin with the loss. A good part of its time is one product, without which there would be
# no logits. How much of the model's *arithmetic* is in this layer? Count multiplications:

# %% tags=["active-ipynb"]
# from torch.utils.flop_counter import FlopCounterMode
#
#
# def multiplications(run):
#     with FlopCounterMode(display=False) as counter, torch.no_grad():
#         run()
#     return counter.get_total_flops() // 2  # a multiplication and an addition
#
#
# states = model.decoder_states(batch.decoder_input, model.encode(src), src)
# everything = multiplications(lambda: model(src, batch.decoder_input))
# last = multiplications(lambda: model.logits(states))
# print(f"{last / everything:.0%} of {everything:,}")

# %% [markdown]
# The products stay. What is beside them?
#
# ## By hand
#
# ### How large are the logits?
#
# The last layer gives a number to every entry of the vocabulary at every position. In a batch of
# 2,000 tokens, and in 192 of them:

# %% tags=["active-ipynb"]
# for tokens in (2_000, 192):
#     states_mb, logits_mb = (4 * tokens * width / 1e6 for width in (128, 10_000))
#     print(f"{tokens:5,} tokens: states {states_mb:.1f} MB · logits {logits_mb:.1f} MB")

# %% [markdown]
# The logits do not come alone: the log-softmax and the gradient are just as large. Each is written
# to memory and read back, because 80 MB are more than the cache of most processors holds. The
# matrices of 192 tokens stay in it.
#
# ### A loss needs no logits
#
# What training needs is the gradient. For the cross-entropy of one token, with the label $y$ as a
# row of probabilities, it is short:
#
# $$\frac{\partial\,\text{loss}}{\partial\,\text{logits}} = \text{softmax}(\text{logits}) - y$$
#
# Three entries; the second is the label. What is the gradient of the second logit, if its
# probability is 0.245?

# %% tags=["active-ipynb"]
# logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
# F.cross_entropy(logits, torch.tensor(1)).backward()
# softmax = logits.softmax(-1).detach()
# print(softmax.numpy().round(3), "minus the label:", logits.grad.numpy().round(3))

# %% [markdown]
# The gradient of a token's state is this row times the table. The gradient of the table is a sum
# over tokens, so it can be collected a few tokens at a time. As soon as a chunk's softmax is there,
# multiply it by the table and by the states, and drop it: nothing large is ever kept.
#
# ![Cross-entropy at once holds 2,000 × 10,000 logits and their gradient; in chunks of 192 tokens each is used and dropped](../figures/15_chunks.svg)

# %% [markdown]
# ## The definition
#
# ### The loss in chunks
#
# The smoothed label of chapter 11 has the same share at every entry of the vocabulary except
# padding, and $1-\varepsilon$ more at the label. So the loss of a token with the logits $z$ splits
# into three terms, for a vocabulary of $V$ entries:
#
# $$\ell = \log\sum_i e^{z_i} \;-\; (1-\varepsilon)\,z_y
# \;-\; \frac{\varepsilon}{V-1} \sum_{i \ne \text{pad}} z_i$$
#
# Only the first needs all logits at once, so it is computed in chunks, with its gradients:


# %%
def softmax_term(
    x: Float[Tensor, "t d_model"],
    weight: Float[Tensor, "vocab d_model"],
    bias: Float[Tensor, " vocab"],
    labels: Int[Tensor, " t"],
    chunk: int,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return Σ log Σ exp(x Wᵀ + b), the sum of the labels' logits, and gradients of the first.

    Only the logits of `chunk` tokens exist at a time.
    """
    total = torch.zeros((), device=x.device)
    label_logits = torch.zeros((), device=x.device)
    dx = torch.empty_like(x)
    dweight = torch.zeros(weight.t().shape, device=x.device)
    dbias = torch.zeros(bias.shape, device=x.device)
    for start in range(0, len(x), chunk):
        rows = x[start : start + chunk]
        logits = fast_linear(rows, weight, bias)
        softmax = logits.softmax(-1)
        # log Σ exp is the largest logit minus the log of its probability: no second pass with exp.
        total += (logits.amax(-1).float() - softmax.amax(-1).float().log()).sum()
        label = labels[start : start + chunk].unsqueeze(-1)
        label_logits += logits.gather(-1, label).float().sum()
        dx[start : start + chunk] = fast_linear(softmax, weight.t())
        dbias += softmax.sum(0)
        dweight += fast_linear(rows.t(), softmax.t())
    return total, label_logits, (dx.float(), dweight.t().contiguous(), dbias)


# %% [markdown]
# The other two terms are a few vectors: a mean row of the table, and one row for each label.


# %%
def loss_and_gradients(
    x: Float[Tensor, "t d_model"],
    weight: Float[Tensor, "vocab d_model"],
    bias: Float[Tensor, " vocab"],
    labels: Int[Tensor, " t"],
    pad_id: int,
    smoothing: float,
    chunk: int,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return the summed label-smoothed loss of x Wᵀ + b and its gradients in x, W and b.

    Under autocast the products are in its precision; sums and gradients are in float32.
    """
    n = len(x)
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    share = torch.full_like(bias, smoothing / (len(bias) - 1), dtype=torch.float32)
    share.index_fill_(0, labels.new_tensor([pad_id]), 0.0)
    with torch.autocast(kind, enabled=False):
        total, label_logits, (dx, dweight, dbias) = softmax_term(
            x.to(dtype), weight.to(dtype), bias.to(dtype), labels, chunk
        )
        x = x.float()
        sum_x = x.sum(0)
        mean_row = share @ weight.float()
        mean_bias = (share * bias).where(share > 0, 0.0).sum()  # a bias may be -inf
        loss = total - (1 - smoothing) * label_logits - (mean_row @ sum_x + n * mean_bias)
        dx.sub_(mean_row).sub_((1 - smoothing) * F.embedding(labels, weight))
        dweight.addr_(share, sum_x, alpha=-1).index_add_(0, labels, x, alpha=smoothing - 1)
        dbias.sub_(n * share).index_add_(0, labels, torch.ones_like(x[:, 0]), alpha=smoothing - 1)
    return loss, (dx, dweight, dbias)


# %% [markdown]
# Autograd gets a function with a backward pass of its own: `forward` has made the gradients
# already, and `backward` scales them. It cannot be differentiated twice, and says so.


# %%
class ChunkedCrossEntropy(torch.autograd.Function):
    """The mean of `loss_and_gradients`, whose gradients are made on the way forward."""

    @staticmethod
    def forward(ctx, x, weight, bias, labels, pad_id: int, smoothing: float, chunk: int) -> Tensor:
        loss, gradients = loss_and_gradients(x, weight, bias, labels, pad_id, smoothing, chunk)
        ctx.save_for_backward(*gradients)
        return loss / len(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        refuse_second_derivative("ChunkedCrossEntropy")
        dx, dweight, dbias = ctx.saved_tensors
        scale = grad / len(dx)
        return dx * scale, dweight * scale, dbias * scale, None, None, None, None


# %% tags=["exercise"]
def chunked_cross_entropy(
    x: Float[Tensor, "t d_model"],
    weight: Float[Tensor, "vocab d_model"],
    bias: Float[Tensor, " vocab"],
    labels: Int[Tensor, " t"],
    pad_id: int,
    smoothing: float = 0.1,
    chunk: int = 192,
) -> Float[Tensor, ""]:
    """Return `label_smoothed_loss` of the logits x Wᵀ + b, `chunk` tokens at a time.

    Gradients, equal to those of the plain loss, are computed only if grad mode is on.
    """
    real = (labels != pad_id) & (labels != -100)
    x = x[real]
    labels = labels[real]
    if torch.is_grad_enabled():
        return ChunkedCrossEntropy.apply(x, weight, bias, labels, pad_id, smoothing, chunk)
    total = torch.zeros((), device=x.device)
    for rows, part in zip(x.split(chunk), labels.split(chunk), strict=True):
        loss = label_smoothed_loss(F.linear(rows, weight, bias), part, pad_id, smoothing)
        total += len(rows) * loss
    return total / len(x)


# %% [markdown]
# Chapter 11's `Trainer` takes any loss of model, batch and smoothing. So this one is passed in:
# `Trainer(model, config, loss=chunked_loss)`.


# %%
def chunked_loss(model: Transformer, batch: Batch, smoothing: float) -> Float[Tensor, ""]:
    """Return `translation_loss` of a batch without ever holding the logits of all its tokens."""
    memory = model.encode(batch.src)
    states = model.decoder_states(batch.decoder_input, memory, batch.src)
    return chunked_cross_entropy(
        rearrange(states, "b t d_model -> (b t) d_model"),
        model.embedding.weight,
        model.bias,
        rearrange(batch.labels, "b t -> (b t)"),
        model.config.pad_id,
        smoothing,
    )


# %% [markdown]
# ### Half precision
#
# **bfloat16** has the range of float32 and 8 bits of precision in place of 24. Where a processor
# has instructions for it, products are faster, and their inputs take half the memory. **Autocast**
# runs products in bfloat16 and keeps the weights in float32. In our loss, logits and softmax are
# then in bfloat16 too; sums are in float32. It is a wrapper around any loss. This change is *not*
# exact; below we measure by how much.


# %%
Loss = Callable[[Transformer, Batch, float], Tensor]


def in_bfloat16(loss: Loss) -> Loss:
    """Return a loss that computes its products in bfloat16 (autocast)."""

    def run(model: Transformer, batch: Batch, smoothing: float) -> Tensor:
        with torch.autocast(batch.src.device.type, torch.bfloat16):
            return loss(model, batch, smoothing)

    return run


# %% [markdown]
# ### Cheap dropout
#
# PyTorch's dropout draws a random number in [0, 1) for every feature and compares it with $p$.
# Sixteen random bits are enough for the same decision, and four features can share one call of the
# generator. The probability is rounded to a multiple of 1/65,536, and what is kept is scaled by the
# rounded one, so the mean is exact. The bits are others than PyTorch's, so two runs with the same
# seed differ, as two seeds do.


# %%
class CheapDropout(nn.Module):
    """Dropout by 16 random bits a feature: p is rounded to 1/65,536, and the mean stays exact."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        dropped = round(self.p * 65_536)
        if not self.training or not dropped:
            return x
        words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64, device=x.device)
        bits = words.random_(-(2**63), None).view(torch.int16)[: x.numel()]
        keep = bits.reshape(x.shape) >= dropped - 32_768
        scale = torch.tensor(65_536 / (65_536 - dropped), dtype=x.dtype, device=x.device)
        return x * (keep * scale)


# %% [markdown]
# ### Attention for short sentences
#
# The fused kernel of chapter 3 saves memory: it never stores the weights, of which there are
# $q \cdot k$ for each head. For a sentence of 16 tokens these are 256 numbers, and there is nothing
# to save. Here the formula itself is enough, as two batched products. Long sentences use the
# kernel.
#
# A processor computes 8 or 16 numbers at once, a **vector register** full, and what is left over
# needs extra work. Fewer than 16 keys are therefore filled up with hidden ones.


# %%
LANES = 16  # float32 numbers in a vector register
SHORT = 1024  # up to this many weights a head, the formula is faster than the kernel


# %%
def short_attention(
    q: Float[Tensor, "b h q d_head"],
    k: Float[Tensor, "b h k d_head"],
    v: Float[Tensor, "b h k d_head"],
    mask: Bool[Tensor, "#b #h #q #k"] | None = None,
) -> Float[Tensor, "b h q d_head"]:
    """Return `attention`, in float32 also under autocast, for short sentences by the formula.

    On a CPU the fused kernel's backward pass is slow in bfloat16, and for short sentences it costs
    more than the weights that it does not store.
    """
    with torch.autocast(q.device.type, enabled=False):
        dtype = q.dtype
        q, k, v = (x.to(torch.promote_types(dtype, torch.float32)) for x in (q, k, v))
        if q.shape[-2] * k.shape[-2] > SHORT:
            return attention(q, k, v, mask).to(dtype)
        if k.shape[-2] < LANES:
            k, v, mask = fill_register(k, v, mask)
        scores = (q @ rearrange(k, "b h k d_head -> b h d_head k")).mul_(1 / math.sqrt(q.shape[-1]))
        if mask is None:
            return (scores.softmax(-1) @ v).to(dtype)
        weights = scores.masked_fill_(~mask, torch.finfo(scores.dtype).min).softmax(-1)
        mixed = weights @ v
        return mixed.where(mask.any(-1, keepdim=True), 0.0).to(dtype)


# %%
def fill_register(k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Add hidden keys until there are as many as a vector register holds."""
    n = k.shape[-2]
    missing = LANES - n
    if mask is None:
        mask = torch.ones(1, 1, 1, n, dtype=torch.bool, device=k.device)
    keys = F.pad(k, (0, 0, 0, missing))
    values = F.pad(v, (0, 0, 0, missing))
    return keys, values, F.pad(mask.expand(*mask.shape[:-1], n), (0, missing))


# %% [markdown]
# ### Long sentences: causal without a mask
#
# The fused kernel stores no weights, but it is given a mask, and a causal mask has $t^2$ entries:
# at 4,096 tokens that is 67 MB of numbers to be added, kept for the backward pass. All that it says
# is $k \le q$, which a kernel can work out by itself. So in the decoder's self-attention only the
# padding is handed on, one row of the mask. It is the last row, because the last position may
# attend to everything that is not padding. Memory then grows with $t$, and the half of the scores
# that nobody may see need not be computed.


# %%
def causal_attention(
    q: Float[Tensor, "b h q d_head"],
    k: Float[Tensor, "b h k d_head"],
    v: Float[Tensor, "b h k d_head"],
    mask: Bool[Tensor, "#b #h #q #k"] | None = None,
) -> Float[Tensor, "b h q d_head"]:
    """Return `attention` for a mask that is causal apart from hidden keys, as the decoder's is."""
    t = q.shape[-2]
    if mask is None or mask.shape[-2] != t or t * t <= SHORT:
        return short_attention(q, k, v, mask)
    with torch.autocast(q.device.type, enabled=False):
        dtype = q.dtype
        q, k, v = (x.to(torch.promote_types(dtype, torch.float32)) for x in (q, k, v))
        return causal_flash_attention(q, k, v, mask[:, :, -1:]).to(dtype)


# %% [markdown]
# ### A faster model on the same parameters
#
# None of this is in the blocks. `optimize_for_cpu` builds a second model that shares every
# parameter with the first, but has other dropouts, attention functions and linear layers
# (`FastLinear`, which multiplies by another library: see *Who multiplies?* below). Training the
# second trains the first. The names of the parameters stay, so a checkpoint fits both.


# %%
def optimize_for_cpu(model: Transformer) -> Transformer:
    """Return a model that shares the parameters of `model` and computes the same, faster on a CPU.

    The argument itself is left as it is. The result has its mode (train or eval).
    """
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    fast = copy.deepcopy(model, shared)  # copies the modules; these tensors count as copied
    for module in list(fast.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, CheapDropout(child.p).train(child.training))
            elif type(child) is nn.Linear:
                setattr(module, name, FastLinear(child))
        if isinstance(module, MultiHeadAttention) and module.attention_fn is attention:
            module.attention_fn = short_attention
    for layer in fast.decoder.layers:
        if layer.self_attention.attention_fn is short_attention:
            layer.self_attention.attention_fn = causal_attention
    return fast


# %% [markdown]
# ## The proof
#
# ### The running example
#
# The loss of both pairs by the chunked function is `after(11)`, and its gradients are those of
# chapter 11's. The model with faster parts gives the logits `after(9)`.

# %% tags=["active-ipynb"]
# from transformer.example import after, example_model
#
# example = example_model().requires_grad_(True)
# pairs = after(10)
# parameters = list(example.parameters())
#
#
# def gradient(loss):
#     """Return the gradient of a loss in all parameters of the example, as one row."""
#     parts = torch.autograd.grad(loss(example, pairs, 0.1), parameters)
#     return torch.cat([part.flatten() for part in parts])
#
#
# torch.testing.assert_close(chunked_loss(example, pairs, 0.0).detach(), after(11))
# exact = gradient(translation_loss)
# torch.testing.assert_close(gradient(chunked_loss), exact, atol=1e-5, rtol=1e-4)
#
# with torch.no_grad():
#     logits = optimize_for_cpu(example)(pairs.src, pairs.decoder_input)
# torch.testing.assert_close(logits, after(9), atol=1e-4, rtol=1e-4)
# print("loss, gradients and logits", *logits.shape, "are those of chapters 11 and 9")

# %% [markdown]
# Now in bfloat16. How far will the gradient be off, as a share of its length?

# %% tags=["active-ipynb"]
# in_half = gradient(in_bfloat16(chunked_loss))
# off = (in_half - exact).norm() / exact.norm()
# print("the gradient in bfloat16 is off by 1 to 10 %:", 0.01 < off.item() < 0.1)

# %% [markdown]
# That is as much as 8 bits give (and less than the gradients of two batches differ). So bfloat16 is
# no form of the same numbers. Whether it trains as well is a question for an experiment; *What if*
# tries it on a small scale.

# %% [markdown]
# ### Against PyTorch's own
#
# `check_loss` of chapter 11 compares with PyTorch's cross-entropy on smoothed labels, with padding,
# gradients and half precision. It gives logits. Where the table is the identity matrix, states
# *are* logits, so it can check ours, in chunks of 3:

# %% tags=["active-ipynb"]
# from transformer.checks import check_loss
#
#
# def through_identity(logits, labels, pad_id, smoothing):
#     vocab = logits.shape[-1]
#     x = rearrange(logits, "... vocab -> (...) vocab")
#     table = torch.eye(vocab)
#     return chunked_cross_entropy(
#         x, table, torch.zeros(vocab), labels.flatten(), pad_id, smoothing, chunk=3
#     )
#
#
# check_loss(through_identity)

# %% [markdown]
# And the gradients of the table and the bias, with another table and chunks of 7, so that the last
# one is not full:

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
# x = torch.randn(50, 16, requires_grad=True)
# weight = torch.randn(30, 16, requires_grad=True)
# bias = torch.randn(30, requires_grad=True)
# labels = torch.randint(0, 30, (50,))  # 0 is padding
# real = labels != 0
#
# share = torch.full((50, 30), 0.1 / 29).index_fill(1, torch.tensor(0), 0.0)
# smoothed = share + 0.9 * F.one_hot(labels, 30)
# want = F.cross_entropy(F.linear(x, weight, bias)[real], smoothed[real])
# got = chunked_cross_entropy(x, weight, bias, labels, pad_id=0, smoothing=0.1, chunk=7)
# torch.testing.assert_close(got, want)
#
# inputs = (x, weight, bias)
# for mine, theirs in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs)):
#     torch.testing.assert_close(mine, theirs)

# %% [markdown]
# ### It keeps little
#
# Autograd reports what each operation saves for the backward pass to `saved_tensors_hooks`. How
# many megabytes will 2,000 tokens leave, at once and in chunks?

# %% tags=["active-ipynb"]
# def saved(run):
#     """Return the megabytes of the different tensors that wait for the backward pass."""
#     sizes = {}
#
#     def note(tensor):
#         storage = tensor.untyped_storage()
#         sizes[storage.data_ptr()] = storage.nbytes() / 1e6
#         return tensor
#
#     with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
#         kept = run()  # held, so that no address is used twice
#     return sum(sizes.values()), kept
#
#
# states = torch.randn(2_000, 128, requires_grad=True)
# table = torch.randn(10_000, 128, requires_grad=True)
# zeros = torch.zeros(10_000, requires_grad=True)
# answers = torch.randint(1, 10_000, (2_000,))
# at_once, _ = saved(lambda: label_smoothed_loss(F.linear(states, table, zeros), answers, 0))
# in_chunks, _ = saved(lambda: chunked_cross_entropy(states, table, zeros, answers, 0))
# gradients = 4 * (states.numel() + table.numel() + zeros.numel()) / 1e6
# print(f"at once {at_once:.0f} MB · in chunks {in_chunks:.0f} MB · gradients {gradients:.0f} MB")
# assert in_chunks < at_once / 10

# %% [markdown]
# What is left are the gradients themselves, of the states, the table and the bias.
#
# ### The other parts
#
# **Dropout drops its share, keeps the mean, and is drawn anew each time.** A million features:

# %% tags=["active-ipynb"]
# dropout = CheapDropout(0.1)
# ones = torch.ones(1_000, 1_000)
# out = dropout(ones)
# print(f"dropped {(out == 0).double().mean():.3f} · mean {out.double().mean():.2f}")
# print("values", out.unique().numpy().round(3))
# assert not dropout(ones).equal(out) and dropout.eval()(ones).equal(ones)

# %% [markdown]
# **Attention is attention**, with the mask and without, in values and gradients. A query that may
# attend to nothing gets zeros, as in chapter 3.

# %% tags=["active-ipynb"]
# q, k, v = (torch.randn(2, 4, 9, 8, requires_grad=True) for _ in range(3))
# mask = torch.rand(2, 1, 9, 9) < 0.6
# mask[0, 0, 3] = False
# for shown in (None, mask):
#     mine, theirs = short_attention(q, k, v, shown), attention(q, k, v, shown)
#     torch.testing.assert_close(mine, theirs)
#     gradients = (torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (mine, theirs))
#     for each, other in zip(*gradients):
#         torch.testing.assert_close(each, other, atol=1e-5, rtol=1e-4)
# empty = short_attention(q, k, v, mask)[0, 0, 3]
# print("equal, and the row without keys is", empty.abs().max().item())

# %% [markdown]
# **Causal without a mask is causal.** The second sentence has 40 tokens and 10 of padding:

# %% tags=["active-ipynb"]
# from transformer.decoder import causal_mask
#
# q, k, v = (torch.randn(2, 4, 50, 8) for _ in range(3))
# real = torch.arange(50) < torch.tensor([50, 40])[:, None, None, None]  # b 1 1 k
# mask = real & causal_mask(50)
# torch.testing.assert_close(causal_attention(q, k, v, mask), attention(q, k, v, mask))
# print("a mask", *mask[:, :, -1:].shape, "in place of", *mask.shape)

# %% [markdown]
# **The parameters are shared**, one by one the same tensors:

# %% tags=["active-ipynb"]
# fast = optimize_for_cpu(model)
# assert all(
#     mine is theirs for mine, theirs in zip(fast.parameters(), model.parameters(), strict=True)
# )
# print("parameters shared:", len(list(fast.parameters())))

# %% [markdown]
# ## The look
#
# ### One change after the other
#
# Each bar has all the changes to its left. `step_with` takes those parts of the fast model that it
# is told to, and the plain ones for the rest. From the shares above, which bar will be the highest
# step?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.cpu import has_fast_bfloat16
#
#
# def step_with(*parts, loss=chunked_loss):
#     """Return a step with these parts of the fast model, and plain ones for the rest."""
#     mixed = optimize_for_cpu(model)
#     for name, plain in model.named_modules():
#         part = mixed.get_submodule(name)
#         if isinstance(part, CheapDropout | FastLinear) and type(part) not in parts:
#             mixed.set_submodule(name, plain)
#         elif isinstance(part, MultiHeadAttention) and short_attention not in parts:
#             part.attention_fn = attention
#     return step_of(mixed, loss)
#
#
# ladder = {
#     "plain": step_of(model, translation_loss),
#     "plain\nagain": step_of(model, translation_loss),
#     "+ loss in\nchunks": step_with(),
#     "+ cheap\ndropout": step_with(CheapDropout),
#     "+ short\nattention": step_with(CheapDropout, short_attention),
#     "+ FastLinear": step_with(CheapDropout, short_attention, FastLinear),
# }
# if has_fast_bfloat16("cpu"):
#     ladder["+ bfloat16"] = step_of(fast, in_bfloat16(chunked_loss))
# times = race(ladder, rounds=5)
# plot_bars(
#     {name: round(times["plain"] / spent, 2) for name, spent in times.items()},
#     ylabel="times as fast as plain",
#     title="A step of training, one change after the other",
# )
# print("vector instructions:", torch.backends.cpu.get_cpu_capability())

# %% tags=["active-ipynb"]
#

# %% [markdown]
# The loss is the step that shows in every run. What the others do depends on the processor. On that
# of the stored plot (AVX2, without instructions for bfloat16, and busy) they differ by little more
# than the two plain bars may, and `FastLinear` cost time in each of our runs. With AVX-512 and
# bfloat16, for which they were chosen, they gained: the README's table has whole steps, beside
# other libraries. Keep what your own measurement supports.

# %% [markdown]
# ### Long sentences
#
# What a training step keeps for its backward pass, for one pair of sentences as they grow. (The
# small model, with a vocabulary of 100.) Which shapes will the two curves have?

# %% tags=["active-ipynb"]
# plain = Transformer(Config.tiny(100, max_len=2048, dropout=0.0))
# models = {"plain": plain, "causal without a mask": optimize_for_cpu(plain)}
# lengths = range(512, 2049, 512)
# kept = {name: [] for name in models}
# for name, reader in models.items():
#     for t in lengths:
#         ids = torch.randint(3, 100, (1, t))
#         kept[name].append(saved(lambda: reader.decoder_states(ids, reader.encode(ids), ids))[0])
# plot_lines(kept, x=lengths, xlabel="tokens", ylabel="MB", title="Kept for the backward pass")

# %% tags=["active-ipynb"]
# masks = 4 * torch.tensor(list(lengths)) ** 2 / 1e6  # the bytes of one float32 mask, in MB
# more = torch.tensor(kept["plain"]) - torch.tensor(kept["causal without a mask"])
# print("masks kept in plain:", *(more / masks).round().int().tolist())

# %% [markdown]
# One is a parabola, the other a straight line, and what lies between them are the masks: four
# float32 matrices of $t \times t$, one for each of the four layers.

# %% [markdown]
# ### How large a chunk?
#
# With small chunks the table is read many times, with large ones the matrices leave the cache.
# Which chunk will be the fastest, for 1,000 tokens?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# sizes = (16, 64, 192, 500, 1_000)
#
#
# def loss_in(chunk):
#     return lambda: chunked_cross_entropy(
#         states[:1_000], table, zeros, answers[:1_000], 0, 0.1, chunk
#     )
#
#
# times = race({size: loss_in(size) for size in sizes})
# plot_bars(
#     {f"{size:,}": round(spent) for size, spent in times.items()},
#     ylabel="ms",
#     title="Tokens in a chunk",
# )

# %% [markdown]
# From some 200 tokens on the time hardly changes, and a larger chunk only takes more memory.
#
# ### Who multiplies?
#
# PyTorch hands a product of float32 matrices to a library; on most computers that is **MKL**, which
# is Intel's. PyTorch contains a second one, **oneDNN**, for convolutions and bfloat16. On some AMD
# processors it multiplies float32 up to twice as fast, so `FastLinear` (in `transformer/cpu`) asks
# it for large products, and without AVX-512 only for those with large weights. On others the bars
# are alike, and on Intel's they should be. On yours?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# x = torch.randn(512, 512)
# table = torch.randn(2048, 512)
# makers = {"F.linear": lambda: F.linear(x, table), "fast_linear": lambda: fast_linear(x, table)}
# plot_bars(
#     {name: round(2e-6 * x.numel() * len(table) / ms, 1) for name, ms in race(makers, 50).items()},
#     ylabel="GFLOP/s",
#     title="512 × 512 × 2048, one thread",
# )

# %% [markdown]
# ### A full register
#
# Softmax of 256 rows with 8 to 40 keys. At which numbers of keys does the curve drop?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# keys = range(8, 41)
# rows = {n: torch.randn(256, n) for n in keys}
# softmaxes = {n: (lambda x=x: [x.softmax(-1) for _ in range(20)]) for n, x in rows.items()}
# times = race(softmaxes, rounds=7)
# plot_lines(
#     {"softmax": [1e3 / 20 * ms for ms in times.values()]},
#     x=keys,
#     xlabel="keys",
#     ylabel="µs",
#     title="Softmax of 256 rows",
# )

# %% [markdown]
# At the multiples of a register's numbers, 8 for AVX2 and 16 for AVX-512. A row of 15 takes longer
# than one of 16, so the hidden keys of `fill_register` cost less than nothing.

# %% [markdown]
# ## What if
#
# What if *everything* is in bfloat16, the weights too? That saves more memory than autocast, and
# every product is as fast. By hand first, with the size of a weight and of an update by Adam:

# %% tags=["active-ipynb"]
# weight = torch.tensor(0.18, dtype=torch.bfloat16)
# for update in (0.001, 0.0004):
#     print(f"{weight:.4f} + {update} = {weight + update:.4f}")

# %% [markdown]
# Between 0.125 and 0.25 the numbers of bfloat16 are 0.001 apart, so an update by less than half of
# this is rounded away. Adam's updates are hardly ever larger than the rate.
#
# Now learn something. A table of 100 words and an output layer must name the word that follows each
# word, in a fixed order, with this chapter's loss and a rate of 0.0005. Three seeds; first weights
# and batches are the same. The control is autocast, which has the same products and keeps the
# weights in float32. Which of the curves will lie apart?

# %% tags=["active-ipynb"]
# def losses_of(dtype, autocast, seed):
#     torch.manual_seed(seed)
#     following = torch.randperm(100)
#     first = [torch.randn(100, 32) / math.sqrt(32) for _ in range(2)] + [torch.zeros(100)]
#     words, table, bias = parameters = [tensor.to(dtype).requires_grad_() for tensor in first]
#     optimizer = torch.optim.Adam(parameters, lr=0.0005)
#     losses = []
#     for _ in range(300):
#         ids = torch.randint(100, (64,))
#         with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
#             loss = chunked_cross_entropy(words[ids], table, bias, following[ids], -1, 0.0)
#         optimizer.zero_grad()
#         loss.backward()
#         optimizer.step()
#         losses.append(loss.detach())
#     return torch.stack(losses)

# %% tags=["active-ipynb"]
# variants = {
#     "float32": (torch.float32, False),
#     "autocast": (torch.float32, True),
#     "bfloat16 weights": (torch.bfloat16, False),
# }
# curves = {
#     name: torch.stack([losses_of(*variant, seed) for seed in range(3)])
#     for name, variant in variants.items()
# }
# ends = {name: runs[:, -50:].mean(1) for name, runs in curves.items()}
# assert (ends["autocast"] - ends["float32"]).abs().max() < 0.02
# assert (ends["bfloat16 weights"] - ends["float32"]).min() > 0.25
#
# means = {name: runs.mean(0) for name, runs in curves.items()}
# plot_lines(means, xlabel="step", ylabel="loss", title="Name the next word: mean of 3 seeds")

# %% [markdown]
# Autocast learns as float32 does (the two curves coincide): errors of products are as often too
# large as too small, and later steps correct them. With weights in bfloat16, most updates are lost,
# and they are lost in every step. So keep a float32 copy of whatever is added to in small steps:
# weights, and the running averages of the optimizer.

# %% [markdown]
# ## Try it
#
# There are no graded exercises here. Change one thing in a library cell, predict, and run:
#
# 1. Leave out `keep` in the last line of `CheapDropout`, then `scale`. Which line of the proof says
#    so each time?
# 2. In `softmax_term`, write `logits.exp().sum(-1).log()`, which is equal on paper. `check_loss`
#    finds logits for which it is not. Which?
# 3. Give `causal_attention` the first row of the mask in place of the last. Which keys does each
#    query see now?
# 4. Run the plots on two threads. Which of the changes pays less there?

# %% [markdown]
# ## Summary
#
# Leave a part out to see what a faster one can save, and change one thing at a time. The loss needs
# the softmax for a moment only, so in chunks it is equal in value and gradients, and keeps 6 MB
# where it kept 86. The reordered arithmetic gives the same numbers up to rounding, other random
# bits the same distribution, and bfloat16 other numbers, so that one is proved by training.
#
# **Write it from memory**: close the chapter and write `softmax_term`;
# `check_loss(through_identity)` says whether it is right.

# %% [markdown]
# ### Memory that is used again
#
# A fresh tensor of 80 MB costs more than its numbers: the system maps its pages one by one, at
# their first touch. If the process keeps freed memory, the next tensor costs nothing. That is a
# setting of the whole *process* (`transformer.cpu.process.tune_allocator`), so only programs such
# as the command line choose it, never a function of the library.

# %% [markdown]
# ### What did not help
#
# These were tried once, on two cores with AVX-512, and left out. The figures are of that machine:
#
# | tried | found |
# |---|---|
# | `torch.compile` on a CPU, with lengths that change | 20 to 90 seconds to start, no gain after |
# | one product for q, k and v | a few percent, for a second form of chapter 4 |
# | dropout inside the attention kernel | three times the kernel's time |
# | the sum of $2^{x / \ln 2}$ in place of log-softmax, which is made of slower powers of $e$ | faster alone, not in a step: memory is read more often |
# | huge pages for the heap | nothing, once freed memory is kept |

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | 8 GPUs, 12 hours for the base model (section 5.2) | two cores, minutes, a small model | a course must fit a laptop |
# | does not mention precision | float32, or products in bfloat16 where a processor has them | faster there; the numbers differ, so scores are compared (`benchmarks.quality`) |
# | dropout after sublayers and embeddings (section 5.4) | the same places, from 16 random bits | fewer random numbers |
# | does not say how the loss is computed | in chunks of 192 tokens | the logits are never all there |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | decoder states, all tokens in a row | `t d_model` | (16, 24) | (512, 512) |
# | logits at once | `t vocab` | (16, 588), 38 kB | (512, 37000), 76 MB |
# | logits of a chunk | at most 192 of them | (16, 588) | (192, 37000), 28 MB |
# | gradient of the table | `vocab d_model` | (588, 24) | (37000, 512) |
# | causal mask in the decoder | `b 1 1 k` for `b 1 q k` | (2, 1, 1, 8) for (2, 1, 8, 8) | (64, 1, 1, 8) for (64, 1, 8, 8) |
#
# How this compares with other libraries, on the same work, is measured by `make bench`; the README
# shows the table. [Chapter 16](16_fast_decoding.ipynb) does the same for translation.
