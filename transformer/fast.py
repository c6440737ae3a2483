# %% [markdown]
r"""
# 15 · Making it fast

**The same numbers, sooner: a loss in pieces, dropout from raw bits, and half the digits where they don't matter.**
"""

# %%
import ctypes
import math
import sys
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.decoder import DecoderLayer
from transformer.model import Transformer
from transformer.residual_norm import PreNorm

# %% [markdown]
# ## The loss in chunks


# %%
class ChunkedCrossEntropy(torch.autograd.Function):
    """Label-smoothed cross-entropy of x Wᵀ + b that holds the logits of `chunk` tokens at a time, never all.

    The gradient of the logits is softmax - smoothed label. The softmax of a chunk is at hand on the way forward, so its products with
    W and x are made there and then. The smoothed label is `uniform` plus (1 - smoothing) at one
    place: its products are one vector for all tokens, and a row of W or of x.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, labels, pad_id: int, smoothing: float, chunk: int):
        share, device = smoothing / (len(weight) - 1), x.device
        uniform = torch.full_like(bias, share).index_fill_(0, torch.tensor(pad_id, device=device), 0.0)
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else x.dtype
        low_x, low_weight, low_bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        dx, dweight = torch.empty_like(low_x), torch.zeros(weight.shape, device=device)
        dbias, total = torch.zeros(bias.shape, device=device), torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False):
            for start in range(0, len(x), chunk):
                part = slice(start, start + chunk)
                logits = F.linear(low_x[part], low_weight, low_bias)
                softmax = logits.softmax(-1)
                # log Σ exp is the largest logit minus the logarithm of its share: no further pass with exp.
                total += (logits.amax(-1).float() - softmax.amax(-1).float().log()).sum()
                total -= (1 - smoothing) * logits.gather(-1, labels[part].unsqueeze(-1)).float().sum()
                dx[part] = softmax @ low_weight
                dbias += softmax.sum(0)
                dweight += softmax.T @ low_x[part]
            x, mean_row = x.float(), uniform @ weight.float()
            sum_x = x.sum(0)
            total -= mean_row @ sum_x + len(x) * (uniform @ bias.float())
            dx = dx.float().sub_(mean_row).sub_((1 - smoothing) * F.embedding(labels, weight))
            dweight.index_add_(0, labels, x, alpha=smoothing - 1).addr_(uniform, sum_x, alpha=-1)
            dbias.sub_(len(x) * uniform).index_add_(0, labels, torch.ones_like(x[:, 0]), alpha=smoothing - 1)
        ctx.save_for_backward(dx, dweight, dbias)
        ctx.tokens = len(x)
        return total / len(x)

    @staticmethod
    def backward(ctx, grad):
        return *(saved * (grad / ctx.tokens) for saved in ctx.saved_tensors), None, None, None, None


# %%
def chunked_loss(
    x: Float[Tensor, "t d"],
    weight: Float[Tensor, "v d"],
    bias: Float[Tensor, " v"],
    labels: Int[Tensor, " t"],
    pad_id: int,
    smoothing: float = 0.1,
    chunk: int = 512,
) -> Float[Tensor, ""]:
    """Return `label_smoothed_loss` of the logits x Wᵀ + b, with the same gradients, in a fraction of the memory."""
    real = labels != pad_id
    return ChunkedCrossEntropy.apply(x[real], weight, bias, labels[real], pad_id, smoothing, chunk)


# %% [markdown]
# ## Cheap dropout


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
# ## Attention in single precision, the rest in half


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
        q, k, v = q.float(), k.float(), v.float()
        if q.shape[-2] * k.shape[-2] > 1024:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
        if mask is None:
            return scores.softmax(-1) @ v
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
        return weights.where(mask.any(-1, keepdim=True), 0.0) @ v


# %%
def speed_up(model: nn.Module) -> nn.Module:
    """Swap in what is faster on a CPU, the same in what it computes: cheap dropout and float32 attention."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, CheapDropout(child.p))
        if hasattr(module, "kernel"):
            module.kernel = short_attention
    return model


# %% [markdown]
# ## What a process should set


# %%
def has_fast_bfloat16(device: torch.device | str) -> bool:
    """Return whether matrix products in bfloat16 are faster than in float32 there."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.cpu._is_avx512_bf16_supported()


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
# ## Decoding with fewer calls


# %%
def stacked(linears: Iterable[nn.Linear]) -> tuple[Tensor, Tensor]:
    """Return weight and bias of one linear layer that gives the outputs of several, side by side."""
    weights, biases = zip(*((linear.weight, linear.bias) for linear in linears), strict=True)
    return torch.cat(weights), torch.cat(biases)


# %%
class PackedLayer(NamedTuple):
    """Weight and bias of every product in a decoder layer, and gain and bias of its norms."""

    qkv: tuple[Tensor, Tensor]
    self_out: tuple[Tensor, Tensor]
    ask: tuple[Tensor, Tensor]
    cross_out: tuple[Tensor, Tensor]
    widen: tuple[Tensor, Tensor]
    narrow: tuple[Tensor, Tensor]
    norms: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, layer: DecoderLayer) -> "PackedLayer":
        """Lay out the weights of a layer."""
        own, cross, think = layer.self_attention, layer.cross_attention, layer.feed_forward
        single = ([linear.weight, linear.bias] for linear in (own.w_o, cross.w_q, cross.w_o, think.w_1, think.w_2))
        norms = [(residual.norm.gain, residual.norm.bias) for residual in layer.residuals]
        return cls(stacked([own.w_q, own.w_k, own.w_v]), *map(tuple, single), norms)


# %%
class PackedDecoder:
    """A decoder's weights laid out for one position at a time; call it with the model and a source to begin.

    What multiplies the same vector lies together, and the table lies so that a single row reads it in order. Merged weights are
    copies: make a new one after more training.
    """

    @torch.no_grad()
    def __init__(self, model: Transformer):
        layers = list(model.decoder.layers)
        self.model, self.pre_norm = model, isinstance(layers[0].residuals[0], PreNorm)
        self.layers = [PackedLayer.of(layer) for layer in layers]
        cross = [layer.cross_attention for layer in layers]
        self.source = stacked(linear for attention in cross for linear in (attention.w_k, attention.w_v))
        self.activation = layers[0].feed_forward.activation
        self.table = model.embedding.weight.detach().t().contiguous().t()
        self.scale = math.sqrt(model.config.d_model)

    def __call__(self, model: Transformer, src: Int[Tensor, "b k"]) -> "StaticDecoder":
        """Encode the sources and return what decodes them; ValueError when the model is another one."""
        if model is not self.model:
            raise ValueError("these weights were packed for another model")
        return StaticDecoder(self, src)


# %% [markdown]
# ### Beams that stay where they are


# %%
class StaticDecoder:
    """`IncrementalDecoder` with room for keys and values made beforehand, in which hypotheses never move.

    The n hypotheses of a sentence ask all keys that any of them has written; `family` says which of those are from their own past. So
    when hypotheses change places, a small mask is reordered and not the cache.
    """

    def __init__(self, packed: PackedDecoder, src: Int[Tensor, "b k"]):
        model, self.packed, self.position = packed.model, packed, 0
        memory = model.encode(src)
        self.heads = model.config.n_heads
        kv = F.linear(memory, *packed.source)
        kv = rearrange(kv, "b k (l two h d) -> l two b h k d", l=len(packed.layers), two=2, h=self.heads)
        self.source = kv.contiguous()
        real = rearrange(src != model.config.pad_id, "b k -> b 1 1 k")
        self.src_mask = None if real.all() else torch.zeros_like(real, dtype=memory.dtype).masked_fill(~real, -math.inf)
        self.cache: Float[Tensor, "l b t n kv"] | None = None
        self.family: Float[Tensor, "b n t m"] | None = None

    def make_room(self, b: int, n: int) -> None:
        """Make room for keys and values of 32 positions, or for twice as many as there are."""
        shape = (len(self.packed.layers), b, max(32, self.position), n, 2 * self.packed.model.config.d_model)
        room, hidden = self.source.new_empty(shape), self.source.new_full((b, n, shape[2], n), -math.inf)
        self.cache = room if self.cache is None else torch.cat([self.cache, room], dim=2)
        self.family = hidden if self.family is None else torch.cat([self.family, hidden], dim=2)

    # Below, views take the place of einops: a rearrange takes longer than most operators here.
    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Read one more token in each row and return the logits of the next."""
        packed, model, t, rows = self.packed, self.packed.model, self.position, len(ids)
        b, d = self.source.shape[2], model.config.d_model
        n = rows // b
        if self.cache is None or t == self.cache.shape[2]:
            self.make_room(b, n)
        mask = None
        if n > 1:
            self.family[:, :, t].diagonal(dim1=1, dim2=2).zero_()
            mask = self.family[:, :, : t + 1].reshape(b, 1, n, -1)

        def residual(x: Tensor, norm: tuple[Tensor, Tensor], sublayer, *inputs) -> Tensor:
            if packed.pre_norm:
                return x + sublayer(F.layer_norm(x, (d,), *norm), *inputs)
            return F.layer_norm(x + sublayer(x, *inputs), (d,), *norm)

        def split(x: Tensor) -> Tensor:
            return x.view(b, -1, self.heads, d // self.heads).transpose(1, 2)

        def look_back(x: Tensor, layer: PackedLayer, cache: Tensor) -> Tensor:
            qkv = F.linear(x, *layer.qkv)
            cache.select(1, t).copy_(qkv.narrow(1, d, 2 * d).view(b, n, -1))
            past = cache.narrow(1, 0, t + 1).view(b, (t + 1) * n, 2, self.heads, -1)
            k, v = past.permute(2, 0, 3, 1, 4).unbind()
            heads = F.scaled_dot_product_attention(split(qkv.narrow(1, 0, d)), k, v, mask)
            return F.linear(heads.transpose(1, 2).reshape(rows, d), *layer.self_out)

        def ask(x: Tensor, layer: PackedLayer, source: Tensor) -> Tensor:
            k, v = source.unbind()
            heads = F.scaled_dot_product_attention(split(F.linear(x, *layer.ask)), k, v, self.src_mask)
            return F.linear(heads.transpose(1, 2).reshape(rows, d), *layer.cross_out)

        def think(x: Tensor, layer: PackedLayer) -> Tensor:
            return F.linear(packed.activation(F.linear(x, *layer.widen)), *layer.narrow)

        x = torch.add(model.positions.table[t], F.embedding(ids, model.embedding.weight), alpha=packed.scale)
        for layer, cache, source in zip(packed.layers, self.cache, self.source, strict=True):
            x = residual(x, layer.norms[0], look_back, layer, cache)
            x = residual(x, layer.norms[1], ask, layer, source)
            x = residual(x, layer.norms[2], think, layer)
        self.position += 1
        return F.linear(model.decoder.norm(x), packed.table, model.bias)

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Continue with the rows named, in that order; a row takes the place of another one of its sentence."""
        if self.family.shape[1] > 1:
            self.family = self.family.flatten(0, 1)[rows].view_as(self.family)

    def keep(self, sentences: Int[Tensor, " b"]) -> None:
        """Continue with the sentences named, in that order."""
        self.source, self.cache = self.source[:, :, sentences], self.cache[:, sentences]
        self.family = self.family[sentences]
        if self.src_mask is not None:
            self.src_mask = self.src_mask[sentences]


# %% [markdown]
# ### The largest of many


# %%
def top_k(x: Float[Tensor, "b v"], k: int) -> torch.return_types.topk:
    """Return `x.topk(k)`, faster: the k largest lie in the k blocks of the row whose largest are the largest."""
    v = x.shape[-1]
    block = next((size for size in range(64, 129) if v % size == 0), v)
    if len(x) < 4 or k * block >= v:
        return x.topk(k)
    blocks = rearrange(x, "b (n block) -> b n block", block=block)
    chosen = blocks.amax(-1).topk(k).indices
    found = blocks.gather(1, chosen.unsqueeze(-1).expand(-1, -1, block)).flatten(1).topk(k)
    indices = chosen.gather(1, found.indices // block) * block + found.indices % block
    return torch.return_types.topk((found.values, indices))
