"""Snapshots of objects and of what is global, and what differs between two of them."""

import contextlib
import dataclasses
import functools
import logging
import os
import random
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

SETTINGS = """
get_default_dtype get_default_device get_num_threads get_num_interop_threads
is_grad_enabled is_inference_mode_enabled is_anomaly_enabled is_autocast_cache_enabled
are_deterministic_algorithms_enabled is_deterministic_algorithms_warn_only_enabled
get_float32_matmul_precision
backends.cudnn.enabled backends.cudnn.benchmark backends.cudnn.deterministic
backends.mkldnn.enabled backends.mkldnn.deterministic backends.quantized.engine
backends.opt_einsum.enabled backends.opt_einsum.strategy
backends.cuda.flash_sdp_enabled backends.cuda.mem_efficient_sdp_enabled
backends.cuda.math_sdp_enabled backends.cuda.cudnn_sdp_enabled
""".split()


@dataclasses.dataclass
class Number:
    """A tensor as it was: its numbers, and which tensor it is."""

    tensor: Tensor
    copy: Tensor

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Number) or self.tensor is not other.tensor:
            return False
        a, b = self.copy, other.copy
        same_kind = a.dtype == b.dtype and a.shape == b.shape and a.device == b.device
        return same_kind and a.nan_to_num().equal(b.nan_to_num())


@dataclasses.dataclass
class Same:
    """An object that is compared by identity; it is kept, so that its id stays its own."""

    thing: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.thing is other.thing


class Snapshot(dict):
    """A flat map from paths to values that describes an object and all that it holds.

    What is held twice is described once, so cycles end. Modules and tensors count as changed, too,
    when another one has taken their place.
    """

    def __init__(self, **things: Any):
        super().__init__()
        self.seen: dict[int, Any] = {}
        for name, thing in things.items():
            self.add(name, thing)

    def add(self, path: str, thing: Any) -> None:
        """Describe a thing under a path."""
        if thing is None or isinstance(thing, str | bytes | int | float | Path | torch.dtype):
            self[path] = thing
        elif id(thing) not in self.seen:
            self.seen[id(thing)] = thing
            self.describe(path, thing)

    def describe(self, path: str, thing: Any) -> None:
        """Describe what is not a plain value."""
        if isinstance(thing, Tensor):
            self.describe_tensor(path, thing)
        elif isinstance(thing, Tokenizer):
            self[path] = (thing.to_str(), thing.encode_special_tokens)
        elif isinstance(thing, torch.Generator):
            self[path] = thing.get_state().tolist()
        elif isinstance(thing, dict):
            self.add_all(path, thing)
        elif isinstance(thing, list | tuple | set):
            self.add_all(path, dict(enumerate(thing)))
        else:
            self.describe_object(path, thing)

    def add_all(self, path: str, items: dict) -> None:
        """Describe the items of a container, and which there are, in which order."""
        plain = all(isinstance(key, str | int) for key in items)
        names = list(items) if plain else list(range(len(items)))
        self[f"{path}.keys"] = names
        for name, value in zip(names, items.values()):
            self.add(f"{path}.{name}", value)

    def describe_tensor(self, path: str, tensor: Tensor) -> None:
        """Describe a tensor's numbers, and whether and what gradient it has."""
        numbers = tensor.detach()
        self[f"{path}.data"] = Number(tensor, numbers if numbers.is_meta else numbers.clone())
        self[f"{path}.requires_grad"] = tensor.requires_grad
        if tensor.is_leaf and tensor.grad is not None:
            self[f"{path}.grad"] = Number(tensor.grad, tensor.grad.clone())

    def describe_object(self, path: str, thing: Any) -> None:
        """Describe which object it is, its class, and its attributes."""
        self[path] = Same(thing)
        self[f"{path}.class"] = Same(type(thing))
        if not hasattr(thing, "__dict__") or isinstance(thing, type) or callable_only(thing):
            return
        for name, value in vars(thing).items():
            inner = isinstance(thing, nn.Module) and name in ("_parameters", "_buffers", "_modules")
            if inner:
                self[f"{path}.{name}"] = list(value)
                for child, item in value.items():
                    self.add(f"{path}.{child}", item)
            else:
                self.add(f"{path}.{name}", value)


def callable_only(thing: object) -> bool:
    """Return whether something is a function, and no object that can also be called."""
    return callable(thing) and not isinstance(thing, nn.Module) and hasattr(thing, "__name__")


def global_state() -> dict[str, Any]:
    """Return what all code of the process shares."""
    found: dict[str, Any] = {}
    for path in SETTINGS:
        with contextlib.suppress(AttributeError):  # another release of PyTorch
            value = functools.reduce(getattr, path.split("."), torch)
            found[f"torch.{path}"] = value() if callable(value) else value
    for device in ("cpu", "cuda"):
        found[f"autocast.{device}"] = torch.is_autocast_enabled(device)
        found[f"autocast.{device}.dtype"] = torch.get_autocast_dtype(device)
    found["random.torch"] = torch.get_rng_state().tolist()
    found["random.python"] = random.getstate()
    found["random.numpy"] = str(np.random.get_state())
    found["environment"] = dict(os.environ)
    found["folder"] = os.getcwd()
    found["warnings"] = list(warnings.filters)
    found["path"] = list(sys.path)
    found["interrupt"] = signal.getsignal(signal.SIGINT)
    found["logging"] = logging.getLogger().level
    return found


def everything(**things: Any) -> dict[str, Any]:
    """Return a snapshot of some objects and of what is global."""
    shared = {f"global.{name}": value for name, value in global_state().items()}
    return dict(Snapshot(**things)) | shared


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """List the paths whose values differ, or that only one snapshot has."""
    gone = before.keys() ^ after.keys()
    both = before.keys() & after.keys()
    return sorted(gone | {path for path in both if before[path] != after[path]})
