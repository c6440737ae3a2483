"""Checks of chapter 8: the masks, a layer of the decoder, and the stack."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.checks.fixtures import SIZES, keys, only_past, padded_pair
from transformer.checks.harness import Suspects, call, check, expect, sees_no_future, shaken, size
from transformer.checks.stacks import Feed, separate_layers, separate_residuals, try_stack
from transformer.checks.twins import torch_decoder, torch_decoder_layer


@check("itself and the past, boolean, every length")
def check_causal_mask(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (t, device) that gives the boolean mask q k, True where k ≤ q."""
    for t in (5, 1):
        mask = call(fn, t, device=torch.device(device))
        want = torch.tensor([[k <= q for k in range(t)] for q in range(t)], device=device)
        expect(mask.shape == want.shape, f"for t={t} the mask is {size(mask)}, wanted {t}×{t}")
        boolean = f"the mask is {mask.dtype}: it must be boolean, True = may attend"
        expect(mask.dtype == torch.bool, boolean)
        flipped = "it shows the future and hides the past: triu where tril is wanted"
        expect(not mask.equal(want.T) or t == 1, flipped)
        inverted = "it is inverted: True must mean may attend, so it is True where k ≤ q"
        expect(not mask.equal(~want), inverted)
        cause = "position q must see itself, or the first one sees nothing"
        expect(mask.diagonal().all(), f"for t={t} the diagonal is hidden: {cause}")
        expect(mask.equal(want), f"for t={t} it is {mask.int().tolist()}, wanted 1 where k ≤ q")
        expect(mask.device == want.device, f"the mask is on {mask.device}, wanted {want.device}")


@check("hides padding as keys, b 1 1 t, any padding id")
def check_padding_mask(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (ids: b t, pad_id) that gives the boolean mask b 1 1 t, True if real."""
    ids = torch.tensor([[5, 0, 6, 2, 8], [7, 6, 2, 9, 9]], device=device)
    mask = call(fn, ids, 9)
    where = "on ids 2×5 with pad_id 9"
    cause = "it hides queries, whose rows become empty; hide keys, the last axis"
    expect(mask.shape != (2, 1, 5, 1), f"{where} the mask is 2×1×5×1: {cause}")
    both = f"{where} the mask is 2×1×5×5: if it hides rows too, {cause}"
    expect(mask.shape != (2, 1, 5, 5), both)
    wanted = "wanted 2×1×1×5, to broadcast over b h q k"
    expect(mask.shape == (2, 1, 1, 5), f"{where} the mask is {size(mask)}, {wanted}")
    boolean = f"the mask is {mask.dtype}: it must be boolean, True = may attend"
    expect(mask.dtype == torch.bool, boolean)
    inverted = f"{where} it is inverted: True must mean a real token"
    expect(not mask.equal(keys(ids == 9)), inverted)
    zero = f"{where} it hides id 0: use the pad_id that was given"
    expect(not mask.equal(keys(ids != 0)), zero)
    wrong = f"{where} it is {mask.int().tolist()}, wanted 0 where the id is 9"
    expect(mask.equal(keys(ids != 9)), wrong)


@check(
    "equal to PyTorch in both norm placements, sees no future, source padding, gradient, dropout"
)
def check_decoder_layer(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, n_heads, d_ff, dropout, residual).

    It is called with x b t d_model, memory b k d_model, tgt_mask and src_mask.
    """
    memory, real = padded_pair(7, device)
    x = torch.randn(2, 5, SIZES["d_model"]).to(device)
    past = only_past(5, device)

    def torch_feed(twin: nn.Module) -> Tensor:
        return twin(x, memory, ~past[0, 0], memory_key_padding_mask=~real)

    causes = functools.partial(layer_suspects, x, memory, real)
    decoder_is_causal(cls, x, memory, past, keys(real))
    separate_residuals(cls)
    feed = Feed(x, memory, past, keys(real))
    try_stack(cls, torch_decoder_layer, feed, torch_feed, causes, device)


def layer_suspects(
    x: Tensor, memory: Tensor, real: Tensor, layer: nn.Module, norm_first: bool
) -> Suspects:
    """Return the usual mistakes of a decoder layer."""
    twin = torch_decoder_layer(layer, norm_first)
    past = only_past(x.shape[1], x.device)
    first, second, third = layer.residuals

    def to_itself(y: Tensor) -> Tensor:
        return layer.self_attention(y, y, past)

    def to_source(y: Tensor) -> Tensor:
        return layer.cross_attention(y, memory, keys(real))

    def without_memory(y: Tensor) -> Tensor:
        return layer.cross_attention(y, y, past)

    def end(y: Tensor) -> Tensor:
        return third(y, layer.feed_forward)

    attended = first(x, to_itself)
    unmasked = "src_mask is not used: cross-attention sees the padding of the source."
    order = "Cross-attention comes before self-attention: self-attention is the first sublayer."
    itself = "Cross-attention reads the target: its keys and values come from memory."
    without = "Cross-attention is left out: the source is never read."
    return {
        unmasked: lambda: twin(x, memory, ~past[0, 0]),
        order: lambda: end(first(second(x, to_source), to_itself)),
        itself: lambda: end(second(attended, without_memory)),
        without: lambda: end(attended),
    }


def decoder_is_causal(
    make: Callable, x: Tensor, memory: Tensor, past: Tensor, src_mask: Tensor
) -> None:
    """Expect a decoder or a layer of it to see no future, in train and in eval mode."""
    decoder = shaken(call(make, **SIZES), x.device)

    def run(y: Tensor) -> Tensor:
        return call(decoder, y, memory, past, src_mask)

    def change(vectors: Tensor) -> Tensor:
        return vectors + torch.randn(vectors.shape).to(vectors)

    for mode in ("train", "eval"):
        decoder.train(mode == "train")
        sees_no_future(run, x, change, f"{size(x)} in {mode}()")


@check("equal to PyTorch in both norm placements, sees no future, separate layers, gradient")
def check_decoder(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(n_layers, d_model, n_heads, d_ff, dropout, residual).

    It is called with x b t d_model, memory b k d_model, tgt_mask and src_mask.
    """
    make = functools.partial(cls, 2)
    memory, real = padded_pair(7, device)
    x = torch.randn(2, 5, SIZES["d_model"]).to(device)
    past = only_past(5, device)
    separate_layers(call(make, **SIZES), 2)

    def torch_feed(twin: nn.Module) -> Tensor:
        return twin(x, memory, ~past[0, 0], memory_key_padding_mask=~real)

    causes = functools.partial(decoder_suspects, x, memory, real)
    decoder_is_causal(make, x, memory, past, keys(real))
    feed = Feed(x, memory, past, keys(real))
    try_stack(make, torch_decoder, feed, torch_feed, causes, device)


def decoder_suspects(
    x: Tensor, memory: Tensor, real: Tensor, decoder: nn.Module, norm_first: bool
) -> Suspects:
    """Return the usual mistakes of a stack of two layers."""
    first, second = (torch_decoder_layer(layer, norm_first) for layer in decoder.layers)
    norm = decoder.norm
    future = ~only_past(x.shape[1], x.device)[0, 0]
    half = first(x, memory, future, memory_key_padding_mask=~real)
    whole = second(half, memory, future, memory_key_padding_mask=~real)
    unmasked = second(first(x, memory, future), memory, future)
    only_first = "Only the first layer gets src_mask: hand it to all."
    extra = "A norm is added at the end: post-norm ends with one already."
    return {
        only_first: lambda: norm(second(half, memory, future)),
        "No layer gets src_mask.": lambda: norm(unmasked),
        "Only the first layer is run.": lambda: norm(half),
        "The final norm is missing: a pre-norm stack ends with one.": lambda: whole,
        extra: lambda: F.layer_norm(whole, x.shape[-1:]),
    }
