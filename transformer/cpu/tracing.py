"""Functions of tensors as TorchScript traces, which run their operators without Python.

A step of decoding is some hundred and fifty small operators. For one row, Python's part of each
call takes longer than the arithmetic, and it makes threads wait for each other. TorchScript is
deprecated, and what is to replace it compiles for half a minute. So traces are made here only,
and where they cannot be made the function itself runs.
"""

import functools
import sys
import threading
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from transformer.cpu.operators import FREEZE, TRACE, private

MAX_TRACES = 32
_lock = threading.Lock()


def script_if_tracing(function: Callable) -> Callable:
    """Have a function compiled when it is called in a trace, where TorchScript is there."""
    return getattr(getattr(torch, "jit", None), "script_if_tracing", lambda f: f)(function)


@functools.cache
def can_trace() -> bool:
    """Return whether this Python and this PyTorch make traces that compute the right numbers."""
    if sys.version_info >= (3, 14):
        return False
    try:
        traced = make_trace(lambda x: x * 2 + 1, (torch.arange(3.0),))
        frozen = make_trace(nn.Hardtanh(-1.0, 2.0), (torch.arange(3.0),))
        found = traced(torch.arange(4.0)).tolist(), frozen(torch.arange(4.0)).tolist()
        return found == ([1.0, 3.0, 5.0, 7.0], [0.0, 1.0, 2.0, 2.0])
    except Exception:  # whatever goes wrong, functions run as they are
        return False


def make_trace(function: Callable, inputs: tuple) -> Callable:
    """Return a trace; of a module, one that contains its weights and looks nothing up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = private(TRACE)(function, inputs, check_trace=False)
        return private(FREEZE)(traced.eval()) if isinstance(function, nn.Module) else traced


def trace(function: Callable, inputs: tuple) -> Callable:
    """Return the function as a trace, or the function itself where there are no traces."""
    if inputs[0].device.type != "cpu" or not can_trace():
        return function
    try:
        return make_trace(function, inputs)
    except Exception:  # as above
        return function


class TraceCache:
    """Run functions of tensors, as traces once there have been `warmup_calls` calls.

    A trace takes a tenth of a second to make: too long for a single sentence. At most 32 traces
    are kept. A copy of the cache, deep or pickled, begins without traces.
    """

    def __init__(self, warmup_calls: int = 40):
        self.warmup_calls = warmup_calls
        self.calls = 0
        self.traces: dict[Hashable, Callable] = {}

    def run(self, key: Hashable, function: Callable, *inputs: Tensor) -> Any:
        """Call `function`, whose sequence of operators must be the same for all inputs of a key."""
        if inputs[0].device.type != "cpu":
            return function(*inputs)
        traced = self.traces.get(key)
        if traced is not None:
            return traced(*inputs)
        self.calls += 1
        if self.calls <= self.warmup_calls:
            return function(*inputs)
        with _lock:  # of several workers, one makes the trace
            if key not in self.traces and len(self.traces) < MAX_TRACES:
                self.traces[key] = trace(function, inputs)
        return self.traces.get(key, function)(*inputs)

    def __getstate__(self) -> dict:
        return {"warmup_calls": self.warmup_calls, "calls": 0, "traces": {}}
