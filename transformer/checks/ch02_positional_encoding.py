"""Checks of chapter 2: the sinusoidal table, and how it is added."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from transformer.checks.harness import Suspects, agree, call, check, expect, refuses, size, sizes


def wave(position: int, feature: int, d_model: int) -> float:
    """Return one number of the paper's table, as section 3.5 writes it."""
    angle = position / 10_000 ** (2 * (feature // 2) / d_model)
    return math.cos(angle) if feature % 2 else math.sin(angle)


def wave_table(n_positions: int, d_model: int, formula: Callable = wave, first: int = 0) -> Tensor:
    """Return a table of waves t d_model, number by number."""
    positions = range(first, first + n_positions)
    return torch.tensor([[formula(t, i, d_model) for i in range(d_model)] for t in positions])


def frequency_of_each(position: int, feature: int, d_model: int) -> float:
    """Return a wave whose exponent is i / d_model for every feature i."""
    angle = position / 10_000 ** (feature / d_model)
    return math.cos(angle) if feature % 2 else math.sin(angle)


def half_the_exponent(position: int, feature: int, d_model: int) -> float:
    """Return a wave whose exponent is i / d_model for the pair i."""
    angle = position / 10_000 ** (feature // 2 / d_model)
    return math.cos(angle) if feature % 2 else math.sin(angle)


def table_suspects(n_positions: int, d_model: int) -> Suspects:
    """Return the usual mistakes of a table of an even width."""
    sines = wave_table(n_positions, d_model)[:, 0::2]
    cosines = wave_table(n_positions, d_model)[:, 1::2]
    halves = "Sines fill the first half and cosines the second: the paper interleaves them."
    cosine_first = "Cosine stands at the even features: sine comes first."
    own_frequency = (
        "A cosine has another frequency than its sine: the exponent is 2i/d_model for the pair i, "
        "and the odd feature 2i + 1 shares it."
    )
    from_one = "The positions begin with 1: the first is 0."
    factor = "The exponent lacks its factor 2: the pair i has the exponent 2i/d_model."
    return {
        halves: lambda: torch.cat([sines, cosines], dim=1),
        cosine_first: lambda: torch.stack([cosines, sines], -1).flatten(1),
        own_frequency: lambda: wave_table(n_positions, d_model, frequency_of_each),
        from_one: lambda: wave_table(n_positions, d_model, first=1),
        factor: lambda: wave_table(n_positions, d_model, half_the_exponent),
    }


@check("equal to the formula, odd widths, far positions")
def check_positions(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (n_positions, d_model) that gives the sinusoidal table t d_model."""
    n, half = sizes(9, 3)
    where = f"for {n} positions and width {2 * half}"
    agree(call(fn, n, 2 * half), wave_table(n, 2 * half), where, table_suspects(n, 2 * half))
    for width in (2 * half + 1, 1):
        odd = call(fn, n, width, hint="An odd width has one sine more than cosines.")
        agree(odd, wave_table(n, width), f"for the odd width {width}")
    far = call(fn, 5000, 8)[-1:]
    agree(far, wave_table(1, 8, first=4999), "for position 4999", tolerance=2e-3)


@check("adds the position, from any start, moves with the model, refuses what is too long")
def check_positional_encoding(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, max_len), called with x b t d_model and start."""
    t, d_model, start, max_len = sizes(5, 8, 3, 20)
    module = call(cls, d_model, max_len).to(device).eval()
    x = torch.randn(2, t, d_model).to(device)
    table = wave_table(max_len, d_model).to(device)
    along_batch = "The table was read along the batch: positions are the axis t of b t d_model."
    suspects = {
        along_batch: lambda: x + table[:2].unsqueeze(1),
        "The position replaces the word: add them.": lambda: table[:t].expand(2, t, d_model),
    }
    agree(call(module, x), x + table[:t], f"on x {size(x)}", suspects)
    ignored = "`start` is ignored: a fourth token that is decoded alone would get position 0."
    suspects = {ignored: lambda: x + table[:t]}
    where = f"on x {size(x)} with start={start}"
    agree(call(module, x, start=start), x + table[start : start + t], where, suspects)
    late = max_len - t + 1
    what = f"a sentence at positions {late} … {max_len} of a table of {max_len}"
    refuses(module, x, start=late, what=what)
    trained = "the table is a parameter and would be trained: the positions are fixed"
    expect(not list(module.parameters()), trained)
    attributes = vars(module.to("meta"))
    stayed = [name for name, value in attributes.items() if isinstance(value, Tensor)]
    cause = "A plain attribute is left behind by .to(device): use register_buffer"
    expect(not stayed, f"after .to('meta') `{', '.join(stayed)}` is still on {device}. {cause}")
