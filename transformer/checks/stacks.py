"""What the checks of encoder and decoder share: layers and stacks compared with PyTorch's."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from transformer.checks.fixtures import SIZES
from transformer.checks.harness import (
    Suspects,
    agree,
    call,
    drops_in_training_only,
    expect,
    reaches_every_parameter,
    shaken,
)
from transformer.checks.twins import copy_norm
from transformer.model import NORMS


class Feed:
    """Call a module with fixed inputs."""

    def __init__(self, *inputs: Tensor):
        self.inputs = inputs

    def __call__(self, module: nn.Module) -> Tensor:
        return call(module, *self.inputs)


def placement_suspects(
    twin: Callable, layer: nn.Module, norm_first: bool, run: Callable
) -> Suspects:
    """Return the usual mistakes with norms: `twin` makes PyTorch's module, `run` feeds it."""
    wanted, found = ("pre", "post") if norm_first else ("post", "pre")
    other = f"The norms stand as in {found}-norm, but {wanted}-norm was asked for."
    swapped = "The norms changed places: each sublayer has its own residual, in order."

    def swap_norms() -> Tensor:
        module = twin(layer, norm_first)
        copy_norm(module.norm1, layer.residuals[-1].norm)
        for name in ("norm2", "norm3"):
            if hasattr(module, name):
                copy_norm(getattr(module, name), layer.residuals[0].norm)
        return run(module)

    return {other: lambda: run(twin(layer, not norm_first)), swapped: swap_norms}


def try_stack(
    make: Callable,
    twin: Callable,
    feed: Feed,
    torch_feed: Callable,
    causes: Callable,
    device: torch.device | str,
) -> None:
    """Compare a layer or stack with PyTorch's in both norm placements; try gradient and dropout.

    `causes` makes the suspects from the module and norm_first.
    """
    for norm, residual in NORMS.items():
        module = shaken(call(make, **SIZES, dropout=0.0, residual=residual), device)
        norm_first = norm == "pre"
        reaches_every_parameter(module, feed(module))
        suspects = causes(module, norm_first)
        suspects |= placement_suspects(twin, module, norm_first, torch_feed)
        where = f"in {norm}-norm, on 2 sentences, the second padded"
        agree(feed(module), torch_feed(twin(module, norm_first)), where, suspects)
    noisy = call(make, **SIZES, dropout=0.5, residual=NORMS["post"]).to(device)
    drops_in_training_only(noisy, *feed.inputs)


def separate_residuals(make: Callable) -> None:
    """Expect each sublayer of a layer to have a residual of its own."""
    residuals = call(make, **SIZES, dropout=0.0, residual=NORMS["post"]).residuals
    owned = {id(parameter) for one in residuals for parameter in one.parameters()}
    cause = "[residual] * n repeats one residual: build a new one for each sublayer"
    separate = len(owned) == len(residuals) * len(list(residuals[0].parameters()))
    expect(separate, f"the residuals share their parameters. {cause}")


def separate_layers(stack: nn.Module, n: int) -> None:
    """Expect n layers with parameters of their own."""
    expect(len(stack.layers) == n, f"n_layers={n} made {len(stack.layers)} layers")
    owned = {id(parameter) for layer in stack.layers for parameter in layer.parameters()}
    cause = "[layer] * n_layers repeats one layer: build a new one each time"
    separate = len(owned) == n * len(list(stack.layers[0].parameters()))
    expect(separate, f"the layers share their parameters. {cause}")
