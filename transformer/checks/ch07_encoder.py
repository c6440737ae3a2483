"""Checks of chapter 7: a layer of the encoder, and the stack."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.checks.fixtures import SIZES, keys, padded_pair
from transformer.checks.harness import Suspects, agree, call, check, shaken, size
from transformer.checks.stacks import Feed, separate_layers, separate_residuals, try_stack
from transformer.checks.twins import torch_encoder, torch_encoder_layer


@check("equal to PyTorch in both norm placements, padding, order of words, gradient, dropout")
def check_encoder_layer(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, n_heads, d_ff, dropout, residual).

    It is called with x b t d_model and a mask.
    """
    x, real = padded_pair(5, device)

    def causes(layer: nn.Module, norm_first: bool) -> Suspects:
        twin = torch_encoder_layer(layer, norm_first)
        second = layer.residuals[1].norm
        attended = layer.residuals[0](x, lambda y: layer.self_attention(y, y, keys(real)))
        ignored = "The mask is not handed on to attention: padding is attended to."
        inverted = "The mask is inverted: True means may attend."
        no_residual = "The feed-forward block has no residual."
        return {
            ignored: lambda: twin(x),
            inverted: lambda: twin(x, src_key_padding_mask=real),
            no_residual: lambda: second(layer.feed_forward(attended)),
            "The feed-forward block is left out.": lambda: attended,
        }

    def torch_feed(twin: nn.Module) -> Tensor:
        return twin(x, src_key_padding_mask=~real)

    separate_residuals(cls)
    try_stack(cls, torch_encoder_layer, Feed(x, keys(real)), torch_feed, causes, device)
    layer = shaken(cls(**SIZES), device)
    order = torch.tensor([3, 0, 4, 1, 2], device=device)
    cause = "without positions, words in another order must give the same vectors in that order"
    where = f"on x {size(x)} without a mask: {cause}"
    agree(call(layer, x[:, order]), call(layer, x)[:, order], where)


@check(
    "equal to PyTorch in both norm placements, padding changes nothing, separate layers, gradient"
)
def check_encoder(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(n_layers, d_model, n_heads, d_ff, dropout, residual).

    It is called with x b t d_model and a mask.
    """
    make = functools.partial(cls, 2)
    x, real = padded_pair(5, device)
    separate_layers(call(make, **SIZES), 2)

    def torch_feed(twin: nn.Module) -> Tensor:
        return twin(x, src_key_padding_mask=~real)

    causes = functools.partial(encoder_suspects, x, real)
    try_stack(make, torch_encoder, Feed(x, keys(real)), torch_feed, causes, device)
    encoder = shaken(make(**SIZES), device)
    alone = call(encoder, x[1:, :3])
    padded = call(encoder, x, keys(real))[1:, :3]
    agree(padded, alone, "a sentence of 3 tokens, padded to 5, changes")


def encoder_suspects(x: Tensor, real: Tensor, encoder: nn.Module, norm_first: bool) -> Suspects:
    """Return the usual mistakes of a stack of two layers."""
    first, second = (torch_encoder_layer(layer, norm_first) for layer in encoder.layers)
    half = first(x, src_key_padding_mask=~real)
    whole = second(half, src_key_padding_mask=~real)
    last = second(x, src_key_padding_mask=~real)
    norm = encoder.norm
    only_last = "Only the last layer is run: each must read what the one before wrote."
    extra = "A norm is added at the end: post-norm ends with one already."
    return {
        "Only the first layer gets the mask: hand it to all.": lambda: norm(second(half)),
        "No layer gets the mask.": lambda: norm(second(first(x))),
        "Only the first layer is run.": lambda: norm(half),
        only_last: lambda: norm(last),
        "The final norm is missing: a pre-norm stack ends with one.": lambda: whole,
        extra: lambda: F.layer_norm(whole, x.shape[-1:]),
    }
