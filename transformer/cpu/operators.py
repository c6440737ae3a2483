"""Private operators of PyTorch, each behind a probe that compares it with its public form."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

LINEAR = "ops.mkldnn._linear_pointwise"
REORDER = "ops.mkldnn._reorder_linear_weight"
FP16_PREPACK = "ops.quantized.linear_prepack_fp16"
FP16_LINEAR = "ops.quantized.linear_dynamic_fp16"
FLASH_ATTENTION = "ops.aten._scaled_dot_product_flash_attention_for_cpu"
BFLOAT16_SUPPORT = "cpu._is_avx512_bf16_supported"
TRACE = "jit.trace"
FREEZE = "jit.freeze"
PRIVATE = (LINEAR, REORDER, FP16_PREPACK, FP16_LINEAR, FLASH_ATTENTION, BFLOAT16_SUPPORT)
PRIVATE += (TRACE, FREEZE)


def private(path: str) -> Any:
    """Return an object by its path below `torch`; AttributeError if this release has none."""
    return functools.reduce(getattr, path.split("."), torch)


# --- products by oneDNN ------------------------------------------------------------------------


def has_onednn(device: torch.device | str, dtype: torch.dtype = torch.float32) -> bool:
    """Return whether oneDNN multiplies matrices of this precision on that device, and rightly."""
    if torch.device(device).type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return has_fast_bfloat16(device) and works("onednn_bfloat16")
    return dtype == torch.float32 and works("onednn_float32")


def onednn_linear(
    x: Float[Tensor, "... d_in"], weight: Tensor, bias: Float[Tensor, " d_out"] | None
) -> Float[Tensor, "... d_out"]:
    """Return x Wᵀ + b by oneDNN; the weight may be one of `onednn_weight`. It has no gradient."""
    return private(LINEAR)(x, weight, bias, "none", [], "")


def onednn_weight(weight: Float[Tensor, "d_out d_in"]) -> Tensor:
    """Return the weight in the layout in which oneDNN reads it."""
    return private(REORDER)(weight)


# --- products by FBGEMM ------------------------------------------------------------------------


def has_fp16_linear() -> bool:
    """Return whether FBGEMM multiplies float32 rows by a float16 weight, and rightly."""
    engine_is_there = torch.backends.quantized.engine in ("x86", "fbgemm")
    return engine_is_there and works("fp16_linear")


def fp16_weight(weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"]) -> Any:
    """Return a float32 weight and bias, packed in float16 as FBGEMM reads them."""
    return private(FP16_PREPACK)(weight, bias)


def fp16_linear(x: Float[Tensor, "... d_in"], packed: Any) -> Float[Tensor, "... d_out"]:
    """Return x Wᵀ + b for float32 rows and a weight of `fp16_weight`."""
    return private(FP16_LINEAR)(x, packed)


# --- attention that is causal and hides padding ------------------------------------------------


def causal_flash_attention(
    q: Float[Tensor, "b h t d_head"],
    k: Float[Tensor, "b h t d_head"],
    v: Float[Tensor, "b h t d_head"],
    real: Bool[Tensor, "#b 1 1 t"],
) -> Float[Tensor, "b h t d_head"]:
    """Return causal attention that hides the keys where `real` is False, without a t × t mask.

    PyTorch's public function takes a mask or is causal; the kernel below it does both at once.
    """
    if q.device.type != "cpu" or not works("causal_flash_attention"):
        causal = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=causal & real)
    hidden = torch.zeros_like(real, dtype=q.dtype).masked_fill_(~real, -math.inf)
    return private(FLASH_ATTENTION)(q, k, v, 0.0, True, attn_mask=hidden)[0]


# --- precision ---------------------------------------------------------------------------------


def has_fast_bfloat16(device: torch.device | str) -> bool:
    """Return whether matrix products in bfloat16 are faster than in float32 on that device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.device(device).type != "cpu":
        return False
    try:
        supported = private(BFLOAT16_SUPPORT)()
    except Exception:  # as in `works`
        return False
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(supported)


# --- probes ------------------------------------------------------------------------------------


@functools.cache
def works(name: str) -> bool:
    """Return whether a private operator is there and gives the numbers of its public form."""
    try:
        with torch.inference_mode(False), torch.no_grad():
            got, want = PROBES[name]()
        tolerance = TOLERANCES.get(name, 1e-5)
        return torch.allclose(got.float(), want.float(), atol=tolerance, rtol=tolerance)
    except Exception:  # whatever a changed operator raises, its public form takes its place
        return False


def wave(*shape: int) -> Tensor:
    """Return numbers between -1 and 1 that are all different, without drawing random ones."""
    return torch.arange(math.prod(shape), dtype=torch.float32).sin().reshape(shape)


def probe_onednn(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Multiply by a weight as it is and by a reordered one."""
    x = wave(3, 8).to(dtype)
    weight = wave(5, 8).to(dtype)
    bias = wave(5)
    plain = onednn_linear(x, weight, bias.to(dtype))
    packed = onednn_linear(x, onednn_weight(weight), bias)
    want = F.linear(x.float(), weight.float(), bias)
    return torch.stack([plain.float(), packed.float()]), torch.stack([want, want])


def probe_fp16_linear() -> tuple[Tensor, Tensor]:
    """Multiply rows by a weight in float16."""
    x = wave(3, 8)
    weight = wave(5, 8)
    bias = wave(5)
    return fp16_linear(x, fp16_weight(weight, bias)), F.linear(x, weight, bias)


def probe_causal_flash_attention() -> tuple[Tensor, Tensor]:
    """Attend to the past of six positions, of which one is hidden."""
    q, k, v = wave(3, 1, 2, 6, 8).unbind()
    hidden = torch.zeros(1, 1, 1, 6).masked_fill_(torch.arange(6) == 1, -math.inf)
    got = private(FLASH_ATTENTION)(q, k, v, 0.0, True, attn_mask=hidden)[0]
    mask = torch.ones(6, 6, dtype=torch.bool).tril() & (torch.arange(6) != 1)
    return got, F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


PROBES: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "onednn_float32": functools.partial(probe_onednn, torch.float32),
    "onednn_bfloat16": functools.partial(probe_onednn, torch.bfloat16),
    "fp16_linear": probe_fp16_linear,
    "causal_flash_attention": probe_causal_flash_attention,
}
TOLERANCES = {"onednn_bfloat16": 0.02, "fp16_linear": 2e-3}
