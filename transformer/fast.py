# %% [markdown]
r"""
# 15 · Making it fast

**The same numbers, sooner: a loss in pieces, products by the right library, and beams that stay where they are.**

![The architecture; the three attention blocks, and the linear layer and softmax at the end, are lit](../figures/architecture_15.svg)
"""

# %%
import copy
import ctypes
import functools
import math
import sys
import threading
import warnings
from collections.abc import Callable, Hashable, Iterable
from itertools import product
from typing import no_type_check

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.decoder import DecoderLayer, causal_mask, padding_mask
from transformer.encoder import EncoderLayer
from transformer.model import Transformer, check_ids
from transformer.multi_head import MultiHeadAttention
from transformer.residual_norm import PreNorm

# %% [markdown]
# ## The question
#
# Every block of the course is written to be read. A step of training with these blocks already runs fused kernels, where PyTorch
# has them. So what is left, and where does the time go?
#
# There is one rule: **measure, change one thing, measure again**, and prove that the numbers are the same. What follows is what was left
# after that; what did not help is at the end.

# %% [markdown]
# Here is the subject: the small model that learns Multi30k in chapter 11, and a batch of 64 pairs of sentences with 16 tokens each. One
# step as a newcomer would write it, with the blocks as they are:

# %% tags=["active-ipynb"]
# import time
#
# from transformer import Config
# from transformer.training import label_smoothed_loss
#
# torch.set_num_threads(1)
# torch.manual_seed(0)
# model = Transformer(Config.tiny(10_000, dropout=0.1))
# src, tgt = torch.randint(3, 10_000, (64, 16)), torch.randint(3, 10_000, (64, 17))
# tgt[::3, -4:] = 0  # some are shorter
#
#
# def plain_step():
#     loss = label_smoothed_loss(model(src, tgt[:, :-1]), tgt[:, 1:], pad_id=0)
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
# os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler's own notes are not for us
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
#     """Say how much of a step's time each kind of operator takes."""
#     with profile() as watched:
#         step()
#     found = dict.fromkeys([*kinds, "the rest"], 0.0)
#     for event in watched.key_averages():
#         words = [kind for kind, names in kinds.items() if any(name in event.key for name in names)]
#         found[words[0] if words else "the rest"] += event.self_cpu_time_total
#     return {kind: round(spent / sum(found.values()), 2) for kind, spent in found.items()}
#
#
# plot_bars(shares(plain_step), ylabel="share of the time", title="A plain step of training")

# %% [markdown]
# Products with matrices are what the model *is*; less of them would be another model. Everything else is a price that may be
# bargained for.
#
# ## By hand
#
# ### How large are the logits?
#
# The last layer gives a number to every entry of the vocabulary, at every position. In a batch of 2,000 tokens:

# %% tags=["active-ipynb"]
# tokens, v, d = 2_000, 10_000, 128
# print("states", f"{4 * tokens * d / 1e6:.0f} MB · logits {4 * tokens * v / 1e6:.0f} MB")

# %% [markdown]
# And logits don't come alone: exponentials, the softmax, the gradient are just as large. Each is written to memory and read back, and no cache of a
# processor is that large. How much of the *arithmetic* is in the vocabulary? Count multiplications:

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
# memory = model.encode(src)
# states = model.states(tgt[:, :-1], memory, src)
# whole, last = multiplications(lambda: model(src, tgt[:, :-1])), multiplications(lambda: model.logits(states))
# print(f"{last / whole:.0%} of {whole:,}")

# %% [markdown]
# ### A loss needs no logits
#
# What training needs is the gradient. For the cross-entropy of one token, with the label $y$ as a row of probabilities, it is short:
#
# $$\frac{\partial\,\text{loss}}{\partial\,\text{logits}} = \text{softmax}(\text{logits}) - y$$
#
# Three entries, the right one is the second:

# %% tags=["active-ipynb"]
# logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
# F.cross_entropy(logits, torch.tensor(1)).backward()
# print(logits.softmax(-1).detach().numpy().round(3), "minus the label:", logits.grad.numpy().round(3))

# %% [markdown]
# The softmax is needed for the loss itself. So while it is at hand, multiply it on the spot: by the table, for the gradient of the states,
# and by the states, for the gradient of the table. Then it can go. With 192 tokens at a time, nothing large is ever kept.
#
# ![Cross-entropy at once holds 2,000 × 10,000 logits and their gradient; in chunks of 192 tokens each is used and dropped](../figures/15_chunks.svg)

# %% [markdown]
# ### Who descends from whom
#
# Beam search (chapter 12) lets hypotheses change places, and the cache must follow: at every step all keys and values are copied. But a key, once
# written, never changes. What changes is only **whose past it belongs to**:
#
# ![Copying a cache when hypotheses change places, and a mask that says which of the cells are one's own past](../figures/15_family.svg)
#
# So leave the keys where they are, let every hypothesis ask *all* of them, and hide those of the others with a mask: three numbers move where
# hundreds did.

# %% [markdown]
# ### The largest of many
#
# From 10,000 logits a search wants the largest few. Cut the row into fifty pieces. The largest of each is found in a single quick pass, and **the ten
# largest numbers lie in the ten pieces whose largest are the largest**. (A piece that is not among those has ten numbers above all of its own.)
# So only ten pieces have to be looked through. Nine numbers in three pieces:

# %% tags=["active-ipynb"]
# x = torch.tensor([3, 9, 1, 4, 8, 7, 2, 6, 5.0])
# print(x.view(3, 3).numpy())
# print(*x.view(3, 3).amax(1).tolist(), "→ the two largest are in pieces", x.view(3, 3).amax(1).topk(2).indices.tolist())

# %% [markdown]
# ## The definition
#
# ### Who multiplies
#
# PyTorch hands a product of matrices in float32 to a library; on most computers that is **MKL**, which is Intel's. On the AMD processor on which this was measured, it
# reached half of what a second library did that is in PyTorch as well: **oneDNN**, which serves convolutions and bfloat16. It multiplies float32 too, when one asks
# for it. Small products stay where they are: the call costs more.


# %%
def linear(
    x: Float[Tensor, "... d"], weight: Float[Tensor, "d_out d"], bias: Tensor | None = None
) -> Float[Tensor, "... d_out"]:
    """Return x Wᵀ + b like `F.linear`, a large product in float32 by oneDNN. It has no backward pass: see `QuickLinear`."""
    if not is_for_onednn(x, weight):
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


# %%
def is_for_onednn(x: Float[Tensor, "... d"], weight: Float[Tensor, "d_out d"]) -> bool:
    """Return whether x Wᵀ is a large product in float32, where oneDNN is."""
    large = x.numel() * len(weight) >= 2**21 or weight.numel() >= 2**18
    return large and x.dtype == torch.float32 and has_onednn(x.device)


# %%
def has_onednn(device: torch.device | str) -> bool:
    """Return whether oneDNN multiplies there: on CPUs whose PyTorch was built with it."""
    return torch.device(device).type == "cpu" and torch.backends.mkldnn.is_available()


# %% [markdown]
# Backwards it is two more products: the gradient of $x$ is $g\,W$, that of the weight $g^\top x$. (As $x^\top g$, transposed afterwards, it takes oneDNN
# half the time.)


# %%
class OneDNNLinear(torch.autograd.Function):
    """x Wᵀ + b, forwards and backwards by `linear`."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        rows, grads = x.flatten(0, -2), grad.flatten(0, -2)
        dbias = grads.sum(0) if ctx.needs_input_grad[2] else None
        return linear(grad, weight.t()), linear(rows.t(), grads.t()).t(), dbias


# %%
class QuickLinear(nn.Linear):
    """A linear layer on the weights of another, which leaves large products in float32 to `OneDNNLinear`."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d_out"]:
        if torch.is_autocast_enabled(x.device.type) or not is_for_onednn(x, self.weight):
            return super().forward(x)
        return OneDNNLinear.apply(x, self.weight, self.bias)


# %% [markdown]
# ### The loss in chunks
#
# A function with a backward pass of its own: `forward` makes the gradients, `backward` hands them over. Under **autocast** the products run in
# bfloat16, the sums in float32.


# %%
class ChunkedCrossEntropy(torch.autograd.Function):
    """Label-smoothed cross-entropy of x Wᵀ + b that holds the logits of `chunk` tokens at a time, never all.

    The gradient of the logits is softmax - smoothed label. The softmax of a chunk is at hand on the way forward, so its products with
    W and x are made there and then. The smoothed label is `uniform` plus (1 - smoothing) at one
    place: its products are one vector for all tokens, and a row of W or of x.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, labels, pad_id: int, smoothing: float, chunk: int):
        device = x.device
        uniform = torch.full_like(bias, smoothing / (len(bias) - 1)).scatter_(0, labels.new_tensor([pad_id]), 0.0)
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else x.dtype
        low_x, low_weight, low_bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        dx = torch.empty_like(low_x)
        dweight, dbias, total = (torch.zeros(shape, device=device) for shape in (weight.t().shape, bias.shape, ()))
        with torch.autocast(device.type, enabled=False):
            for part in (slice(start, start + chunk) for start in range(0, len(x), chunk)):
                logits = linear(low_x[part], low_weight, low_bias)
                softmax = logits.softmax(-1)
                # log Σ exp is the largest logit minus the logarithm of its share: no further pass with exp.
                total += (logits.amax(-1).float() - softmax.amax(-1).float().log()).sum()
                total -= (1 - smoothing) * logits.gather(-1, labels[part].unsqueeze(-1)).float().sum()
                dx[part] = linear(softmax, low_weight.t())
                dbias += softmax.sum(0)
                dweight += linear(low_x[part].t(), softmax.t())
            x, mean_row, sum_x = x.float(), uniform @ weight.float(), x.float().sum(0)
            total -= mean_row @ sum_x + len(x) * (uniform @ bias.float())
            dx = dx.float().sub_(mean_row).sub_((1 - smoothing) * F.embedding(labels, weight))
            dweight = dweight.t().contiguous().addr_(uniform, sum_x, alpha=-1)
            dweight.index_add_(0, labels, x, alpha=smoothing - 1)
            dbias.sub_(len(x) * uniform).index_add_(0, labels, torch.ones_like(x[:, 0]), alpha=smoothing - 1)
        ctx.save_for_backward(dx, dweight, dbias)
        return total / len(x)

    @staticmethod
    def backward(ctx, grad):
        dx, dweight, dbias = ctx.saved_tensors
        scale = grad / len(dx)
        return dx * scale, dweight * scale, dbias * scale, None, None, None, None


# %%
def chunked_loss(
    x: Float[Tensor, "t d"],
    weight: Float[Tensor, "v d"],
    bias: Float[Tensor, " v"],
    labels: Int[Tensor, " t"],
    pad_id: int,
    smoothing: float = 0.1,
    chunk: int = 192,
) -> Float[Tensor, ""]:
    """Return `label_smoothed_loss` of the logits x Wᵀ + b, with the same gradients, in a fraction of the memory."""
    real = labels != pad_id
    return ChunkedCrossEntropy.apply(x[real], weight, bias, labels[real], pad_id, smoothing, chunk)


# %% [markdown]
# ### Cheap dropout
#
# PyTorch draws a number for every feature and compares. Sixteen raw random bits decide as well; four features share one call of the generator.
# A probability is rounded to a 65,536th, and what is kept is scaled by the rounded one, so that the mean stays exact.


# %%
class CheapDropout(nn.Module):
    """Dropout that draws 16 raw random bits for each number: p is rounded to 1/65536, and the mean is kept exactly."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        dropped = round(self.p * 65_536)
        if not self.training or not dropped:
            return x
        words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        keep = words.view(torch.int16)[: x.numel()].reshape(x.shape) >= dropped - 32_768
        return x * (keep * torch.tensor(65_536 / (65_536 - dropped), dtype=x.dtype, device=x.device))


# %% [markdown]
# ### Attention for short sentences
#
# The fused kernel of chapter 3 saves memory: it never stores the weights, of which there are $q \cdot k$ for each head. For a sentence of 16
# tokens these are 256 numbers, and there is nothing to save. On a CPU the formula itself, as two products over the batch, is quicker there,
# above all backwards. Long sentences take the kernel.
#
# A processor works on 16 numbers at once, a **vector register** full. Fewer keys than that are taken one by one, so a softmax over 15 costs close to ten
# times as much as one over 16. Hidden keys fill the register up.


# %%
LANES = 16  # float32 numbers in a vector register
SHORT = 1024  # up to so many weights a head, the formula is quicker than the kernel


# %%
def short_attention(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    mask: Bool[Tensor, "#b #h #q #k"] | None = None,
) -> Float[Tensor, "b h q d"]:
    """Return `attention`, computed in float32 also under autocast, and below 1,024 weights a head by the formula itself.

    On a CPU the fused kernel's backward pass is slow in bfloat16, and for short sentences it costs more than the weights it saves.
    """
    with torch.autocast(q.device.type, enabled=False):
        dtype, (q, k, v) = q.dtype, map(in_float32, (q, k, v))
        if q.shape[-2] * k.shape[-2] > SHORT:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).to(dtype)
        if k.shape[-2] < LANES:
            k, v, mask = fill_register(k, v, mask)
        scores = (q @ rearrange(k, "b h k d -> b h d k")).mul_(1 / math.sqrt(q.shape[-1]))
        if mask is None:
            return (scores.softmax(-1) @ v).to(dtype)
        weights = scores.masked_fill_(~mask, torch.finfo(scores.dtype).min).softmax(-1)
        seen = mask.any(-1, keepdim=True)
        return ((weights if seen.all() else weights.where(seen, 0.0)) @ v).to(dtype)


# %%
def cast(x: Float[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """Return x in this precision, without a call where it is so already."""
    return x if x.dtype == dtype else x.to(dtype)


# %%
def in_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return x in float32, or in float64 if it was."""
    return cast(x, torch.promote_types(x.dtype, torch.float32))


# %%
def fill_register(k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Add hidden keys until there are as many as a vector register holds."""
    n = k.shape[-2]
    mask = torch.ones(1, 1, 1, n, dtype=torch.bool, device=k.device) if mask is None else mask
    filled = (F.pad(part, (0, 0, 0, LANES - n)) for part in (k, v))
    return *filled, F.pad(mask.expand(*mask.shape[:-1], n), (0, LANES - n))


# %% [markdown]
# ### Long sentences
#
# The fused kernel keeps no weights, but it is handed a mask, and the mask of the past has $t^2$ entries: at 4,096 tokens 67 MB of numbers to be added,
# kept by every layer for the backward pass. Yet all that it says is $k \le q$, and the kernel can work that out. So
# the decoder's mask shrinks to one row, chapter 8's padding mask, and time is understood: memory grows with $t$, and the half that nobody may see
# isn't computed.


# %%
def causal_attention(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    mask: Bool[Tensor, "#b #h #q #k"] | None = None,
) -> Float[Tensor, "b h q d"]:
    """Return `short_attention`; under a mask of one row, each of many queries sees no more than itself and the past."""
    t = q.shape[-2]
    if mask is None or mask.shape[-2] == t:
        return short_attention(q, k, v, mask)
    if t * t <= SHORT or q.device.type != "cpu":
        return short_attention(q, k, v, mask & causal_mask(t, q.device))
    with torch.autocast(q.device.type, enabled=False):
        dtype, (q, k, v) = q.dtype, map(in_float32, (q, k, v))
        hidden = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -math.inf)
        # PyTorch's own function takes a mask or is causal; the kernel below it does both at once.
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(q, k, v, 0.0, True, attn_mask=hidden)[0].to(dtype)


# %% [markdown]
# None of this is in the blocks. `speed_up` swaps it in; names and shapes of weights stay, so a checkpoint fits before and after.


# %%
def speed_up(model: nn.Module) -> nn.Module:
    """Swap in what is faster on a CPU and computes the same: products, dropout, attention and the mask of the past."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, CheapDropout(child.p))
            if isinstance(child, nn.Linear):
                setattr(module, name, QuickLinear(child))
        if isinstance(module, MultiHeadAttention):
            module.kernel = short_attention
    for layer in (module for module in model.modules() if isinstance(module, DecoderLayer)):
        layer.self_attention.kernel = causal_attention
    if isinstance(model, Transformer):
        model.past = functools.partial(padding_mask, pad_id=model.config.pad_id)
    return model


# %% [markdown]
# ### What a process should set
#
# **bfloat16** has the range of float32 with 8 bits of digits. Matrix units multiply it several times as fast, where a machine has them; elsewhere it is
# emulated, and slower. So ask.


# %%
def has_fast_bfloat16(device: torch.device | str) -> bool:
    """Return whether matrix products in bfloat16 are faster than in float32 there."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.cpu._is_avx512_bf16_supported()


# %% [markdown]
# A fresh tensor of 80 MB costs more than its numbers: the system maps its pages one by one, at their first touch. Kept by the process and used
# again, they are free. But that is for the *process* to say, so only the command line says it, never a function of the library.


# %%
def tune_allocator() -> bool:
    """Let glibc keep freed memory in the process: a fresh tensor then costs no page faults. False where there is no glibc.

    It changes the whole process, so only the command line calls it.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1) and mallopt(top_pad, 2**28))


# %% [markdown]
# ### Decoding with fewer calls
#
# A step of decoding multiplies a few rows by every weight there is: so little that **calling** an operator costs as much as its arithmetic. So call
# less: one product with three matrices side by side gives queries, keys and values, another the source's keys and values for all layers.
#
# Each product would lay out its weights anew, in the order in which oneDNN reads them. So do that once.
#
# A call of oneDNN takes 15 µs, however little it multiplies. For few rows and small weights others are quicker: `F.linear` in float32; in bfloat16
# FBGEMM, which comes with PyTorch. It wants float16: three more binary digits, and reach enough for a weight.


# %%
class PackedLinear(nn.Module):
    """A linear layer whose weight is laid out beforehand as oneDNN reads it; for `few` rows a small weight is laid out otherwise.

    What goes in may have another precision than the weight; what comes out is as it was multiplied.
    """

    def __init__(self, weight: Float[Tensor, "d_out d"], bias: Float[Tensor, " d_out"]):
        super().__init__()
        weight, bias, blocked, self.halves = weight.detach(), bias.detach(), None, None
        fits = {torch.float32: True, torch.bfloat16: has_fast_bfloat16("cpu")}
        if has_onednn(weight.device) and fits.get(weight.dtype, False):
            blocked, whole, bias = torch.ops.mkldnn._reorder_linear_weight(weight), in_float32(weight), in_float32(bias)
            if weight.dtype == torch.bfloat16 and fits_fbgemm(weight):
                self.halves = torch.ops.quantized.linear_prepack_fp16(whole, bias)
            weight = by_columns(whole) if weight.numel() < SMALL and self.halves is None else None
        for name, tensor in dict(weight=weight, bias=bias, blocked=blocked).items():
            self.register_buffer(name, tensor)

    def forward(self, x: Float[Tensor, "... d"], few: bool | None = None) -> Float[Tensor, "... d_out"]:
        few = x.numel() * len(self.bias) < 2**20 if few is None else few
        if few and self.halves is not None:
            return torch.ops.quantized.linear_dynamic_fp16(in_float32(x), self.halves)
        plain = self.blocked is None or (few and self.weight is not None)
        multiply, weight = (F.linear, self.weight) if plain else (multiply_laid_out, self.blocked)
        return multiply(cast(x, weight.dtype), weight, self.bias)


# %%
def by_columns(weight: Float[Tensor, "d_out d"]) -> Float[Tensor, "d_out d"]:
    """Return the weight, laid out in memory column after column: a single row of states reads it faster so."""
    return rearrange(rearrange(weight, "d_out d -> d d_out").contiguous(), "d d_out -> d_out d")


# %%
SMALL = 2**18  # numbers in a weight


# %%
def fits_fbgemm(weight: Tensor) -> bool:
    """Return whether a weight is small, FBGEMM is there, and float16 reaches as far as the weight."""
    there = torch.backends.quantized.engine in ("x86", "fbgemm")
    return there and weight.numel() < SMALL and float(weight.abs().max()) <= torch.finfo(torch.half).max


# %%
@torch.jit.script_if_tracing
@no_type_check  # a recording takes in the source as it is
def multiply_laid_out(x, weight, bias):
    """Return x Wᵀ + b by oneDNN, for a weight in its own order."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


# %%
def side_by_side(linears: Iterable[nn.Linear]) -> PackedLinear:
    """Return one linear layer that gives the outputs of several, side by side."""
    weights, biases = zip(*((linear.weight, linear.bias) for linear in linears), strict=True)
    return PackedLinear(torch.cat(weights), torch.cat(biases))


# %% [markdown]
# ### A packed layer
#
# With all this, a layer is a few products. From here to the end of a step, and only there, views take the place of einops: at one position, a `rearrange`
# takes longer than the operator that it serves. Sums and norms are in float32, whatever the precision of the weights.


# %%
class PackedLayer(nn.Module):
    """A layer of the encoder, its weights laid out; for rows of states, those of a sentence one after the other."""

    def __init__(self, layer: EncoderLayer | DecoderLayer):
        super().__init__()
        own, feed_forward = layer.self_attention, layer.feed_forward
        self.n_heads, self.d = own.n_heads, own.w_q.out_features // own.n_heads
        self.activation, self.pre_norm = feed_forward.activation, isinstance(layer.residuals[0], PreNorm)
        self.norms = nn.ModuleList(norm_in_float32(residual.norm) for residual in layer.residuals)
        self.qkv, self.self_out = side_by_side([own.w_q, own.w_k, own.w_v]), pack(own.w_o)
        self.widen, self.narrow = pack(feed_forward.w_1), pack(feed_forward.w_2)

    def residual(self, i: int, x: Tensor, sublayer: Callable, *inputs) -> Tensor:
        """Wrap sublayer i as the model does: norm after the sum, or before the sublayer."""
        norm = self.norms[i]
        if self.pre_norm:
            return x + in_float32(sublayer(norm(x), *inputs))
        return norm(x + in_float32(sublayer(x, *inputs)))

    def write(self, x: Float[Tensor, "... d_model"], few: bool, slot: Tensor) -> Tensor:
        """Write keys and values of some positions to their slot, 2 b h t d, and return what these positions ask, b h t d."""
        width, t = self.n_heads * self.d, slot.shape[3]
        q, kv = self.qkv(x, few).split((width, 2 * width), dim=1)
        slot.copy_(kv.view(-1, t, 2, self.n_heads, self.d).permute(2, 0, 3, 1, 4))
        return in_float32(q).view(-1, t, self.n_heads, self.d).transpose(1, 2)

    def look_around(self, x: Tensor, few: bool, own: Tensor, mask: Tensor, t: int | Tensor) -> Tensor:
        """Let every position of the source ask every other one; `own`, 2 b h k d, has room for registers full of keys."""
        q, (k, v) = self.write(x, few, own[:, :, :, :t]), own.unbind()
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.self_out(mixed.transpose(1, 2).reshape(-1, self.n_heads * self.d), few)

    def think(self, x: Float[Tensor, "... d_model"], few: bool) -> Tensor:
        """Run the feed-forward block."""
        return self.narrow(self.activation(self.widen(x, few)), few)


# %%
def pack(linear: nn.Linear) -> PackedLinear:
    """Lay out a linear layer."""
    return PackedLinear(linear.weight, linear.bias)


# %%
def norm_in_float32(norm: nn.Module) -> nn.Module:
    """Return a copy of a norm in float32, or in float64 if it was."""
    kept = copy.deepcopy(norm).requires_grad_(False)
    for parameter in kept.parameters():
        parameter.data = in_float32(parameter.data)
    return kept


# %% [markdown]
# ### Asking without queries
#
# A source doesn't change while it is translated. Its keys are multiplied with $x W_q$ at every step; so multiply them with $W_q$ once, and its
# values with $W_o$. For one head, with $W_q$ and $W_o$ cut to that head:
#
# $$(x W_q) K^\top = x\,(W_q K^\top) \qquad (w V)\,W_o = w\,(V W_o)$$
#
# Then a step needs two products in place of four. The folded matrices are larger than keys and values, and every sentence has its own. So it pays
# for a few sentences, not for a batch.


# %%
class Fold(nn.Module):
    """The weights of cross-attention in all layers, to be multiplied with keys and values of a source."""

    def __init__(self, layers: Iterable[DecoderLayer]):
        super().__init__()
        cross = [layer.cross_attention for layer in layers]
        h, d = cross[0].n_heads, cross[0].w_q.out_features // cross[0].n_heads
        ask = torch.stack([torch.cat([each.w_q.weight, each.w_q.bias.unsqueeze(1)], dim=1) for each in cross])
        out, bias = (torch.stack([getattr(each.w_o, name) for each in cross]) for name in ("weight", "bias"))
        ask, out, bias = (in_float32(part.detach()) for part in (ask / math.sqrt(d), out, bias / h))
        self.register_buffer("ask", rearrange(ask, "... (h d) d_model -> ... 1 h d_model d", h=h).contiguous())
        self.register_buffer("out", rearrange(out, "... d_model (h d) -> ... 1 h d d_model", h=h).contiguous())
        self.register_buffer(
            "bias", rearrange(bias, "... d_model -> ... 1 1 1 d_model")
        )  # once a head, and its weights sum to 1

    def forward(self, k: Float[Tensor, "... b h k d"], v: Float[Tensor, "... b h k d"], mask: Tensor) -> tuple:
        """Return for each layer the matrix from a state to its scores, heads side by side, that to the output, and a bias."""
        scores = self.ask @ k.mT
        to_scores, bias = scores[:, :, :, :-1].transpose(2, 3).flatten(3), (scores[:, :, :, -1:] + mask).transpose(2, 3)
        return to_scores, (v @ self.out + self.bias).flatten(2, 3), bias.flatten(3)


# %%
class PackedDecoderLayer(PackedLayer):
    """A layer of the decoder, for one position of n hypotheses for each sentence."""

    def __init__(self, layer: DecoderLayer):
        super().__init__(layer)
        self.query, self.cross_out = pack(layer.cross_attention.w_q), pack(layer.cross_attention.w_o)

    def look_back(self, x: Float[Tensor, "b d_model"], few: bool, slot: Tensor, past: tuple) -> Tensor:
        """Write this position's keys and values into the cache, and ask all that are there."""
        return self.self_out(self.attend(self.write(x, few, slot), *past), few)

    def ask(self, x: Tensor, few: bool, k: Tensor, v: Tensor, mask: Tensor, n: int | Tensor) -> Tensor:
        """Ask the source."""
        q = in_float32(self.query(x, few)).view(-1, n, self.n_heads, self.d).transpose(1, 2)
        return self.cross_out(self.attend(q, k, v, mask), few)

    def ask_folded(self, x: Tensor, few: bool, to_scores: Tensor, out: Tensor, bias: Tensor) -> Tensor:
        """Ask the source without queries."""
        scores = torch.baddbmm(bias, x.view(out.shape[0], -1, self.n_heads * self.d), to_scores)
        weights = scores.unflatten(-1, (self.n_heads, -1)).softmax(-1).flatten(-2)
        return torch.bmm(weights, out).flatten(0, 1)

    def attend(self, q: Float[Tensor, "b h n d"], k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Let queries ask keys and values (b h) k d under a mask (b h) n k."""
        weights = torch.baddbmm(mask, q.flatten(0, 1), k.mT, alpha=1 / math.sqrt(self.d)).softmax(-1)
        mixed = torch.bmm(weights, v).unflatten(0, (-1, self.n_heads))
        return mixed.transpose(1, 2).reshape(-1, self.n_heads * self.d)


# %% [markdown]
# ### Played back
#
# A step is a hundred and fifty calls, and for each of them Python looks up names, checks arguments, makes an object: for a single row that takes longer than
# the arithmetic. While one worker is at it the other one waits, since Python does one thing at a time. But the calls are the same at every step. So **record**
# them once, and PyTorch plays them back without Python. For that, reading a source and making a step are two functions of nothing but tensors.


# %%
class PackedEncoder(nn.Module):
    """Reads sources, and returns what every step asks: keys, values and mask for all layers, or these `folded`."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.few = self.folded = False
        self.layers = nn.ModuleList(map(PackedLayer, model.encoder.layers))
        self.norm, layers = norm_in_float32(model.encoder.norm), list(model.decoder.layers)
        cross = [layer.cross_attention for layer in layers]
        self.memory = side_by_side(linear for attention in cross for linear in (attention.w_k, attention.w_v))
        self.fold = Fold(layers)

    def forward(self, x: Float[Tensor, "b t d_model"], mask: Float[Tensor, "b 1 1 k"]) -> tuple:
        """Read embedded sources; the mask is as long as the keys that there is room for."""
        (b, t, _), h, d = x.shape, self.layers[0].n_heads, self.layers[0].d
        own, x = mask.new_zeros(2, b, h, mask.shape[3], d), x.flatten(0, 1)
        for layer in self.layers:
            x = layer.residual(0, x, layer.look_around, self.few, own, mask, t)
            x = layer.residual(1, x, layer.think, self.few)
        kv = in_float32(self.memory(self.norm(x), self.few)).view(b, t, -1, 2, h, d).permute(3, 2, 0, 4, 1, 5)
        k, v = torch.cat([kv, kv.new_zeros(*kv.shape[:4], mask.shape[3] - t, d)], dim=4).unbind()
        return self.fold(k, v, mask) if self.folded else (k, v, mask.expand(-1, h, -1, -1).unsqueeze(0))


# %%
class PackedStep(nn.Module):
    """Reads one more token in every row, and returns the logits of the next."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.few = self.folded = False
        self.layers = nn.ModuleList(map(PackedDecoderLayer, model.decoder.layers))
        self.norm, self.scale = norm_in_float32(model.decoder.norm), math.sqrt(model.config.d_model)
        self.table = PackedLinear(model.embedding.weight, model.bias)
        self.register_buffer("words", model.embedding.weight.detach())

    def forward(
        self, ids: Tensor, place: Tensor, slots: Tensor, own: Tensor, family: Tensor, *source: Tensor
    ) -> Tensor:
        """Read `ids` at a `place`, and write their keys and values into `slots`, which are a part of all that are there."""
        x, n = torch.add(place, in_float32(F.embedding(ids, self.words)), alpha=self.scale), family.shape[1]
        relatives = family.unsqueeze(1).expand(-1, self.layers[0].n_heads, -1, -1).flatten(0, 1)
        past = [(*kv.flatten(1, 2).unbind(), relatives) for kv in own.unbind()]
        if self.folded:
            asked = zip(*(part.unbind() for part in source), strict=True)
        else:
            k, v, mask = (part.flatten(1, 2) for part in source)
            asked = [(*kv, mask[0], n) for kv in zip(k.unbind(), v.unbind(), strict=True)]
        for layer, slot, before, source in zip(self.layers, slots.unbind(), past, asked, strict=True):
            x = layer.residual(0, x, layer.look_back, self.few, slot, before)
            x = layer.residual(1, x, layer.ask_folded if self.folded else layer.ask, self.few, *source)
            x = layer.residual(2, x, layer.think, self.few)
        return in_float32(self.table(self.norm(x), self.few))


# %% [markdown]
# Whether rows are few and a source is folded decides which calls there are, so there is a recording for each case. How many rows, hypotheses and positions
# there are is free. A recording takes a tenth of a second, too long for a single sentence: so the first forty steps are as Python makes them.


# %%
def record(part: Callable, inputs: tuple) -> Callable:
    """Return `part` as a list of operators that runs without Python, or `part` itself where that can't be had.

    This is TorchScript. PyTorch calls it deprecated; what shall take its place compiles for half a minute.
    """
    if sys.version_info >= (3, 14) or inputs[0].device.type != "cpu":
        return part
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recording = torch.jit.trace(part, inputs, check_trace=False)
        # Frozen, its weights are part of it, and nothing is looked up any more.
        return torch.jit.freeze(recording.eval()) if isinstance(part, nn.Module) else recording


# %%
class Player:
    """Runs functions of tensors, from recordings as soon as so many calls have been made as `patience` says."""

    def __init__(self, patience: int = 40):
        self.patience, self.plays, self.recorded, self.lock = patience, 0, {}, threading.Lock()

    def play(self, kind: Hashable, part: Callable, *inputs: Tensor) -> Tensor | tuple:
        """Run `part`, whose operators are the same for all inputs of a `kind`."""
        if kind not in self.recorded:
            self.plays += 1
            if self.plays <= self.patience:
                return part(*inputs)
            with self.lock:  # of several workers, one records
                if kind not in self.recorded:
                    self.recorded[kind] = record(part, inputs)
        return self.recorded[kind](*inputs)


# %%
class PackedDecoder:
    """A model's weights laid out for reading; call it with the model and sources to begin.

    They are copies: make a new one after more training. Steps are recorded when so many have been made as `patience` says.
    """

    @torch.no_grad()
    def __init__(self, model: Transformer, patience: int = 40):
        self.model, self.player = model, Player(patience)
        self.parts = {
            (name, few, folded): self.variant(whole, few, folded)
            for name, whole in {"encode": PackedEncoder(model), "step": PackedStep(model)}.items()
            for few, folded in product((False, True), repeat=2)
        }

    @staticmethod
    def variant(whole: nn.Module, few: bool, folded: bool) -> nn.Module:
        """Return a part on the same weights, for few rows or many, and for sources folded or not."""
        part = copy.copy(whole)
        part.few, part.folded = few, folded
        return part

    def __call__(self, model: Transformer, src: Int[Tensor, "b k"]) -> "StaticDecoder":
        """Read the sources and return what decodes them; ValueError when the model is another one."""
        if model is not self.model:
            raise ValueError("these weights were packed for another model")
        return StaticDecoder(self, src)

    def play(self, name: str, rows: int, folded: bool, *inputs: Tensor) -> Tensor | tuple:
        """Run "encode" or "step" on so many rows of states."""
        few = 2**19 if self.model.bias.dtype != torch.bfloat16 else 3 * 2**19  # FBGEMM is quicker for longer
        kind = name, rows * self.model.config.d_model**2 < few, folded
        return self.player.play(kind, self.parts[kind], *inputs)


# %% [markdown]
# ### Beams that stay where they are
#
# The cache is one block of memory: a step writes its keys and values into the next place. It lies in the order in which attention reads it, without gaps, because
# a processor fetches ahead as long as it is read in a row. So room is made for some registers full of keys at a time, not for the longest sentence; and what
# no hypothesis descends from any more is left behind then. A mask is numbers to be added: 0, or $-\infty$ for padding, for another's past
# and for what is not written yet.


# %%
class StaticCache:
    """Keys and values of n hypotheses for each sentence, `own` 2 b h k d for each layer, that stay where they were written.

    The hypotheses of a sentence ask all that any of them wrote; `family`, b n k, hides what is not from their own past. So when
    they change places, a small mask is reordered, and nothing is copied.
    """

    def __init__(self, own: Tensor, n: int):
        self.own, self.family, self.written = own, own.new_full((own.shape[2], n, own.shape[4]), -math.inf), 0

    def open(self) -> tuple[Tensor, Tensor, Tensor]:
        """Let every hypothesis see what it is about to write, and return the place for it, all that is written, and the family."""
        n = self.family.shape[1]
        if self.written + n > self.family.shape[2]:
            self.make_room(max(4 * n, LANES))
        here = slice(self.written, self.written + n)
        self.family[:, :, here].diagonal(dim1=1, dim2=2).zero_()
        self.written += n
        return self.own[:, :, :, :, here], self.own, self.family

    def make_room(self, places: int) -> None:
        """Forget what no hypothesis descends from, and make room for so many more keys, up to a full register."""
        (*outer, size, _), alive = self.own.shape, self.family.isfinite().any(1)
        self.written = int(alive.sum(1).max())
        spare = places + -(self.written + places) % LANES
        kept = alive.int().sort(dim=1, descending=True, stable=True).indices[:, : self.written]
        kept = F.pad(kept, (0, spare))  # what is spare repeats the first cell, and is hidden
        self.family = self.family.gather(2, repeat(kept, "b k -> b n k", n=self.family.shape[1]))
        self.family[:, :, self.written :] = -math.inf
        cells = size * torch.arange(math.prod(outer), device=kept.device).unflatten(0, outer).unsqueeze(-1)
        own = self.own.flatten(0, -2).index_select(0, (cells + kept.unsqueeze(1)).flatten())
        self.own = own.unflatten(0, (*outer, -1))

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Continue with the rows named, in that order."""
        self.family = self.family.flatten(0, 1)[rows].unflatten(0, (len(self.family), -1))

    def keep(self, sentences: Int[Tensor, " b"]) -> None:
        """Continue with the sentences named, in that order."""
        self.own, self.family = self.own[:, :, sentences], self.family[sentences]


# %%
class StaticDecoder:
    """What chapter 12's `IncrementalDecoder` does, with packed weights and a static cache."""

    def __init__(self, packed: PackedDecoder, src: Int[Tensor, "b k"]):
        model, self.packed, self.position, self.folded = packed.model, packed, 0, len(src) <= 4
        check_ids("src", src, model.config.vocab_size)
        x, spare = in_float32(model.positions(model.embedding(src))), -src.shape[1] % LANES
        hidden = F.pad(rearrange(src == model.config.pad_id, "b k -> b 1 1 k"), (0, spare), value=True)
        mask = torch.zeros_like(hidden, dtype=x.dtype).masked_fill_(hidden, -math.inf)
        self.source, self.cache = packed.play("encode", src.numel(), self.folded, x, mask), None
        h, d = model.config.n_heads, model.config.d_model // model.config.n_heads
        self.empty = x.new_zeros(model.config.n_layers, 2, len(src), h, LANES, d)

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Read one more token in each row and return the logits of the next."""
        self.cache = self.cache or StaticCache(self.empty, len(ids) // self.empty.shape[2])
        place, self.position = self.packed.model.positions.table[self.position], self.position + 1
        return self.packed.play("step", len(ids), self.folded, ids, place, *self.cache.open(), *self.source)

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Continue with the rows named, in that order; a row takes the place of another one of its sentence."""
        self.cache.select(rows)

    def keep(self, sentences: Int[Tensor, " b"]) -> None:
        """Continue with the sentences named, in that order."""
        self.source = tuple(part[:, sentences] for part in self.source)
        self.cache.keep(sentences)


# %% [markdown]
# ### The largest of many
#
# As by hand. What beam search adds to a row, the log-probability of the hypothesis so far, is the same for the whole row. So it is added to the largest of
# each piece and to the best pieces, and to nothing else. A row that can't be cut is left to PyTorch. These are ten small calls, so they are played back
# as well.


# %%
@functools.cache
def pieces(v: int) -> int:
    """Return into how many pieces to cut a row of v numbers: the divisor of v for which they are nearest to 200."""
    return min((n for n in range(1, v // 32 + 2) if v % n == 0), key=lambda n: abs(v // n - 200))


# %%
def largest(x: Float[Tensor, "... v"], offsets: Float[Tensor, "b n"], k: int, n: int, p: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of n rows and their places: they lie in the k pieces, of p a row, whose largest are the largest."""
    each, length = offsets.flatten().unsqueeze(1), x.shape[1] // p
    cut = x.unflatten(1, (p, length))
    best = (cut.amax(2) + each).flatten().unflatten(0, (-1, n * p)).topk(k).indices
    rows = (best + n * p * torch.arange(best.shape[0], device=x.device).unsqueeze(1)).flatten()
    candidates = cut.flatten(0, 1).index_select(0, rows) + each.index_select(0, rows // p)
    values, found = candidates.flatten().unflatten(0, (-1, k * length)).topk(k)
    return values, best.gather(1, found // length) * length + found % length


# %%
player = Player()  # one for all: these recordings know nothing of a model


# %%
def top_k(x: Float[Tensor, "... v"], k: int, offsets: Float[Tensor, "b n"] | None = None) -> torch.return_types.topk:
    """Return `x.topk(k)`, faster; with `offsets`, for each n rows the k largest of all that is there when they are added."""
    if offsets is None and len(x) < 4:
        return x.topk(k)
    offsets = x.new_zeros(len(x), 1) if offsets is None else offsets
    n, p = offsets.shape[1], pieces(x.shape[1])
    if k >= n * p:
        return (x.unflatten(0, offsets.shape) + offsets.unsqueeze(-1)).flatten(1).topk(k)
    return torch.return_types.topk(player.play((x.shape[1], k, n), lambda *given: largest(*given, k, n, p), x, offsets))


# %% [markdown]
# ## The proof
#
# **The loss in chunks is the loss**, in value and in every gradient. Against PyTorch's own, on labels smoothed as chapter 11 does it; chunks of 7, so
# that one is not full:

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
# x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((50, 16), (30, 16), (30,)))
# labels = torch.randint(0, 30, (50,))  # 0 is padding
# real = labels != 0
#
# smoothed = torch.full((50, 30), 0.1 / 29).index_fill(1, torch.tensor(0), 0.0) + 0.9 * F.one_hot(labels, 30)
# want = F.cross_entropy(F.linear(x, weight, bias)[real], smoothed[real])
# got = chunked_loss(x, weight, bias, labels, pad_id=0, smoothing=0.1, chunk=7)
#
# torch.testing.assert_close(got, want)
# for a, b in zip(torch.autograd.grad(got, (x, weight, bias)), torch.autograd.grad(want, (x, weight, bias))):
#     torch.testing.assert_close(a, b)
# print("values and gradients are equal")

# %% [markdown]
# **And it keeps little.** Autograd tells what each operation saves for the backward pass. (`saved_tensors_hooks` is called for every tensor.)

# %% tags=["active-ipynb"]
# def saved(run):
#     """Return the megabytes of the different tensors that wait for the backward pass."""
#     sizes = {}
#
#     def note(tensor):
#         sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() / 1e6
#         return tensor
#
#     with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
#         kept = run()  # held, so that no address is used twice
#     return sum(sizes.values()), kept
#
#
# states = torch.randn(2_000, 128, requires_grad=True)
# table, zeros = torch.randn(10_000, 128, requires_grad=True), torch.zeros(10_000, requires_grad=True)
# answers = torch.randint(1, 10_000, (2_000,))
# whole, _ = saved(lambda: label_smoothed_loss(F.linear(states, table, zeros), answers, 0))
# chunks, _ = saved(lambda: chunked_loss(states, table, zeros, answers, 0))
# print(f"at once {whole:.0f} MB · in chunks {chunks:.0f} MB")
# assert chunks < whole / 10

# %% [markdown]
# What is left are the gradients themselves, of the states and of the table.
#
# **Dropout drops its share, keeps the mean, and is drawn anew each time.** A million features:

# %% tags=["active-ipynb"]
# dropout, ones = CheapDropout(0.1), torch.ones(1_000, 1_000)
# out = dropout(ones)
# print(
#     f"dropped {(out == 0).double().mean():.3f} · mean {out.double().mean():.2f} · values {out.unique().numpy().round(3)}"
# )
# assert not dropout(ones).equal(out) and dropout.eval()(ones).equal(ones)

# %% [markdown]
# **Products are products**, whoever makes them, and so are their gradients:

# %% tags=["active-ipynb"]
# layer, x = nn.Linear(512, 2_048), torch.randn(3, 40, 512, requires_grad=True)
# want, got = layer(x), QuickLinear(layer)(x)
# torch.testing.assert_close(got, want)
# torch.testing.assert_close(PackedLinear(layer.weight, layer.bias)(x.detach()), want.detach())
#
# inputs, weights = (x, layer.weight, layer.bias), torch.randn(want.shape)
# for a, b in zip(torch.autograd.grad(got, inputs, weights), torch.autograd.grad(want, inputs, weights)):
#     torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
# print("equal, forwards and backwards")

# %% [markdown]
# **Attention is attention**, with the mask and without, values and gradients; a row that may look nowhere gets zeros, as in chapter 3.

# %% tags=["active-ipynb"]
# from transformer.attention import attention
#
# q, k, v = (torch.randn(2, 4, 9, 8, requires_grad=True) for _ in range(3))
# mask = torch.rand(2, 1, 9, 9) < 0.6
# mask[0, 0, 3] = False
# for m in (None, mask):
#     one, other = short_attention(q, k, v, m), attention(q, k, v, m)
#     torch.testing.assert_close(one, other)
#     for a, b in zip(
#         torch.autograd.grad(one.square().sum(), (q, k, v)), torch.autograd.grad(other.square().sum(), (q, k, v))
#     ):
#         torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
# print("equal, and the row without keys is", short_attention(q, k, v, mask)[0, 0, 3].abs().max().item())

# %% [markdown]
# **Time is understood.** A mask of one row, the padding, does what chapter 8's whole mask does:

# %% tags=["active-ipynb"]
# q, k, v = (torch.randn(2, 4, 50, 8) for _ in range(3))
# real = torch.arange(50) < torch.tensor([50, 40])[:, None, None, None]
# torch.testing.assert_close(causal_attention(q, k, v, real), attention(q, k, v, real & causal_mask(50)))
# print("a mask", *real.shape, "in place of", *(real & causal_mask(50)).shape)

# %% [markdown]
# **The packed decoder reads what the plain one reads**, and every search finds the same, token by token, with hypotheses that change places and sentences that leave:

# %% tags=["active-ipynb"]
# from transformer.checks import check_incremental, decoding_model
# from transformer.inference import IncrementalDecoder, beam_search, greedy_search
#
# check_incremental(lambda model, src: PackedDecoder(model)(model, src))
#
# lively, sources = decoding_model("cpu"), torch.randint(3, 9, (20, 7))
# packed = PackedDecoder(lively)
# assert greedy_search(lively, sources, 20, decoder=packed).equal(greedy_search(lively, sources, 20))
# for beam_size in (2, 5):
#     one, other = (beam_search(lively, sources, beam_size, max_len=20, decoder=d) for d in (packed, IncrementalDecoder))
#     assert one[0].equal(other[0])
#     torch.testing.assert_close(one[1], other[1])
# print("20 sentences,", *one[0].shape, "tokens: the same")

# %% [markdown]
# **The largest of many** are the largest:

# %% tags=["active-ipynb"]
# x, offsets = torch.randn(60, 10_000), torch.randn(12, 5)
# assert top_k(x, 10).indices.equal(x.topk(10).indices)
#
# sums = rearrange(x, "(b n) v -> b n v", n=5) + rearrange(offsets, "b n -> b n 1")
# assert top_k(x, 10, offsets).indices.equal(rearrange(sums, "b n v -> b (n v)").topk(10).indices)

# %% [markdown]
# ## The look
#
# ### A ladder for training
#
# One change after the other, each on top of those before. Times are medians of five steps on one thread; on another machine, other steps of the ladder
# are the high ones.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from statistics import median
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
# def chunked_step(half=False):
#     with torch.autocast("cpu", torch.bfloat16, enabled=half):
#         states = model.states(tgt[:, :-1], model.encode(src), src).flatten(0, 1)
#         loss = chunked_loss(states, model.embedding.weight, model.bias, tgt[:, 1:].flatten(), 0)
#     loss.backward()
#     return loss
#
#
# before = plain_step()
# ladder = {"plain": seconds(plain_step), "loss in chunks": seconds(chunked_step)}
# speed_up(model)
# ladder["speed_up"] = seconds(chunked_step)
# if has_fast_bfloat16("cpu"):
#     ladder["bfloat16"] = seconds(lambda: chunked_step(half=True))
# plot_bars(
#     {name: ladder["plain"] / spent for name, spent in ladder.items()},
#     ylabel="times as fast as plain",
#     title="A step of training",
# )

# %% [markdown]
# And where does the time go now?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# plot_bars(
#     shares(lambda: chunked_step(half=has_fast_bfloat16("cpu"))),
#     ylabel="share of the time",
#     title="A fast step of training",
# )

# %% [markdown]
# ### Long sentences
#
# What a step of training keeps for its backward pass, for one pair of sentences as they grow. (The small model, with a vocabulary of 100.)

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# lengths, kept = range(256, 2049, 256), {"plain": [], "speed_up": []}
# for name, block in (("plain", Transformer), ("speed_up", lambda config: speed_up(Transformer(config)))):
#     reader = block(Config.tiny(100, max_len=2048))
#     for t in lengths:
#         ids = torch.randint(3, 100, (1, t))
#         kept[name].append(saved(lambda: reader.states(ids, reader.encode(ids), ids))[0])
# plot_lines(kept, x=lengths, xlabel="tokens", ylabel="MB", title="Kept for the backward pass")

# %% [markdown]
# One is a parabola, the other a straight line.

# %% [markdown]
# ### Who multiplies
#
# The same product three times: as PyTorch makes it, by oneDNN, and by oneDNN with the weight laid out beforehand. (Where MKL is at home, on Intel's processors, the
# first two bars should be alike.)

# %% tags=["active-ipynb", "nbval-ignore-output"]
# x, table, zeros = torch.randn(64, 128), torch.randn(10_000, 128), torch.zeros(10_000)
# laid_out = PackedLinear(table, zeros)
# makers = {
#     "F.linear": lambda: F.linear(x, table, zeros),
#     "linear": lambda: linear(x, table, zeros),
#     "PackedLinear": lambda: laid_out(x),
# }
# plot_bars(
#     {name: 2e-9 * x.numel() * len(table) / seconds(maker, repeats=50) for name, maker in makers.items()},
#     ylabel="GFLOP/s",
#     title="Logits for 64 rows, one thread",
# )

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
# ### A ladder for decoding
#
# Twenty tokens for each of 64 sentences: everything again at each step (chapter 12's first way), with a cache, with the packed decoder, and with that played
# back. The lower the step, the more of it is arithmetic.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# @torch.inference_mode()
# def again_each_step(src, steps):
#     memory, ids = model.eval().encode(src), torch.ones(len(src), 1, dtype=torch.int64)
#     for _ in range(steps):
#         ids = torch.cat([ids, model.decode(ids, memory, src)[:, -1:].argmax(-1)], dim=1)
#     return ids[:, 1:]
#
#
# with torch.no_grad():
#     model.bias[[0, 1, 2]] = -1e9  # nobody ends early
# packed, played = PackedDecoder(model, patience=10**9), PackedDecoder(model, patience=0)
#
#
# def climb(src, title):
#     """Search in four ways, which find the same, and plot how fast they are."""
#     ways = {
#         "all again": lambda: again_each_step(src, 20),
#         "cache": lambda: greedy_search(model, src, 20),
#         "packed": lambda: greedy_search(model, src, 20, decoder=packed),
#         "played back": lambda: greedy_search(model, src, 20, decoder=played),
#     }
#     first, *others = [way() for way in ways.values()]
#     assert all(other.equal(first) for other in others)
#     speeds = {name: len(src) * 20 / seconds(way) / 1_000 for name, way in ways.items()}
#     plot_bars(speeds, ylabel="thousand tokens a second", title=title)
#
#
# climb(src, "64 sentences, greedy search, one thread")

# %% [markdown]
# And for a single sentence:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# climb(src[:1], "One sentence, greedy search, one thread")

# %% [markdown]
# One more step of that ladder is not in the decoder: `spread` (chapter 12) gives each core sentences of its own, with one thread, instead of letting
# two threads share every small operator. With recordings these workers hardly wait for each other.

# %% [markdown]
# ### What did not help
#
# Each of these was measured on two cores, and left out:
#
# | tried | found |
# |---|---|
# | `torch.compile` on a CPU, with lengths that change | 20 to 90 seconds to start, no gain after |
# | `torch.compile` for a step of decoding | 20 to 40 seconds to start; then one row 2.4 times as fast (played back: 2), 64 rows three times slower |
# | one product for q, k and v in training | a few percent, for a second form of chapter 4 |
# | dropout inside the attention kernel | three times the kernel's time |
# | two threads in each operator of decoding | slower than two workers with one thread each |
# | the sum of $2^{x / \ln 2}$ in place of log-softmax, which is made of slower powers of $e$ | quicker alone, not in a step: memory is read more often |
# | huge pages for the heap | nothing, once the memory is kept |

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | 8 GPUs, 12 hours for the base model (section 5.2) | two cores, minutes, a small model | a course must fit a laptop |
# | says nothing of precision | products in bfloat16 where that is quick, sums and weights in float32 | several times as fast, same scores |
# | dropout after sublayers and embeddings (section 5.4) | the same places, from raw bits | a tenth of the time |
#
# How all this compares with other libraries, on the same work, is measured by `make bench`; the README shows the table.
