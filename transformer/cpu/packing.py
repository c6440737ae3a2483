"""A linear layer for inference whose weight is stored in the layouts in which it is read fastest.

Which product is fastest depends on the number of rows. Many rows: oneDNN, with the weight in its
own layout (a call takes 15 µs, however little it multiplies). A few rows and a small weight:
FBGEMM with a float16 weight if the model is in bfloat16, otherwise MKL with the weight stored
column by column, which it reads faster for a single row.
"""

from typing import Any, no_type_check

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from transformer.cpu.operators import (
    fp16_linear,
    fp16_weight,
    has_fp16_linear,
    has_onednn,
    onednn_weight,
)
from transformer.cpu.tracing import script_if_tracing

SMALL_WEIGHT = 2**18  # numbers
FEW_PRODUCTS = 2**20  # multiplications


def cast(x: Float[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """Return x in this precision, without a call where it has it already."""
    return x if x.dtype == dtype else x.to(dtype)


def in_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return x in float32; float64 stays as it is."""
    return cast(x, torch.promote_types(x.dtype, torch.float32))


@script_if_tracing
@no_type_check  # a trace takes in the source as it is
def packed_product(x, weight, bias):
    """Return x Wᵀ + b by oneDNN, for a weight in its own layout."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def by_columns(weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_out d_in"]:
    """Return the weight, stored in memory column after column."""
    return rearrange(
        rearrange(weight, "d_out d_in -> d_in d_out").contiguous(), "d_in d_out -> d_out d_in"
    )


class PackedLinear(nn.Module):
    """A linear layer on copies of a weight; where no layout helps, a plain one.

    The input is cast to the precision of the product; the output keeps that precision.
    """

    weight: Tensor | None
    bias: Tensor
    onednn_weight: Tensor | None

    def __init__(self, weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"]):
        super().__init__()
        weight = weight.detach()
        bias = bias.detach()
        self.fp16_weight: Any = None
        packed = None
        if has_onednn(weight.device, weight.dtype):
            packed = onednn_weight(weight)
            bias = in_float32(bias)
            self.fp16_weight = float16_copy(weight, bias)
        few = weight if packed is None else self.copy_for_few_rows(in_float32(weight))
        self.register_buffer("weight", few)
        self.register_buffer("bias", bias)
        self.register_buffer("onednn_weight", packed)

    def copy_for_few_rows(self, weight: Float[Tensor, "d_out d_in"]) -> Tensor | None:
        """Return the float32 weight for products of a few rows, if it is needed."""
        if self.fp16_weight is not None or weight.numel() >= SMALL_WEIGHT:
            return None
        return by_columns(weight)

    def forward(
        self, x: Float[Tensor, "... d_in"], few_rows: bool | None = None
    ) -> Float[Tensor, "... d_out"]:
        """Return x Wᵀ + b; `few_rows` chooses the product, and is found out if not given."""
        if few_rows is None:
            few_rows = x.numel() * len(self.bias) < FEW_PRODUCTS
        if few_rows and self.fp16_weight is not None:
            return fp16_linear(in_float32(x), self.fp16_weight)
        if self.weight is not None and (few_rows or self.onednn_weight is None):
            return F.linear(cast(x, self.weight.dtype), self.weight, self.bias)
        assert self.onednn_weight is not None  # a layer has one weight or the other, or both
        return packed_product(cast(x, self.onednn_weight.dtype), self.onednn_weight, self.bias)


def float16_copy(weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"]) -> Any:
    """Return a bfloat16 weight packed in float16 for FBGEMM, or None.

    float16 has three more bits of precision than bfloat16, and enough range for weights.
    """
    fits = weight.dtype == torch.bfloat16 and weight.numel() < SMALL_WEIGHT and has_fp16_linear()
    if not fits or weight.abs().max() > torch.finfo(torch.half).max:
        return None
    return fp16_weight(in_float32(weight), bias)


def pack(*linears: nn.Linear) -> PackedLinear:
    """Return one packed layer that gives the outputs of several linear layers, side by side."""
    weight = torch.cat([linear.weight for linear in linears])
    bias = torch.cat([linear.bias for linear in linears])
    return PackedLinear(weight, bias)
