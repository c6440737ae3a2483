"""Checks of chapter 6: the position-wise feed-forward block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.checks.harness import (
    Suspects,
    agree,
    call,
    check,
    distance,
    expect,
    reaches_every_parameter,
    shaken,
    size,
    sizes,
    starts_with_xavier,
)


def feed_forward_suspects(w_1: nn.Module, w_2: nn.Module, x: Tensor) -> Suspects:
    """Return the usual mistakes of a feed-forward block."""
    right = w_2(F.relu(w_1(x)))
    none = "There is no activation: two matrices in a row are only one matrix."
    last = "The activation comes last: it stands between the two matrices."
    twice = "An activation follows the second matrix too: the output may be negative."
    return {
        none: lambda: w_2(w_1(x)),
        last: lambda: F.relu(w_2(w_1(x))),
        twice: lambda: F.relu(right),
        "The activation is GELU: the paper's is ReLU.": lambda: w_2(F.gelu(w_1(x))),
        "x is added inside: the residual is another block's work.": lambda: x + right,
    }


@check("equal to its equation, each position alone, gradient")
def check_feed_forward(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, d_ff) with w_1 and w_2, called with x b t d_model."""
    t, d_model, d_ff = sizes(5, 6, 14)
    module = shaken(call(cls, d_model, d_ff), device)
    x = torch.randn(2, t, d_model).to(device)
    w_1 = module.w_1
    w_2 = module.w_2
    widened = f"w_1 widens to {w_1.out_features} features, wanted d_ff={d_ff}"
    expect(w_1.out_features == d_ff, widened)
    out = call(module, x)
    moved = call(module, torch.cat([x[:, :-1], x[:, -1:] + 1], dim=1))
    cause = "The block must treat every position alone"
    where = f"changing position {t - 1} of x {size(x)} moved others"
    expect(distance(out[:, :-1], moved[:, :-1]) < 1e-5, f"{where}. {cause}")
    agree(out, w_2(F.relu(w_1(x))), f"on x {size(x)}", feed_forward_suspects(w_1, w_2, x))
    reaches_every_parameter(module, call(module, x))
    starts_with_xavier(call(cls, 24, 40))
