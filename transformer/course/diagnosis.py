"""Name the mistake in a wrong implementation, by comparing its behaviour with that of the zoo.

A check is run on the learner's implementation, and on each member of the zoo that it must catch.
Both are run to the end of the check, and every claim is recorded. Two of them make the same mistake
if all claims hold for both up to the first that fails, and if that one fails in the same way: with
the same cause, the same result, or the same message. Of several such members, the one that goes on
behaving like the learner's the longest is named, and none if two of them do.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from transformer import zoo
from transformer.checks.claims import Claim, record, seeded, setting
from transformer.checks.harness import size
from transformer.course.exercise import Exercise, FindBug, WriteBlock
from transformer.course.judging import check_of, checked

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
FEW = 12


def diagnose(exercise: Exercise, implementation: Any) -> str:
    """Return a sentence on what is wrong, or nothing if there is no more to say."""
    if not isinstance(exercise, WriteBlock | FindBug):
        return ""
    check, options = check_of(exercise)
    implementation = checked(exercise, implementation)
    member = like(check, implementation, options)
    if member is not None:
        return f"It behaves like a known mistake: {member.sentence}"
    return smallest_failure(check, implementation, options)


def like(check: Callable, implementation: Any, options: dict[str, Any]) -> zoo.Member | None:
    """Return the member of the zoo whose mistake an implementation makes; None if none is clear."""
    claims = record(partial(check, implementation, **options))
    others = [one for one in zoo.members(check.__name__) if one.options == options]
    found = [one for one in others if fails_alike(claims, partial(check, one.wrong, **options))]
    if len(found) <= 1:
        return found[0] if found else None
    records = [record(partial(check, one.wrong, **options)) for one in found]
    scores = [sum(map(alike, claims, other)) for other in records]
    best = max(scores)
    return found[scores.index(best)] if scores.count(best) == 1 else None


def fails_alike(claims: Sequence[Claim], other: Callable[[], None]) -> bool:
    """Return whether another check agrees up to and including the first claim that fails."""
    first = next((n for n, claim in enumerate(claims) if not claim.holds), None)
    if first is None:
        return False

    def settled(others: Sequence[Claim]) -> bool:
        last = len(others) - 1
        return last >= first or not alike(claims[last], others[last])

    others = record(other, settled)
    return len(others) > first and alike(claims[first], others[first])


def alike(a: Claim, b: Claim) -> bool:
    """Return whether a claim holds for both, or fails for both in the same way."""
    if a.kind != b.kind or a.holds != b.holds:
        return False
    if a.holds:
        return True
    if a.kind == "agree" and (a.cause or b.cause):
        return a.cause == b.cause
    if isinstance(a.seen, Tensor) and isinstance(b.seen, Tensor):
        return close(a.seen, b.seen)
    return same_message(a.message, b.message)


def close(a: Tensor, b: Tensor) -> bool:
    """Return whether two results are the same, up to rounding."""
    if a.shape != b.shape:
        return False
    tolerance = dict(rtol=1e-3, atol=1e-4) if a.dtype.itemsize > 2 else dict(rtol=0.05, atol=0.02)
    return torch.allclose(a.double(), b.double(), equal_nan=True, **tolerance)


def same_message(a: str, b: str) -> bool:
    """Return whether two messages say the same, with numbers that are nearly the same."""
    if NUMBER.sub("", a) != NUMBER.sub("", b):
        return False
    pairs = zip(NUMBER.findall(a), NUMBER.findall(b), strict=False)
    return all(math.isclose(float(x), float(y), rel_tol=0.02, abs_tol=1e-6) for x, y in pairs)


# --- where no member matches ----------------------------------------------------------------------


def smallest_failure(check: Callable, implementation: Any, options: dict[str, Any]) -> str:
    """Describe the failing claim with the smallest input; nothing if it is not about numbers."""
    with seeded(setting().seed, small=True):
        claims = record(partial(check, implementation, **options))
    failing = [claim for claim in claims if not claim.holds and isinstance(claim.seen, Tensor)]
    compared = [claim for claim in failing if claim.seen.shape == claim.wanted.shape]
    if not compared:
        return ""
    claim = min(compared, key=lambda claim: sum(map(elements, claim.inputs)))
    given = ", ".join(size(value) for value in claim.inputs if elements(value))
    return f"The smallest input that shows it: {given}. {place(claim.seen, claim.wanted)}"


def elements(value: Any) -> int:
    """Return how many numbers an input has."""
    return value.numel() if isinstance(value, Tensor) else 0


def place(seen: Tensor, wanted: Tensor) -> str:
    """Say what came and what was wanted, whole or at the place where they differ most."""
    if seen.numel() <= FEW:
        return f"It gives {rounded(seen)}, wanted {rounded(wanted)}"
    off = (seen.double() - wanted.double()).abs().nan_to_num(math.inf)
    where = torch.unravel_index(off.argmax(), off.shape)
    index = [int(n) for n in where]
    key = tuple(index)
    return f"At {index} it gives {seen[key].item():.4g}, wanted {wanted[key].item():.4g}"


def rounded(values: Tensor) -> Any:
    """Return a tensor as lists of short numbers."""
    return torch.round(values.double(), decimals=3).tolist()
