"""What a check claims, and how it is run: with which seed and sizes, and to which end.

Usually a check stops at the first claim that fails. `record` runs it to its end instead and returns
every claim with what was seen, so that two implementations can be compared by their behaviour.
"""

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


class CheckError(AssertionError):
    """What a check found wrong."""


@dataclass(frozen=True)
class Claim:
    """A claim of a check, and what was seen.

    `kind` says which function of the harness made it. `message` says what is wrong, and is empty if
    the claim holds. `seen` and `wanted` are what was compared, `inputs` what the implementation got
    in its last call. `cause` is the usual mistake that gives what was seen.
    """

    kind: str
    message: str = ""
    seen: Any = None
    wanted: Any = None
    cause: str = ""
    inputs: tuple = ()

    @property
    def holds(self) -> bool:
        return not self.message


@dataclass(frozen=True)
class Setting:
    """How checks are run: their seed, whether sizes are small, and where claims are recorded."""

    seed: int = 0
    small: bool = False
    claims: list[Claim] | None = None


USUAL = Setting()
_SETTING: ContextVar[Setting] = ContextVar("setting")


def setting() -> Setting:
    """Return how checks are run now."""
    return _SETTING.get(USUAL)


@contextmanager
def seeded(seed: int, small: bool = False) -> Iterator[None]:
    """Run the checks inside the block with other random numbers and sizes; 0 is the usual seed.

    With `small`, sizes are about half as large, for a failure that is easy to look at.
    """
    token = _SETTING.set(replace(setting(), seed=seed, small=small))
    try:
        yield
    finally:
        _SETTING.reset(token)


def record(check: Callable, implementation: Any, **options: Any) -> list[Claim]:
    """Run a check to its end and return its claims; it neither prints nor raises.

    After a claim that fails the next ones follow, as far as they can be made.
    """
    claims: list[Claim] = []
    token = _SETTING.set(replace(setting(), claims=claims))
    try:
        check(implementation, **options)
    finally:
        _SETTING.reset(token)
    return claims


def settle(claim: Claim, error: Exception | None = None) -> None:
    """Record a claim; if none are recorded, raise a CheckError unless it holds."""
    claims = setting().claims
    if claims is not None:
        last = claims[-1].inputs if claims else ()
        claims.append(claim if claim.inputs else replace(claim, inputs=last))
    elif not claim.holds:
        raise CheckError(claim.message) from error


def sizes(*usual: int) -> Sequence[int]:
    """Return the sizes that a check uses: the usual ones, or others for another seed.

    What is different stays different, so that swapped axes fail.
    """
    now = setting()
    if now.small:
        return [(n + 1) // 2 for n in usual]
    more = random.Random(now.seed).randint(1, 3) if now.seed else 0
    return [n + more for n in usual]


def start_random_numbers() -> None:
    """Seed PyTorch's random numbers, for a check that starts or a module that was just made.

    While claims are recorded, what comes after a module must not depend on how many numbers its
    constructor drew.
    """
    now = setting()
    torch.default_generator.manual_seed(now.seed + len(now.claims or ()))


def draw_by_name(module: nn.Module) -> bool:
    """Draw a learner's parameters from their names while claims are recorded; else return False.

    Two modules that behave alike then have equal parameters, in whatever order they were made.
    """
    mine = type(module).__module__
    ours = mine.startswith("transformer.") and not mine.startswith("transformer.zoo.")
    if setting().claims is None or ours:
        return False
    for name, parameter in module.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        with torch.no_grad():
            parameter.copy_(0.3 * drawn + parameter.mean().round())
    return True


def snapshot(values: Sequence[Any]) -> tuple:
    """Return inputs as they are now: an implementation may change them later."""
    return tuple(value.detach().clone() if isinstance(value, Tensor) else value for value in values)
