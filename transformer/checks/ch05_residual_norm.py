"""Checks of chapter 5: layer normalisation and the residual around a sublayer."""

import functools
from collections.abc import Callable

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
    keeps_dtype,
    shaken,
    size,
    sizes,
)

Sublayer = Callable[[Tensor], Tensor]
PLACEMENTS = {
    "post": "This is post-norm, norm(x + f(x)): pre-norm is x + f(norm(x)).",
    "pre": "This is pre-norm, x + f(norm(x)): post-norm is norm(x + f(x)).",
}


def norm_suspects(x: Tensor, gain: Tensor, bias: Tensor) -> Suspects:
    """Return the usual mistakes of a layer norm."""
    centred = x - x.mean(-1, keepdim=True)
    variance = x.var(-1, keepdim=True, correction=0)
    unbiased = (
        "The standard deviation divides by d_model - 1, as torch.std does by default: "
        "divide by d_model (correction=0)."
    )
    everything = "Mean and variance are taken over the whole tensor: each vector has its own."
    positions = (
        "Mean and variance are taken over positions: take them over features, the last axis."
    )

    return {
        unbiased: lambda: centred / x.std(-1, keepdim=True) * gain + bias,
        everything: lambda: F.layer_norm(x, x.shape) * gain + bias,
        positions: lambda: F.layer_norm(x.mT, x.shape[1:2]).mT * gain + bias,
        "Gain and bias are not applied.": lambda: centred / variance.sqrt(),
        "It divides by the variance: divide by its root.": lambda: centred / variance * gain + bias,
    }


@check("equal to PyTorch, small variances, constant vectors, dtype")
def check_layer_norm(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (x: … d_model, gain: d_model, bias: d_model, eps), giving … d_model."""
    t, d = sizes(5, 4)
    x, gain, bias = (torch.randn(*shape).to(device) for shape in ((2, t, d), (d,), (d,)))
    x = 3 * x + 1
    want = F.layer_norm(x, (d,), gain, bias, 1e-5)
    suspects = norm_suspects(x, gain, bias)
    agree(call(fn, x, gain, bias, 1e-5), want, f"on x {size(x)}", suspects, 1e-3)
    small = 1e-3 * x
    centred = small - small.mean(-1, keepdim=True)
    outside = centred / (small.std(-1, correction=0, keepdim=True) + 1e-5) * gain + bias
    cause = "eps is added to the standard deviation: it stands inside the root."
    want = F.layer_norm(small, (d,), gain, bias, 1e-5)
    where = f"on x {size(x)} of some thousandths"
    agree(call(fn, small, gain, bias, 1e-5), want, where, {cause: lambda: outside}, 1e-4)
    constant = call(fn, torch.ones_like(x), gain, bias)
    agree(constant, bias.expand_as(x), "on a constant vector, eps left to its default")
    inputs = [y.double() for y in (x, gain, bias)]
    keeps_dtype(call(fn, *inputs), torch.float64, device)
    want = F.layer_norm(inputs[0], (d,), *inputs[1:], 1e-5)
    agree(call(fn, *inputs, 1e-5), want, "in double precision")


def wrappings(module: nn.Module, x: Tensor, placement: str) -> dict[str, Callable]:
    """Return the ways to wrap a sublayer, each under the message that says what it does."""
    weights = dict(weight=module.norm.gain, bias=module.norm.bias)
    norm = functools.partial(F.layer_norm, normalized_shape=x.shape[-1:], **weights)

    def without_sum(f: Sublayer) -> Tensor:
        return norm(f(x)) if placement == "post" else f(norm(x))

    norm_inside = "The norm is on the sublayer's output alone: x must pass through it too."
    return {
        PLACEMENTS["pre"]: lambda f: x + f(norm(x)),
        PLACEMENTS["post"]: lambda f: norm(x + f(x)),
        "x is not added: without the sum there is no residual.": without_sum,
        norm_inside: lambda f: x + norm(f(x)),
        "The norm is missing.": lambda f: x + f(x),
        "The normed x is added: the sum must take x as it came.": lambda f: norm(x) + f(norm(x)),
    }


@check("norm and sum in their places, dropout on the sublayer and in training only, the final norm")
def check_residual(
    cls: type, placement: str = "post", *, device: torch.device | str = "cpu"
) -> None:
    """Check a class made by cls(d_model, dropout) with `norm`, `dropout` and `final`.

    It is called with x b t d_model and a sublayer. `placement` is "post" for norm(x + f(x)) or
    "pre" for x + f(norm(x)).
    """
    t, d = sizes(5, 6)
    module = shaken(call(cls, d, 0.0), device)
    x = torch.randn(2, t, d).to(device)
    matrix = torch.randn(d, d).to(device)

    def sublayer(y: Tensor) -> Tensor:
        return y @ matrix

    ways = wrappings(module, x, placement)
    right = ways.pop(PLACEMENTS[placement])
    suspects = {cause: functools.partial(way, sublayer) for cause, way in ways.items()}
    agree(call(module, x, sublayer), right(sublayer), f"on x {size(x)}", suspects)
    drops_the_sublayer_only(module, x, sublayer, right)
    drops_nothing_in_eval(cls, x, sublayer, placement)
    ends_with_the_right_norm(cls, placement, 3 * x + 1)


def drops_the_sublayer_only(
    module: nn.Module, x: Tensor, sublayer: Sublayer, right: Callable
) -> None:
    """Expect that dropout near 1 leaves x, and nothing of the sublayer."""
    module.dropout.p = 1 - 1e-7
    module.train()
    got = call(module, x, sublayer)
    want = right(lambda y: 0 * y)
    cause = "Dropout belongs on the sublayer's output, before the sum: x itself must come through"
    where = "in train mode with dropout near 1, more or less than x is left"
    expect(distance(got, want) < 1e-4, f"{where}. {cause}")


def drops_nothing_in_eval(cls: type, x: Tensor, sublayer: Sublayer, placement: str) -> None:
    """Expect that a module with dropout gives the whole sum in eval mode."""
    module = shaken(call(cls, x.shape[-1], 0.5), x.device)
    want = wrappings(module, x, placement)[PLACEMENTS[placement]](sublayer)
    cause = (
        "Dropout stays on in eval mode: use nn.Dropout, or F.dropout with training=self.training"
    )
    where = "in eval mode with dropout=0.5, the output differs from that without dropout"
    expect(distance(call(module, x, sublayer), want) < 1e-4, f"{where}. {cause}")


def ends_with_the_right_norm(cls: type, placement: str, x: Tensor) -> None:
    """Expect `final`, the end of a stack, to be a norm for pre-norm and nothing for post-norm."""
    final = call(cls.final, x.shape[-1]).to(x.device)(x)
    pre = placement == "pre"
    want = F.layer_norm(x, x.shape[-1:]) if pre else x
    end = "one more norm" if pre else "nothing more"
    wrong = f"`final` is wrong: a stack of {placement}-norm layers ends with {end}"
    expect(distance(final, want) < 1e-3, wrong)
