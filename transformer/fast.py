# %% [markdown]
r"""
# 15 · Making it fast

**The same numbers, sooner: a loss in pieces, dropout from raw bits, and half the digits where they don't matter.**
"""

# %%
import ctypes
import math
import sys

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

# %% [markdown]
# ## The loss in chunks


# %%
class ChunkedCrossEntropy(torch.autograd.Function):
    """Label-smoothed cross-entropy of x Wᵀ + b that holds the logits of `chunk` tokens at a time, never all.

    The gradients are made on the way forward, while the softmax of a chunk is at hand: softmax - smoothed label.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, labels, pad_id: int, smoothing: float, chunk: int):
        share = smoothing / (len(weight) - 1)
        uniform = torch.full_like(bias, share).index_fill_(0, torch.tensor(pad_id, device=bias.device), 0.0)
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        low_x, low_weight = x.to(dtype), weight.to(dtype)
        total, dx = torch.zeros((), device=x.device), torch.empty(x.shape, device=x.device)
        dweight, dbias = torch.zeros(weight.shape, device=x.device), torch.zeros(bias.shape, device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(x), chunk):
                part = slice(start, start + chunk)
                at = labels[part].unsqueeze(-1)
                logits = F.linear(low_x[part], low_weight).float().add_(bias)
                total += logits.logsumexp(-1).sum() - (1 - smoothing) * logits.gather(-1, at).sum()
                total -= (logits @ uniform).sum()
                error = logits.softmax(-1)
                error.scatter_add_(-1, at, torch.full_like(at, smoothing - 1, dtype=error.dtype))
                dbias += error.sum(0)
                error = error.to(dtype)
                dx[part] = error @ low_weight
                dweight += error.T @ low_x[part]
            dx -= uniform @ weight.float()
            dweight -= uniform.unsqueeze(-1) * x.float().sum(0)
            dbias -= len(x) * uniform
        ctx.save_for_backward(dx / len(x), dweight / len(x), dbias / len(x))
        return total / len(x)

    @staticmethod
    def backward(ctx, grad):
        return *(grad * saved for saved in ctx.saved_tensors), None, None, None, None


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
def float32_attention(q: Tensor, k: Tensor, v: Tensor, mask: Bool[Tensor, "..."] | None = None) -> Tensor:
    """Return `attention`, computed in float32 also under autocast: the CPU kernel's bfloat16 backward is slow."""
    with torch.autocast(q.device.type, enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)


# %%
def speed_up(model: nn.Module) -> nn.Module:
    """Swap in what is faster on a CPU, the same in what it computes: cheap dropout and float32 attention."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, CheapDropout(child.p))
        if hasattr(module, "kernel"):
            module.kernel = float32_attention
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
