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
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.decoder import DecoderLayer, causal_mask, padding_mask
from transformer.model import Transformer
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
# From 10,000 logits a search wants the largest few. Cut the row into 100 blocks of 100: finding the largest of each block is one quick pass, and **the
# ten largest numbers lie in the ten blocks whose largest are the largest**. (A block that is not among those has ten numbers above all
# of its own.) So only ten blocks have to be sorted.

# %% tags=["active-ipynb"]
# x = torch.tensor([3, 9, 1, 4, 8, 7, 2, 6, 5.0])
# blocks = x.view(3, 3)
# print(blocks.amax(-1).tolist(), "→ the two largest are in blocks", blocks.amax(-1).topk(2).indices.tolist())

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
def in_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return x in float32, or in float64 if it was."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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
# A step of decoding multiplies a few rows by every weight there is. The work is so small that **calling** an operator costs as much as its arithmetic. So call
# less: queries, keys and values come from one product with three matrices side by side, keys and values of the source from one for all layers.
#
# And each product would lay out its weights anew, in the order in which oneDNN reads them. They are the same at every step, so do that once:


# %%
class PackedLinear:
    """A linear layer whose weight is laid out beforehand as oneDNN reads it; a small product in float32 takes it as it was."""

    def __init__(self, weight: Float[Tensor, "d_out d"], bias: Float[Tensor, " d_out"]):
        self.weight, self.bias, self.blocked, self.width = weight.detach(), bias.detach(), None, len(bias)
        fits = {torch.float32: True, torch.bfloat16: has_fast_bfloat16("cpu")}
        if has_onednn(weight.device) and fits.get(weight.dtype, False):
            self.blocked = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        self.always = weight.dtype != torch.float32 or weight.numel() >= 2**18

    def __call__(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d_out"]:
        if self.blocked is None or not (self.always or x.numel() * self.width >= 2**20):
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.blocked, self.bias, "none", [], "")


# %%
def side_by_side(linears: Iterable[nn.Linear]) -> PackedLinear:
    """Return one linear layer that gives the outputs of several, side by side."""
    weights, biases = zip(*((linear.weight, linear.bias) for linear in linears), strict=True)
    return PackedLinear(torch.cat(weights), torch.cat(biases))


# %%
class PackedLayer(NamedTuple):
    """The products of a decoder layer, and gain and bias of its norms."""

    qkv: PackedLinear
    self_out: PackedLinear
    ask: PackedLinear
    cross_out: PackedLinear
    widen: PackedLinear
    narrow: PackedLinear
    norms: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, layer: DecoderLayer) -> "PackedLayer":
        """Lay out the weights of a layer."""
        own, cross, think = layer.self_attention, layer.cross_attention, layer.feed_forward
        single = (
            PackedLinear(linear.weight, linear.bias) for linear in (own.w_o, cross.w_q, cross.w_o, think.w_1, think.w_2)
        )
        norms = [(residual.norm.gain.detach(), residual.norm.bias.detach()) for residual in layer.residuals]
        return cls(side_by_side([own.w_q, own.w_k, own.w_v]), *single, norms)


# %%
class PackedDecoder:
    """A decoder's weights laid out for one position at a time; call it with the model and a source to begin.

    They are copies: make a new one after more training. The encoder keeps its weights, and is sped up.
    """

    @torch.no_grad()
    def __init__(self, model: Transformer):
        layers = list(model.decoder.layers)
        self.model, self.pre_norm = model, isinstance(layers[0].residuals[0], PreNorm)
        self.layers = [PackedLayer.of(layer) for layer in layers]
        cross = [layer.cross_attention for layer in layers]
        self.source = side_by_side(linear for attention in cross for linear in (attention.w_k, attention.w_v))
        self.activation, self.scale = layers[0].feed_forward.activation, math.sqrt(model.config.d_model)
        self.table = PackedLinear(model.embedding.weight, model.bias)
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.encode = speed_up(copy.deepcopy(model, shared)).eval().encode

    def __call__(self, model: Transformer, src: Int[Tensor, "b k"]) -> "StaticDecoder":
        """Encode the sources and return what decodes them; ValueError when the model is another one."""
        if model is not self.model:
            raise ValueError("these weights were packed for another model")
        return StaticDecoder(self, src)


# %% [markdown]
# ### Beams that stay where they are
#
# The cache is one block of memory: a step writes its keys and values into the next place. It lies in the order in which attention reads it, without gaps, because
# a processor fetches ahead as long as it is read in a row. So room is made for a register's worth of keys at a time, not for the longest sentence. A mask is
# numbers to be added: 0, or $-\infty$ for padding, for another's past and for what is not written yet.


# %%
class StaticCache:
    """Keys and values that stay where they were written, of the source and of n hypotheses for each sentence.

    The hypotheses of a sentence ask all that any of them wrote; `family` hides what is not from their own past. So when they change
    places, a small mask is reordered, and nothing is copied.
    """

    def __init__(self, packed: "PackedDecoder", src: Int[Tensor, "b k"]):
        config, memory, spare = packed.model.config, packed.encode(src), -src.shape[1] % LANES
        self.n_layers, self.n_heads, self.d = config.n_layers, config.n_heads, config.d_model // config.n_heads
        kv = in_float32(packed.source(F.pad(memory, (0, 0, 0, spare))))
        k, v = rearrange(kv, "b k (n two h d) -> two n b h k d", two=2, n=self.n_layers, h=self.n_heads)
        hidden = rearrange(F.pad(src == config.pad_id, (0, spare), value=True), "b k -> b 1 1 k")
        self.src_mask = torch.zeros_like(hidden, dtype=kv.dtype).masked_fill(hidden, -math.inf)
        self.folded = fold(packed, k, v, self.src_mask) if len(src) <= 4 else None
        self.source = rearrange(k, "n b h k d -> n b h d k").contiguous(), v.contiguous()
        self.own = self.family = None

    def open(self, t: int, rows: int) -> None:
        """Begin position t: let every hypothesis see what it will write, and lay out what each layer asks: kᵀ, v, mask."""
        b, h, n = len(self.src_mask), self.n_heads, rows // len(self.src_mask)
        if self.own is None or t == self.family.shape[2]:
            self.grow(n, max(4, LANES // n))
        self.slots = self.own.narrow(4, t * n, n).unbind()
        self.family[:, :, t].diagonal(dim1=1, dim2=2).zero_()
        masks = self.family.flatten(2).unsqueeze(1), self.src_mask
        own_mask, src_mask = (mask.expand(b, h, n, -1).reshape(b * h, n, -1) for mask in masks)
        self.past = [(k.mT, v, own_mask) for k, v in self.own.flatten(2, 3)]
        self.present = [(k, v, src_mask) for k, v in zip(*(part.flatten(1, 2) for part in self.source), strict=True)]

    def grow(self, n: int, places: int) -> None:
        """Make room for so many more positions."""
        b = len(self.src_mask)
        own = self.src_mask.new_zeros(self.n_layers, 2, b, self.n_heads, places * n, self.d)
        family = self.src_mask.new_full((b, n, places, n), -math.inf)
        self.own = own if self.own is None else torch.cat([self.own, own], dim=4)
        self.family = family if self.family is None else torch.cat([self.family, family], dim=2)

    def keep(self, sentences: Int[Tensor, " b"]) -> None:
        """Keep the sentences named, in that order."""
        self.source = tuple(part[:, sentences] for part in self.source)
        self.own, self.family = self.own[:, :, sentences], self.family[sentences]
        self.src_mask = self.src_mask[sentences]
        if self.folded is not None:
            self.folded = [tuple(part[sentences] for part in parts) for parts in self.folded]


# %% [markdown]
# With it, each sublayer is a few products. Here, and only here, views take the place of einops: at one position, a `rearrange`
# takes longer than the operator that it serves.


# %%
def attend(q: Float[Tensor, "b d_model"], k: Tensor, v: Tensor, mask: Tensor) -> Float[Tensor, "b d_model"]:
    """Let rows of queries, n for each sentence, ask keys (b h) d k and values (b h) k d under a mask (b h) n k."""
    (heads, n, _), d = mask.shape, v.shape[-1]
    rows = q.to(v.dtype).view(-1, n, q.shape[1] // d, d).transpose(1, 2).reshape(heads, n, d)
    weights = torch.baddbmm(mask, rows, k, alpha=1 / math.sqrt(d)).softmax(-1)
    mixed = torch.bmm(weights, v).view(-1, q.shape[1] // d, n, d)
    return mixed.transpose(1, 2).reshape(q.shape).to(q.dtype)


# %%
def look_back(x: Float[Tensor, "b d_model"], layer: PackedLayer, cache: StaticCache, i: int) -> Tensor:
    """Write this position's keys and values into the cache of layer i, and ask all that are there."""
    q, kv = layer.qkv(x).tensor_split((x.shape[1],), dim=1)
    slot = cache.slots[i]
    slot.copy_(kv.view(slot.shape[1], -1, 2, cache.n_heads, cache.d).permute(2, 0, 3, 1, 4))
    return layer.self_out(attend(q, *cache.past[i]))


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
def fold(
    packed: "PackedDecoder", k: Tensor, v: Tensor, mask: Float[Tensor, "b 1 1 k"]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return for each layer matrix and bias from a state to its scores, heads side by side, and from weights to the output."""
    h, scale = k.shape[2], 1 / math.sqrt(k.shape[-1])
    w_q, b_q, w_o, b_o = (
        torch.stack([getattr(getattr(layer, place), name) for layer in packed.layers]).to(k.dtype)
        for place in ("ask", "cross_out")
        for name in ("weight", "bias")
    )
    to_scores = einsum(rearrange(w_q, "n (h d) q -> n h d q", h=h) * scale, k, "n h d q, n b h k d -> n b q h k")
    bias = einsum(rearrange(b_q, "n (h d) -> n h d", h=h) * scale, k, "n h d, n b h k d -> n b h k") + mask.squeeze(1)
    out = einsum(v, rearrange(w_o, "n q (h d) -> n h d q", h=h), "n b h k d, n h d q -> n b h k q")
    out = out + rearrange(b_o / h, "n q -> n 1 1 1 q")  # a head's weights sum to 1, so each adds its share of the bias
    to_scores, bias = rearrange(to_scores, "n b q h k -> n b q (h k)"), rearrange(bias, "n b h k -> n b 1 (h k)")
    return list(zip(to_scores, bias, rearrange(out, "n b h k q -> n b (h k) q"), strict=True))


# %%
def ask(x: Float[Tensor, "b d_model"], layer: PackedLayer, cache: StaticCache, i: int) -> Tensor:
    """Ask the source."""
    if cache.folded is None:
        return layer.cross_out(attend(layer.ask(x), *cache.present[i]))
    to_scores, bias, out = cache.folded[i]
    scores = torch.baddbmm(bias, x.to(bias.dtype).view(len(out), -1, x.shape[-1]), to_scores)
    weights = scores.unflatten(-1, (cache.n_heads, -1)).softmax(-1).flatten(-2)
    return torch.bmm(weights, out).view(x.shape).to(x.dtype)


# %%
class StaticDecoder:
    """What chapter 12's `IncrementalDecoder` does, with packed weights and a static cache."""

    def __init__(self, packed: PackedDecoder, src: Int[Tensor, "b k"]):
        self.packed, self.cache, self.position = packed, StaticCache(packed, src), 0

    def residual(self, x: Tensor, norm: tuple[Tensor, Tensor], sublayer: Callable, *inputs) -> Tensor:
        """Wrap a sublayer as the model does: norm after the sum, or before the sublayer."""
        if self.packed.pre_norm:
            return x + sublayer(torch.layer_norm(x, norm[0].shape, *norm), *inputs)
        return torch.layer_norm(x + sublayer(x, *inputs), norm[0].shape, *norm)

    def think(self, x: Float[Tensor, "... d_model"], layer: PackedLayer) -> Tensor:
        """Run the feed-forward block."""
        return layer.narrow(self.packed.activation(layer.widen(x)))

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Read one more token in each row and return the logits of the next."""
        packed, model, cache = self.packed, self.packed.model, self.cache
        cache.open(self.position, len(ids))
        words = F.embedding(ids, model.embedding.weight)
        x = torch.add(model.positions.table[self.position], words, alpha=packed.scale)
        for i, layer in enumerate(packed.layers):
            x = self.residual(x, layer.norms[0], look_back, layer, cache, i)
            x = self.residual(x, layer.norms[1], ask, layer, cache, i)
            x = self.residual(x, layer.norms[2], self.think, layer)
        self.position += 1
        return in_float32(packed.table(model.decoder.norm(x)))

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Continue with the rows named, in that order; a row takes the place of another one of its sentence."""
        family = self.cache.family
        self.cache.family = family.flatten(0, 1)[rows].unflatten(0, family.shape[:2])

    def keep(self, sentences: Int[Tensor, " b"]) -> None:
        """Continue with the sentences named, in that order."""
        self.cache.keep(sentences)


# %% [markdown]
# ### The largest of many


# %%
@functools.cache
def divisor_near_root(v: int) -> int:
    """Return the divisor of v that is nearest to its square root: then there are about as many blocks as numbers in one."""
    return min((size for size in range(1, v + 1) if v % size == 0), key=lambda size: abs(size - math.sqrt(v)))


# %%
def top_k(x: Float[Tensor, "b v"], k: int) -> torch.return_types.topk:
    """Return `x.topk(k)`, faster: the k largest lie in the k blocks of the row whose largest are the largest."""
    v = x.shape[-1]
    block = divisor_near_root(v)
    n = v // block
    if len(x) < 4 or k > n or k * block >= v:
        return x.topk(k)
    blocks = rearrange(x, "b (n block) -> (b n) block", n=n)
    chosen = rearrange(blocks.amax(-1), "(b n) -> b n", n=n).topk(k).indices
    rows = chosen + n * torch.arange(len(x), device=x.device).unsqueeze(-1)
    found = rearrange(blocks.index_select(0, rows.flatten()), "(b k) block -> b (k block)", k=k).topk(k)
    indices = chosen.gather(1, found.indices // block) * block + found.indices % block
    return torch.return_types.topk((found.values, indices))


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
# x = torch.randn(64, 10_000)
# assert top_k(x, 10).indices.equal(x.topk(10).indices)

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
# Twenty tokens for each of 64 sentences: everything again at each step (chapter 12's first way), with a cache, and with the packed decoder. The lower
# the step, the more of it is arithmetic.

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
# packed = PackedDecoder(model)
# ways = {
#     "all again": lambda: again_each_step(src, 20),
#     "cache": lambda: greedy_search(model, src, 20),
#     "packed": lambda: greedy_search(model, src, 20, decoder=packed),
# }
# first, *others = [way() for way in ways.values()]
# assert all(other.equal(first) for other in others)
#
# spent = {name: seconds(way, repeats=3) for name, way in ways.items()}
# speeds = {name: 64 * 20 / s / 1_000 for name, s in spent.items()}
# plot_bars(speeds, ylabel="thousand tokens a second", title="Greedy search, one thread")

# %% [markdown]
# One more step of that ladder is not in the decoder: `spread` (chapter 12) gives each core sentences of its own, with one thread, instead of letting
# two threads share every small operator.
#
# ### What did not help
#
# Each of these was measured on two cores, and left out:
#
# | tried | found |
# |---|---|
# | `torch.compile` on a CPU, with lengths that change | 20 to 90 seconds to start, no gain after |
# | `torch.compile` for a step of decoding | 20 to 40 seconds to start; then one row 2.4 times as fast, 64 rows three times slower |
# | one product for q, k and v in training | a few percent, for a second form of chapter 4 |
# | dropout inside the attention kernel | three times the kernel's time |
# | two threads in each operator of decoding | slower than two workers with one thread each |
# | bfloat16 for a single row of a small model | the call costs more than the digits save |
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
