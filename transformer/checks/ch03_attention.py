"""Checks of chapter 3: scaled dot-product attention and its weights."""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.checks.harness import (
    TOLERANCE,
    Suspects,
    agree,
    call,
    check,
    expect,
    keeps_dtype,
    size,
    sizes,
)

Finish = Callable[[Tensor], Tensor]
"""How a result is made from the true weights: the identity, or their product with values."""

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
EMPTY_ROW = "Query 2 may attend to no key and must get zeros."


def true_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None, dim: int = -1
) -> Tensor:
    """Return the attention weights in double precision; `scale` and `dim` serve the suspects."""
    scores = q.double() @ k.double().mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        return scores.softmax(dim)
    return scores.masked_fill(~mask, -math.inf).softmax(dim)


def mask_with_empty_row(q: int, k: int, device: torch.device | str) -> Tensor:
    """Return a random mask q k that shows something to every query except query 2."""
    mask = torch.rand(q, k) < 0.5
    mask[:, 0] = False
    mask[:, 1] = True
    mask[2] = False
    return mask.to(device)


def scale_suspects(q: Tensor, k: Tensor, finish: Finish) -> Suspects:
    """Return the usual mistakes of attention without a mask."""
    d = q.shape[-1]
    over_queries = (
        "The softmax runs over the queries: each row belongs to one query and must sum to 1, "
        "so it runs over the keys, the last axis."
    )

    def scaled(scale: float) -> Callable[[], Tensor]:
        return lambda: finish(true_weights(q, k, scale=scale))

    return {
        "The scores are not scaled: divide by √d_head.": scaled(1.0),
        "The scores are divided by d_head: the divisor is √d_head.": scaled(1 / d),
        "The scores are multiplied by √d_head: divide.": scaled(d**0.5),
        over_queries: lambda: finish(true_weights(q, k, dim=-2)),
    }


def mask_suspects(q: Tensor, k: Tensor, mask: Tensor, finish: Finish) -> Suspects:
    """Return the usual mistakes of attention with a mask."""
    inverted = "The mask is inverted: True means may attend, so fill where it is False."
    after = (
        "The weights are set to 0 after the softmax, so a row no longer sums to 1: "
        "set the scores to -∞ before it."
    )
    added = "The mask is added to the scores as 0 and 1: False must become -∞."
    shifted = q.double() @ k.double().mT / q.shape[-1] ** 0.5 + mask.double()
    return {
        inverted: lambda: finish(true_weights(q, k, ~mask)),
        "The mask is ignored.": lambda: finish(true_weights(q, k)),
        after: lambda: finish(true_weights(q, k) * mask),
        added: lambda: finish(shifted.softmax(-1)),
    }


def empty_suspects(q: Tensor, k: Tensor, mask: Tensor, finish: Finish) -> Suspects:
    """Return the usual mistakes with a query that may attend to nothing."""
    nan = f"{EMPTY_ROW} A softmax over nothing but -∞ is NaN: replace such rows."
    uniform = f"{EMPTY_ROW} With -1e9 in place of -∞ every key gets the same weight."
    weights = true_weights(q, k, mask)
    even = (~mask.any(-1, keepdim=True)) / mask.shape[-1]
    return {
        nan: lambda: finish(weights),
        uniform: lambda: finish(weights.nan_to_num() + even),
    }


def try_attention(
    run: Callable, finish: Finish, dtype: torch.dtype, device: torch.device | str
) -> None:
    """Try attention, or its weights, in one dtype: no mask, two masks, and an empty row."""
    q_len, k_len, d = sizes(5, 7, 4)
    q, k = (torch.randn(2, 3, t, d).to(device, dtype) for t in (q_len, k_len))
    where = f"on q {size(q)} and k {size(k)}"
    half = "-1e9 does not fit into float16, whose largest number is 65,504: use -math.inf."
    hint = half if dtype == torch.float16 else ""
    tolerance = TOLERANCE[dtype]
    got = call(run, q, k, None)
    keeps_dtype(got, dtype, device)
    want = finish(true_weights(q, k))
    agree(got.double(), want, f"{where}, no mask", scale_suspects(q, k, finish), tolerance)
    empty = mask_with_empty_row(q_len, k_len, device)
    full = empty | (torch.arange(k_len, device=device) == 1)
    lengths = torch.tensor([k_len, k_len - 3]).reshape(2, 1, 1, 1)
    padding = (torch.arange(k_len) < lengths).to(device)
    for name, mask in {"a mask q k": full, "a padding mask b 1 1 k": padding}.items():
        got = call(run, q, k, mask, hint=hint)
        want = finish(true_weights(q, k, mask))
        suspects = mask_suspects(q, k, mask, finish)
        agree(got.double(), want, f"{where}, {name}", suspects, tolerance)
    got = call(run, q, k, empty, hint=hint)
    want = finish(true_weights(q, k, empty).nan_to_num())
    agree(got.double(), want, f"{where}, a mask", empty_suspects(q, k, empty, finish), tolerance)


def try_corners(run: Callable, finish: Finish, device: torch.device | str) -> None:
    """Try tensors of two axes, very large scores, and the gradient past an empty row."""
    q_len, k_len, d = sizes(5, 7, 4)
    q, k = (torch.randn(t, d).to(device) for t in (q_len, k_len))
    got = call(run, q, k, None).double()
    agree(got, finish(true_weights(q, k)), f"on q {size(q)}, k {size(k)}", None, 1e-5)
    large = call(run, 300 * q, k, None)
    overflow = "on scores of some hundreds the result is not finite: exp overflows, use softmax"
    expect(large.isfinite().all(), overflow)
    q.requires_grad_()
    call(run, q, k, mask_with_empty_row(q_len, k_len, device)).sum().backward()
    infinite = "with an empty row in the mask the gradient of q is not finite: training would stop"
    expect(q.grad.isfinite().all(), infinite)


@check("rows sum to 1, equal to the formula, masks, empty rows, float16 to float64")
def check_attention_weights(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (q: … q d_head, k: … k d_head, mask: … q k) giving weights … q k."""
    for dtype in DTYPES:
        try_attention(fn, lambda weights: weights, dtype, device)
    try_corners(fn, lambda weights: weights, device)


@check("equal to PyTorch, masks, empty rows, float16 to float64")
def check_attention(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (q: … q d_head, k: … k d_head, v: … k d_v, mask: … q k).

    It gives … q d_v; the mask may be None.
    """
    q_len, k_len, d, d_v = sizes(5, 7, 4, 6)
    q, k, v = (torch.randn(2, t, d).to(device) for t in (q_len, k_len, k_len))
    suspects = {
        "The keys are mixed: mix the values.": lambda: true_weights(q, k).float() @ k,
        **scale_suspects(q, k, lambda weights: weights.float() @ v),
    }
    want = F.scaled_dot_product_attention(q, k, v)
    agree(call(fn, q, k, v), want, f"on q {size(q)} and k, v {size(k)}", suspects)
    order = torch.arange(k_len, device=device).flip(0).roll(2)
    shuffled = call(fn, q, k[:, order], v[:, order])
    where = "with keys and values in another order: attention sees a set, not a sequence"
    agree(shuffled, call(fn, q, k, v), where)
    for dtype in DTYPES:
        values = torch.randn(2, 3, k_len, d_v).to(device, dtype)
        with_values = functools.partial(mix_in, fn, values)
        try_attention(with_values, lambda weights, v=values: weights @ v.double(), dtype, device)
    values = torch.randn(k_len, d_v).to(device)
    with_values = functools.partial(mix_in, fn, values)
    try_corners(with_values, lambda weights: weights @ values.double(), device)


def mix_in(fn: Callable, values: Tensor, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Call an attention with fixed values."""
    return fn(q, k, values, mask)
