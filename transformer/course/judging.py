"""Judge an answer: each kind of exercise has its own way to be right."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from transformer import checks, zoo
from transformer.checks.claims import CheckError, setting
from transformer.checks.harness import first_line
from transformer.course.exercise import Answer, Exercise, FindBug, WriteBlock, WriteTest
from transformer.course.lessons import lesson


def judge(exercise: Exercise, answer: Any) -> str:
    """Raise a CheckError that says what is wrong with an answer, or return a remark on a right one.

    There is one for tests: how many of the known mistakes they find.
    """
    if isinstance(exercise, WriteBlock | FindBug):
        check, options = check_of(exercise)
        check(checked(exercise, answer), **options)
    elif isinstance(exercise, WriteTest):
        return judge_test(exercise, answer)
    elif isinstance(exercise, Answer):
        judge_value(exercise, answer)
    return ""


def check_of(exercise: WriteBlock | FindBug) -> tuple[Callable[..., None], dict[str, Any]]:
    """Return the check of an implementation, and its options."""
    if isinstance(exercise, FindBug):
        member = zoo.member(exercise.bugs[0].member)
        return getattr(checks, member.check), member.options
    if callable(exercise.check):
        return exercise.check, dict(exercise.options)
    return getattr(checks, exercise.check), dict(exercise.options)


def checked(exercise: WriteBlock | FindBug, answer: Any) -> Any:
    """Return what is given to the check: the answer, or what it is a part of."""
    inside = exercise.inside if isinstance(exercise, WriteBlock) else None
    return inside(answer) if inside else answer


def reference(exercise: WriteBlock | FindBug | WriteTest) -> Any:
    """Return what the library has for an exercise: the function or class that is right."""
    return getattr(lesson(exercise.chapter).load(), exercise.target.partition(".")[0])


# --- values ---------------------------------------------------------------------------------------


def judge_value(exercise: Answer, value: Any) -> None:
    """Compare a value with the truth, and name the mistake that gives the same first wrong item."""
    got = plain(value)
    where = difference(got, plain(exercise.solution()), exercise.tolerance)
    if not where:
        return
    wanted = plain(exercise.solution())
    first = until_wrong(got, wanted, exercise.tolerance)
    alike = {
        cause: until_wrong(got, plain(wrong), exercise.tolerance)
        for cause, wrong in exercise.mistakes.items()
        if until_wrong(plain(wrong), wanted, exercise.tolerance) == first
    }
    cause = max(alike, key=lambda cause: alike[cause], default="")
    raise CheckError(f"{where}. {cause}" if cause and alike[cause] > first else where)


def until_wrong(got: Any, want: Any, tolerance: float) -> int:
    """Return how many items of two lists agree before the first that does not."""
    if not isinstance(got, list) or not isinstance(want, list) or len(got) != len(want):
        return 0 if difference(got, want, tolerance) else 1
    pairs = enumerate(zip(got, want, strict=True))
    return next((n for n, (g, w) in pairs if difference(g, w, tolerance)), len(want))


def plain(value: Any) -> Any:
    """Return tensors, tuples and the like as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def difference(got: Any, want: Any, tolerance: float, place: str = "the answer") -> str:
    """Say where two values differ, without telling what is right; empty if they agree."""
    if got is ...:
        return f"{place} is still ..."
    if isinstance(want, list):
        if not isinstance(got, list) or len(got) != len(want):
            return f"{place} must be a list of {len(want)}, not {shown(got)}"
        parts = zip(got, want, range(1, len(want) + 1))
        found = (difference(g, w, tolerance, f"item {n} of {place}") for g, w, n in parts)
        return next(filter(None, found), "")
    if isinstance(want, bool | str):
        right = type(got) is type(want) and got == want
        return "" if right else f"{place} is {shown(got)}, which is not right"
    if isinstance(got, bool) or not isinstance(got, int | float):
        return f"{place} must be a number, not {shown(got)}"
    near = math.isclose(got, want, rel_tol=0, abs_tol=tolerance * max(1.0, abs(want)))
    return "" if near else f"{place} is {shown(got)}, which is not right"


def shown(value: Any) -> str:
    """Return a value as it is written, cut to a readable length."""
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


# --- tests ----------------------------------------------------------------------------------------


def judge_test(exercise: WriteTest, test: Callable[[Any], None]) -> str:
    """Expect a test to accept what is right, and to refuse enough of the known mistakes.

    Returns how many it refuses.
    """
    error = refused(test, reference(exercise))
    if error is not None:
        message = f"{type(error).__name__}: {first_line(error)}".rstrip(": ")
        raise CheckError(f"it refuses an implementation that is right: {message}") from error
    results = list(verdicts(exercise, test))
    survivors = [sentence for sentence, caught in results if not caught]
    killed = len(results) - len(survivors)
    found = f"it finds {killed} of {len(results)} known mistakes"
    if killed < exercise.at_least:
        raise CheckError(
            f"{found}, wanted {exercise.at_least}. It lets this one pass: {survivors[0]}"
        )
    return f"{found}. It lets this one pass: {survivors[0]}" if survivors else found


def verdicts(exercise: WriteTest, test: Callable[[Any], None]) -> Iterator[tuple[str, bool]]:
    """Yield the sentence of each known mistake, and whether the test finds it."""
    for member in zoo.members(exercise.check):
        yield member.sentence, refused(test, member.wrong) is not None


def refused(test: Callable[[Any], None], implementation: Any) -> Exception | None:
    """Return the error with which a test refuses an implementation, or None if it accepts it.

    A function is handed over under another name, so that a test sees what it does and not what it
    is called.
    """

    def anonymous(*args: Any, **options: Any) -> Any:
        return implementation(*args, **options)

    given = implementation if isinstance(implementation, type) else anonymous
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(setting().seed)
        try:
            test(given)
        except Exception as error:
            return error
    return None
