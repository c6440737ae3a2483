"""How a check works: what it expects, what it says when that fails, and how it names the cause."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from transformer.checks.claims import (
    CheckError,
    Claim,
    draw_by_name,
    setting,
    settle,
    sizes,
    snapshot,
    start_random_numbers,
)

__all__ = [
    "TOLERANCE",
    "CheckError",
    "Suspects",
    "agree",
    "call",
    "check",
    "distance",
    "drops_in_training_only",
    "expect",
    "first_line",
    "keeps_dtype",
    "reaches_every_parameter",
    "refuses",
    "same",
    "sees_no_future",
    "shaken",
    "size",
    "sizes",
]

Suspects = dict[str, Callable[[], Tensor]]
"""The usual mistakes: each cause, and the result that it would give."""

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def expect(condition: bool | Tensor, message: str) -> None:
    """Raise a CheckError with `message` unless the condition holds."""
    settle(Claim("expect", "" if condition else message))


def check(right: str) -> Callable:
    """Decorate a check: print `right` in one line if it passes, and keep the caller's RNG state."""

    def decorate(function: Callable) -> Callable:
        name = function.__name__.removeprefix("check_").replace("_", " ")

        @functools.wraps(function)
        def run(implementation, *args, **options) -> None:
            device = torch.device(options.get("device", "cpu"))
            gpus = [torch.cuda.current_device()] if device.type == "cuda" else []
            with torch.random.fork_rng(devices=gpus), torch.enable_grad():
                start_random_numbers()
                try:
                    function(implementation, *args, **options)
                except CheckError as error:
                    ends(f"{name}: {error}", error.__cause__)
                except Exception as error:
                    ends(f"{name}: {type(error).__name__}: {first_line(error)}", error)
            if setting().claims is None:
                print(f"{name}: right ({right})")

        return run

    return decorate


def ends(message: str, cause: BaseException | None) -> None:
    """Raise the error that ends a check; while claims are recorded, it is the last of them."""
    if setting().claims is None:
        raise CheckError(message) from cause
    settle(Claim("end", message))


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, at most 200 characters."""
    return str(error).strip().partition("\n")[0][:200]


def size(value: object) -> str:
    """Describe an input: a tensor by its shape and dtype, anything short by its repr."""
    if isinstance(value, Tensor):
        shape = "×".join(map(str, value.shape)) or "one number"
        return f"{shape} {str(value.dtype).removeprefix('torch.')}"
    text = repr(value)
    return text if len(text) < 40 else type(value).__name__


def call(fn: Callable, *args, hint: str = "", **options) -> Any:
    """Call an implementation; turn what it raises into a CheckError that names the input."""
    inputs = snapshot([*args, *options.values()])
    try:
        result = fn(*args, **options)
    except CheckError:
        raise
    except Exception as error:
        given = [size(value) for value in args]
        given += [f"{name}={size(value)}" for name, value in options.items()]
        raised = f"it raised {type(error).__name__} on ({', '.join(given)}): {first_line(error)}"
        raise CheckError(f"{raised.rstrip('.')}. {hint}".strip()) from error
    if setting().claims is not None:
        settle(Claim("call", inputs=inputs))
        if isinstance(result, nn.Module):
            start_random_numbers()
    return result


def refuses(fn: Callable, *args, what: str, **options) -> None:
    """Expect a ValueError; `what` describes the wrong argument."""
    message = f"{what} was accepted: raise a ValueError that says what was wanted"
    cause = None
    try:
        fn(*args, **options)
    except ValueError:
        message = ""
    except Exception as error:
        message = f"{what} must raise a ValueError, not {type(error).__name__}"
        cause = error
    settle(Claim("refuses", message), cause)


def distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference; infinity if shapes differ or a number is not finite."""
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return math.inf
    return (a.double() - b.double()).abs().max().item() if a.numel() else 0.0


def agree(
    got: Tensor,
    want: Tensor,
    where: str,
    suspects: Suspects | None = None,
    tolerance: float | None = None,
) -> None:
    """Expect two equal tensors; if they differ, name the suspect that gives what was got."""
    if not isinstance(got, Tensor):
        found = f"{where}: the result is a {type(got).__name__}, not a tensor"
        settle(Claim("agree", found))
    elif got.shape != want.shape:
        found = f"{where}: the result is {size(got)}, wanted {size(want)}"
        settle(Claim("agree", found, seen=got.detach(), wanted=want))
    else:
        largest = want.abs().max().item() if want.numel() else 0.0
        tolerance = (tolerance or TOLERANCE.get(got.dtype, 0.0)) * max(1.0, largest)
        settle(compared(got, want, where, suspects or {}, tolerance))


def compared(got: Tensor, want: Tensor, where: str, suspects: Suspects, tolerance: float) -> Claim:
    """Return the claim that two tensors of one shape are equal."""
    off = distance(got, want)
    seen = got.detach()
    if off <= tolerance:
        return Claim("agree", seen=seen, wanted=want)
    for cause, wrong in suspects.items():
        if same(got, wrong, tolerance):
            found = f"{where}: off by up to {off:.2g}. {cause}"
            return Claim("agree", found, seen, want, cause)
    finite = got.isfinite().all()
    found = f"is off by up to {off:.2g}" if finite else "has NaN or infinity"
    return Claim("agree", f"{where}: the result {found}", seen, want)


def same(got: Tensor, wrong: Callable[[], Tensor], tolerance: float) -> bool:
    """Return whether a suspect gives this result; one that raises does not."""
    try:
        other = wrong()
    except Exception:
        return False
    if got.shape != other.shape:
        return False
    return torch.allclose(got.double(), other.double(), rtol=0, atol=tolerance, equal_nan=True)


def keeps_dtype(got: Tensor, dtype: torch.dtype, device: torch.device | str) -> None:
    """Expect the dtype and the device of the input."""
    expect(got.dtype == dtype, f"from {dtype} input came {got.dtype}: the dtype must be kept")
    moved = f"from input on {device} came a result on {got.device}"
    expect(got.device.type == torch.device(device).type, moved)


def shaken(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Return the module in eval mode, every parameter moved at random: 0 and 1 hide mistakes."""
    if not draw_by_name(module):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return module.to(device).eval()


def starts_with_xavier(module: nn.Module) -> None:
    """Expect every linear layer of a new module to have Xavier's weights and a bias of 0."""
    for name, linear in module.named_modules():
        if isinstance(linear, nn.Linear):
            wanted = math.sqrt(2 / (linear.in_features + linear.out_features))
            found = linear.weight.std().item()
            spread = f"{name} starts with weights of standard deviation {found:.2f}"
            expect(0.8 * wanted < found < 1.25 * wanted, f"{spread}, Xavier's is {wanted:.2f}")
            zero = linear.bias is None or not linear.bias.any()
            expect(zero, f"{name} starts with a bias that is not 0")


def reaches_every_parameter(module: nn.Module, output: Tensor) -> None:
    """Expect a gradient in every parameter, except a key's bias, which the softmax cancels."""
    module.zero_grad()
    (output * torch.randn(output.shape).to(output)).sum().backward()
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        reached = gradient is not None and (gradient.any() or name.endswith("w_k.bias"))
        cause = "it is made, but the output does not depend on it"
        expect(reached, f"no gradient reaches {name}: {cause}")


def drops_in_training_only(module: nn.Module, *args) -> None:
    """Expect dropout to change the output in train mode, and nothing to change it in eval mode."""
    module.train()
    differ = distance(module(*args), module(*args)) > 0
    expect(differ, "two calls in train mode agree: dropout is never applied")
    module.eval()
    equal = distance(module(*args), module(*args)) == 0
    expect(equal, "two calls in eval mode differ: dropout must stop there")


def sees_no_future(
    run: Callable[[Tensor], Tensor], x: Tensor, change: Callable[[Tensor], Tensor], where: str
) -> None:
    """Expect that changing position t of x moves no output before t, for every t."""
    before = run(x)
    for t in range(1, x.shape[1]):
        other = x.clone()
        other[:, t] = change(other[:, t])
        moved = distance(run(other)[:, :t], before[:, :t])
        seen = f"changing position {t} of the target {where} moved an earlier output by {moved:.2g}"
        cause = "The future leaks in: the causal mask is missing, inverted or not handed on"
        expect(moved < 1e-5, f"{seen}. {cause}")
