"""Checks of chapter 2: the sinusoidal table, and how it is added."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from transformer.checks.harness import Suspects, agree, call, check, expect, refuses, size


def wave(position: int, feature: int, d_model: int) -> float:
    """Return one number of the paper's table, as section 3.5 writes it."""
    angle = position / 10_000 ** (2 * (feature // 2) / d_model)
    return math.cos(angle) if feature % 2 else math.sin(angle)


def wave_table(n_positions: int, d_model: int, formula: Callable = wave, first: int = 0) -> Tensor:
    """Return a table of waves t d, number by number."""
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


def table_suspects() -> Suspects:
    """Return the usual mistakes of a table of 9 positions and width 6."""
    sines = wave_table(9, 6)[:, 0::2]
    cosines = wave_table(9, 6)[:, 1::2]
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
        own_frequency: lambda: wave_table(9, 6, frequency_of_each),
        from_one: lambda: wave_table(9, 6, first=1),
        factor: lambda: wave_table(9, 6, half_the_exponent),
    }


@check("equal to the formula, odd widths, far positions")
def check_positions(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (n_positions, d_model) that gives the sinusoidal table t d."""
    agree(call(fn, 9, 6), wave_table(9, 6), "for 9 positions and width 6", table_suspects())
    for width in (7, 1):
        odd = call(fn, 9, width, hint="An odd width has one sine more than cosines.")
        agree(odd, wave_table(9, width), f"for the odd width {width}")
    far = call(fn, 5000, 8)[-1:]
    agree(far, wave_table(1, 8, first=4999), "for position 4999", tolerance=2e-3)


@check("adds the position, from any start, moves with the model, refuses what is too long")
def check_positional_encoding(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, max_len), called with x b t d and start."""
    module = call(cls, 8, 20).to(device).eval()
    x = torch.randn(2, 5, 8).to(device)
    table = wave_table(20, 8).to(device)
    along_batch = "The table was read along the batch: positions are the axis t of b t d."
    suspects = {
        along_batch: lambda: x + table[:2].unsqueeze(1),
        "The position replaces the word: add them.": lambda: table[:5].expand(2, 5, 8),
    }
    agree(call(module, x), x + table[:5], f"on x {size(x)}", suspects)
    ignored = "`start` is ignored: a fourth token that is decoded alone would get position 0."
    suspects = {ignored: lambda: x + table[:5]}
    agree(call(module, x, start=3), x + table[3:8], f"on x {size(x)} with start=3", suspects)
    refuses(module, x, start=16, what="a sentence at positions 16 … 20 of a table of 20")
    trained = "the table is a parameter and would be trained: the positions are fixed"
    expect(not list(module.parameters()), trained)
    attributes = vars(module.to("meta"))
    stayed = [name for name, value in attributes.items() if isinstance(value, Tensor)]
    cause = "A plain attribute is left behind by .to(device): use register_buffer"
    expect(not stayed, f"after .to('meta') `{', '.join(stayed)}` is still on {device}. {cause}")
