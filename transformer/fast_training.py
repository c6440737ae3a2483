# %% [markdown]
r"""
# 15 · Fast training

**The same loss and the same gradients in half the time and memory. Optional, and for engineers.**

![The architecture; the three attention blocks, and the linear layer and softmax at the end, are lit](../figures/architecture_15.svg)
"""

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
# Every block of the course is written to be read. A training step with these blocks already runs
# fused kernels where PyTorch has them. What is left to gain, and where does the time go?
#
# There is one rule: **measure, change one thing, measure again**, and prove that the numbers are
# the same. This chapter shows the changes that were worth keeping; a table at the end lists those
# that were not. Nothing here changes the earlier chapters: each faster part is passed in from
# above, as the loss of a `Trainer` or as the attention function of a layer.

# %% [markdown]
# The subject is the small model that learns Multi30k (chapter 11), and a batch of 64 pairs of
# sentences with 16 tokens each. This is one step with the blocks as they are:

# %% tags=["active-ipynb"]
# import time
#
# from transformer.model import Config
# from transformer.training import translation_loss
#
# torch.set_num_threads(1)
# torch.manual_seed(0)
# model = Transformer(Config.tiny(10_000, dropout=0.1))
# src = torch.randint(3, 10_000, (64, 16))
# tgt = torch.randint(3, 10_000, (64, 17))
# tgt[::3, -4:] = 0  # some are shorter
# batch = Batch(src, tgt)
#
#
# def plain_step():
#     loss = translation_loss(model, batch, 0.1)
#     loss.backward()
#     return loss
#
#
# loss = plain_step()
# print(f"{loss:.1f}, and log 10,000 is {math.log(10_000):.1f}")

# %% [markdown]
# PyTorch's **profiler** adds up the time of every operator. Grouped by what they do:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# import os
#
# os.environ["KINETO_LOG_LEVEL"] = "99"  # hide the profiler's own notes
# from torch.profiler import profile
#
# from transformer.plotting import plot_bars
#
# kinds = {
#     "products": ("mm", "linear"),
#     "softmax, exp": ("softmax", "exp", "logsumexp", "gather"),
#     "attention": ("scaled_dot_product",),
#     "dropout": ("bernoulli", "dropout"),
#     "layer norm": ("layer_norm",),
#     "moving numbers": ("copy", "index", "fill", "add", "mul", "sub", "div", "sum", "where"),
# }
#
#
# def shares(step):
#     """Return the share of a step's time that each kind of operator takes."""
#     with profile() as watched:
#         step()
#     found = dict.fromkeys([*kinds, "the rest"], 0.0)
#     for event in watched.key_averages():
#         kind = next((k for k, names in kinds.items() if any(n in event.key for n in names)), None)
#         found[kind or "the rest"] += event.self_cpu_time_total
#     return {kind: round(spent / sum(found.values()), 2) for kind, spent in found.items()}
#
#
# plot_bars(shares(plain_step), ylabel="share of the time", title="A plain step of training")

# %% [markdown]
# Products of matrices are what the model *is*; fewer of them would be another model. Everything
# else is overhead that can be reduced.
#
# ## By hand
#
# ### How large are the logits?
#
# The last layer gives a number to every entry of the vocabulary at every position. In a batch of
# 2,000 tokens:

# %% tags=["active-ipynb"]
# tokens, v, d = 2_000, 10_000, 128
# print("states", f"{4 * tokens * d / 1e6:.0f} MB · logits {4 * tokens * v / 1e6:.0f} MB")

# %% [markdown]
# The logits do not come alone: their exponentials, the softmax and the gradient are just as large.
# Each is written to memory and read back, and no processor's cache holds 80 MB. And how much of the
# *arithmetic* is in the vocabulary? Count multiplications:

# %% tags=["active-ipynb"]
# from torch.utils.flop_counter import FlopCounterMode
#
#
# def multiplications(run):
#     with FlopCounterMode(display=False) as counter, torch.no_grad():
#         run()
#     return counter.get_total_flops() // 2
#
#
# states = model.decoder_states(batch.decoder_input, model.encode(src), src)
# whole = multiplications(lambda: model(src, batch.decoder_input))
# last = multiplications(lambda: model.logits(states))
# print(f"{last / whole:.0%} of {whole:,}")

# %% [markdown]
# ### A loss needs no logits
#
# What training needs is the gradient. For the cross-entropy of one token, with the label $y$ as a
# row of probabilities, it is short:
#
# $$\frac{\partial\,\text{loss}}{\partial\,\text{logits}} = \text{softmax}(\text{logits}) - y$$
#
# Three entries; the second is the label:

# %% tags=["active-ipynb"]
# logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
# F.cross_entropy(logits, torch.tensor(1)).backward()
# softmax = logits.softmax(-1).detach()
# print(softmax.numpy().round(3), "minus the label:", logits.grad.numpy().round(3))

# %% [markdown]
# The loss itself needs the softmax. While it is in the cache, multiply it at once: by the table,
# for the gradient of the states, and by the states, for the gradient of the table. Then it can be
# dropped. With 192 tokens at a time, nothing large is ever kept.
#
# ![Cross-entropy at once holds 2,000 × 10,000 logits and their gradient; in chunks of 192 tokens each is used and dropped](../figures/15_chunks.svg)

# %% [markdown]
# ## The definition
#
# ### The loss in chunks
#
# The smoothed label of chapter 11 has the same share at every word except padding, and
# $1-\varepsilon$ more at the label. So the loss of a token splits into three terms:
#
# $$\ell = \log\sum_u e^{z_u} \;-\; (1-\varepsilon)\,z_y
# \;-\; \frac{\varepsilon}{v-1} \sum_{w \ne \text{pad}} z_w$$
#
# Only the first needs all logits, and so it is computed in chunks, with its gradients:


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
    share = torch.full_like(bias, smoothing / (len(bias) - 1)).index_fill_(
        0, labels.new_tensor([pad_id]), 0.0
    )
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
# **bfloat16** has the range of float32 and 8 bits of precision. Where a processor has instructions
# for it, products are several times as fast. **Autocast** runs products in bfloat16 and keeps
# weights, sums and the softmax in float32. It is a wrapper around any loss:


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
# rounded one, so the mean is exact.


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
# to save. On a CPU the formula itself, as two batched products, is faster there, above all in the
# backward pass. Long sentences use the kernel.
#
# A processor computes 16 numbers at once, a **vector register** full. Fewer than 16 keys are taken
# one by one, so a softmax over 15 costs close to ten times as much as one over 16. Hidden keys fill
# the register up.


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
# at 4,096 tokens that is 67 MB of numbers to be added, kept by every layer for the backward pass.
# All that it says is $k \le q$, which a kernel can work out by itself. So in the decoder's
# self-attention only the padding is handed on, one row of the mask; it is the last row, because the
# last position may attend to everything that is not padding. Memory then grows with $t$, and the
# half of the scores that nobody may see is never computed.


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
# **The loss in chunks is the loss**, in value and in every gradient. Against PyTorch's own, on
# labels smoothed as chapter 11 does it; with chunks of 7, so that the last one is not full:

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
# for a, b in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs)):
#     torch.testing.assert_close(a, b)
# print("values and gradients are equal")

# %% [markdown]
# **It keeps little.** Autograd reports what each operation saves for the backward pass to
# `saved_tensors_hooks`:

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
# whole, _ = saved(lambda: label_smoothed_loss(F.linear(states, table, zeros), answers, 0))
# chunks, _ = saved(lambda: chunked_cross_entropy(states, table, zeros, answers, 0))
# print(f"at once {whole:.0f} MB · in chunks {chunks:.0f} MB")
# assert chunks < whole / 10

# %% [markdown]
# What is left are the gradients themselves, of the states and of the table.
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
# for m in (None, mask):
#     one, other = short_attention(q, k, v, m), attention(q, k, v, m)
#     torch.testing.assert_close(one, other)
#     gradients = (torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (one, other))
#     for a, b in zip(*gradients):
#         torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
# empty = short_attention(q, k, v, mask)[0, 0, 3]
# print("equal, and the row without keys is", empty.abs().max().item())

# %% [markdown]
# **Causal without a mask is causal.** The second sentence has 40 tokens and 10 of padding:

# %% tags=["active-ipynb"]
# from transformer.decoder import causal_mask
#
# q, k, v = (torch.randn(2, 4, 50, 8) for _ in range(3))
# real = torch.arange(50) < torch.tensor([50, 40])[:, None, None, None]
# mask = real & causal_mask(50)
# torch.testing.assert_close(causal_attention(q, k, v, mask), attention(q, k, v, mask))
# print("a mask", *mask[:, :, -1:].shape, "in place of", *mask.shape)

# %% [markdown]
# **The faster model is the model**: the same logits without dropout, and the same parameters, one
# by one the same tensors.

# %% tags=["active-ipynb"]
# fast = optimize_for_cpu(model.eval())
# with torch.no_grad():
#     torch.testing.assert_close(fast(src, tgt), model(src, tgt), atol=1e-4, rtol=1e-4)
# assert all(a is b for a, b in zip(fast.parameters(), model.parameters(), strict=True))
# print("parameters shared:", len(list(fast.parameters())))

# %% [markdown]
# ## The look
#
# ### A ladder
#
# One change after the other, each on top of those before. Times are medians of five steps on one
# thread. On another machine other steps of the ladder are the high ones.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from statistics import median
#
# from transformer.cpu import has_fast_bfloat16
#
#
# def seconds(step, *inputs, repeats=5):
#     step(*inputs)
#     times = []
#     for _ in range(repeats):
#         start = time.perf_counter()
#         step(*inputs)
#         times.append(time.perf_counter() - start)
#     return median(times)
#
#
# def step_of(model, loss):
#     return lambda: loss(model, batch, 0.1).backward()
#
#
# model.train()
# fast = optimize_for_cpu(model)
# ladder = {
#     "plain": seconds(step_of(model, translation_loss)),
#     "loss in chunks": seconds(step_of(model, chunked_loss)),
#     "optimize_for_cpu": seconds(step_of(fast, chunked_loss)),
# }
# if has_fast_bfloat16("cpu"):
#     ladder["bfloat16"] = seconds(step_of(fast, in_bfloat16(chunked_loss)))
# plot_bars(
#     {name: ladder["plain"] / spent for name, spent in ladder.items()},
#     ylabel="times as fast as plain",
#     title="A step of training",
# )

# %% [markdown]
# And where does the time go now?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# plot_bars(
#     shares(step_of(fast, chunked_loss)),
#     ylabel="share of the time",
#     title="A fast step of training",
# )

# %% [markdown]
# ### Long sentences
#
# What a training step keeps for its backward pass, for one pair of sentences as they grow. (The
# small model, with a vocabulary of 100.)

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# plain = Transformer(Config.tiny(100, max_len=2048))
# models = {"plain": plain, "optimize_for_cpu": optimize_for_cpu(plain)}
# lengths = range(256, 2049, 256)
# kept = {name: [] for name in models}
# for name, reader in models.items():
#     for t in lengths:
#         ids = torch.randint(3, 100, (1, t))
#         kept[name].append(saved(lambda: reader.decoder_states(ids, reader.encode(ids), ids))[0])
# plot_lines(kept, x=lengths, xlabel="tokens", ylabel="MB", title="Kept for the backward pass")

# %% [markdown]
# One is a parabola, the other a straight line.

# %% [markdown]
# ### Who multiplies?
#
# PyTorch hands a product of float32 matrices to a library; on most computers that is **MKL**, which
# is Intel's. PyTorch contains a second one, **oneDNN**, for convolutions and bfloat16. On AMD
# processors it multiplies float32 faster, too, so `FastLinear` (in `transformer/cpu`) asks it for
# large products. (On Intel's processors the bars should be alike.)

# %% tags=["active-ipynb", "nbval-ignore-output"]
# x = torch.randn(512, 512)
# table = torch.randn(2048, 512)
# zeros = torch.zeros(2048)
# makers = {"F.linear": F.linear, "fast_linear": fast_linear}
# speeds = {
#     name: 2e-9 * x.numel() * len(table) / seconds(make, x, table, zeros, repeats=50)
#     for name, make in makers.items()
# }
# plot_bars(speeds, ylabel="GFLOP/s", title="512 × 512 × 2048, one thread")

# %% [markdown]
# And a register is full or it is not:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# keys = range(8, 41)
# rows = [torch.randn(256, n) for n in keys]
# plot_lines(
#     {"softmax": [1e6 * seconds(x.softmax, -1, repeats=50) for x in rows]},
#     x=keys,
#     xlabel="keys",
#     ylabel="µs",
#     title="Softmax of 256 rows",
# )

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
# Each of these was measured on two cores, and left out:
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
# | does not mention precision | products in bfloat16 where that is fast, sums and weights in float32 | several times as fast, the same scores |
# | dropout after sublayers and embeddings (section 5.4) | the same places, from random bits | a tenth of the time |
#
# How this compares with other libraries, on the same work, is measured by `make bench`; the README
# shows the table. [Chapter 16](16_fast_decoding.ipynb) does the same for translation.
