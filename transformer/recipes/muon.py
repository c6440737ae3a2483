"""Muon: steps that are equally long in every direction of a weight matrix.

A matrix's gradient is large in a few directions, and steps along it are, too: Adam divides by the
size of each entry, but it does not see directions. Muon averages the gradients, and then replaces
the singular values of the average by about 1.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the length of
a step is that of Liu et al. 2025, "Muon is Scalable for LLM Training"; that each round has its own
polynomial is the idea of Amsel et al. 2025, "The Polar Express".
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from transformer.model import Transformer
from transformer.ranks import Ranks, current

MOMENTUM = 0.95
ROUNDS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""Coefficients of a x + b x³ + c x⁵ for each round.

Each polynomial is the one that is nearest 1, at its worst, wherever a singular value can be: first
between 0.01 and 1, then between the least and the greatest value of the polynomial before.
"""
ADAMS_RMS = 0.2
"""The root mean square of the entries of Adam's steps, in learning rates, as Liu et al. saw it."""


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return the matrix with its singular values brought near 1: from 0.73 to 1.27, most of them.

    Of its singular value decomposition U S Vᵀ, U Vᵀ would be left. A few rounds of a polynomial of
    the matrix do nearly the same with matrix products alone (Newton-Schulz iteration). The
    smallest singular values, below a hundredth of √‖x xᵀ‖, stay smaller than that.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix  # so that x xᵀ is the smaller of the two products
    bound = (x @ x.mT).norm().sqrt()  # of the singular values, and much tighter than x.norm()
    x = x / (bound + 1e-7)
    for a, b, c in ROUNDS:
        square = x @ x.mT
        factor = torch.addmm(square, square, square, beta=b, alpha=c)
        x = torch.addmm(x, factor, x, beta=a)
    return x.mT if tall else x


def all_orthogonalized(matrices: Sequence[Tensor], ranks: Ranks) -> list[Tensor]:
    """Return each of the matrices orthogonalized; of several processes, each does its share.

    All of them must have the same matrices, as they have after the exchange of the gradients. Then
    they exchange what they have found, because this takes less time than to compute it.
    """
    if ranks.world == 1 or not matrices:
        return [orthogonalized(matrix) for matrix in matrices]
    found = torch.zeros(sum(matrix.numel() for matrix in matrices), device=matrices[0].device)
    parts = found.split([matrix.numel() for matrix in matrices])
    results = [part.view_as(matrix) for part, matrix in zip(parts, matrices, strict=True)]
    for i in range(ranks.rank, len(matrices), ranks.world):
        results[i].copy_(orthogonalized(matrices[i]))
    dist.all_reduce(found)  # the others have zeros there
    return results


class Muon:
    """Train the matrices of a model's layers by Muon, and leave all else to Adam.

    It is a hook that Adam calls before each step. It moves the matrices by itself, at `factor`
    times Adam's learning rate, and takes their gradients away, so that Adam passes them by. The
    momentum stands in Adam's state, where a checkpoint finds it. The embedding stays with Adam: its
    rows are looked up one by one, so its singular values say little.
    """

    def __init__(self, model: Transformer, factor: float):
        self.factor = factor
        self.matrices = [
            weight
            for part in (model.encoder, model.decoder)
            for weight in part.layers.parameters()
            if weight.ndim == 2
        ]

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, *_: Any) -> None:
        rate = self.factor * optimizer.param_groups[0]["lr"]
        matrices = [weight for weight in self.matrices if weight.grad is not None]  # not frozen
        averages = [averaged_gradient(weight, optimizer) for weight in matrices]
        directions = all_orthogonalized(averages, current())
        for weight, direction in zip(matrices, directions, strict=True):
            # The entries of an orthogonal matrix have a root mean square of 1 / √(longer side).
            length = ADAMS_RMS * math.sqrt(max(weight.shape))
            weight.sub_(direction, alpha=rate * length)
            weight.grad = None


def averaged_gradient(weight: nn.Parameter, optimizer: Optimizer) -> Tensor:
    """Return the average of a matrix's gradients, in which the last one counts once more.

    The average without that is in Adam's state. Adam's average of the squares goes on as well: a
    resumed run may give the matrices back to it.
    """
    gradient = cast(Tensor, weight.grad)
    state = optimizer.state[weight]
    if not state:
        state["step"] = weight.new_zeros(())
        state["exp_avg"] = torch.zeros_like(weight)
        state["exp_avg_sq"] = torch.zeros_like(weight)
    state["step"] += 1
    state["exp_avg_sq"].lerp_(gradient.square(), 1 - optimizer.param_groups[0]["betas"][1])
    momentum = state["exp_avg"].lerp_(gradient, 1 - MOMENTUM)
    return torch.lerp(gradient, momentum, MOMENTUM)
