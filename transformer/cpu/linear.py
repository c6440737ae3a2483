"""A linear layer for training whose large products in float32 are made by oneDNN.

PyTorch hands a product in float32 to MKL, which is Intel's. On the AMD processors with AVX-512 on
which this was measured, oneDNN, which is in PyTorch too, multiplied twice as fast. Small products
stay with MKL, because a call of oneDNN costs more. On processors without AVX-512, oneDNN was faster
with large weights only, and a training step of the tiny model took a sixth longer with oneDNN for
all products of the first kind.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transformer.cpu.operators import has_onednn, onednn_linear

HAS_AVX512 = "AVX512" in torch.backends.cpu.get_cpu_capability()
LARGE_PRODUCT = 2**21  # multiplications
LARGE_WEIGHT = 2**18  # numbers


def is_for_onednn(x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"]) -> bool:
    """Return whether x Wᵀ is a large product in float32 on a CPU that has oneDNN."""
    if x.dtype != torch.float32 or torch.compiler.is_compiling():
        return False
    large = HAS_AVX512 and x.numel() * len(weight) >= LARGE_PRODUCT
    large = large or weight.numel() >= LARGE_WEIGHT
    return large and has_onednn(x.device)


def fast_linear(
    x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"], bias: Tensor | None = None
) -> Float[Tensor, "... d_out"]:
    """Return x Wᵀ + b, a large product in float32 by oneDNN; without a gradient."""
    if not is_for_onednn(x, weight):
        return F.linear(x, weight, bias)
    return onednn_linear(x, weight, bias)


def refuse_second_derivative(name: str) -> None:
    """Raise RuntimeError in a backward pass that is itself to be differentiated."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{name} has no second derivative: call backward without create_graph")


class OneDNNLinear(torch.autograd.Function):
    """x Wᵀ + b, forward and backward by `fast_linear`; a second derivative raises an error."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return fast_linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        refuse_second_derivative("OneDNNLinear")
        x, weight = ctx.saved_tensors
        rows = x.reshape(-1, x.shape[-1])
        grads = grad.reshape(-1, grad.shape[-1])
        dbias = grads.sum(0) if ctx.needs_input_grad[2] else None
        # gᵀx, as (xᵀg)ᵀ: in this form it takes oneDNN half the time.
        dweight = fast_linear(rows.t(), grads.t()).t()
        return fast_linear(grad, weight.t()), dweight, dbias


class FastLinear(nn.Linear):
    """A linear layer that shares the weights of another and multiplies them by `OneDNNLinear`."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight = linear.weight
        self.bias = linear.bias
        self.train(linear.training)

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        autocast = torch.is_autocast_enabled(x.device.type)
        if autocast or not is_for_onednn(x, self.weight):
            return super().forward(x)
        return OneDNNLinear.apply(x, self.weight, self.bias)
