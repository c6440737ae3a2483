"""Peak memory of a piece of work, beyond what the process or the GPU held before."""

import ctypes
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.adapters import Setting, find
from benchmarks.timing import in_fresh_process
from benchmarks.work import SIZES, Data


def peak_mb(run: Callable[[], Any], device: str = "cpu") -> float:
    """Run something and return by how many megabytes (2**20 bytes) memory grew at most."""
    if device != "cpu":
        torch.accelerator.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.accelerator.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    give_back_freed_memory()
    forget_peak()
    before = memory_now()
    run()
    return max(0.0, peak() - before) / 2**20


def give_back_freed_memory() -> None:
    """Let the allocator return its free memory to the system, where it can.

    Otherwise that memory would be part of what the process held before.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def forget_peak() -> None:
    """Set the peak of the process to what it holds now, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def memory_now() -> float:
    """Return the bytes that the process holds now, or its peak where the system has only that."""
    return status("VmRSS") or peak()


def peak() -> float:
    """Return the most bytes that the process has held since `forget_peak`, or ever."""
    unit = 1 if sys.platform == "darwin" else 1024
    return status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def status(name: str) -> float:
    """Return an entry of /proc/self/status in bytes, or 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(
        (1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0.0
    )


def training_peak_mb(name: str, size: str, dtype: str, device: str, folder: Path) -> float:
    """Return the peak memory of training steps beyond the weights, in a fresh process."""
    return in_fresh_process(measure_training, name, size, dtype, device, folder)


def measure_training(name: str, size: str, dtype: str, device: str, folder: Path) -> float:
    """Build a system, train on its batches, and return by how much memory grew."""
    batches = [batch.to(device) for batch in Data(folder).training(SIZES[size].batches)]
    system = find(name)(Setting("train", SIZES[size], dtype, device, Data(folder)))
    return peak_mb(
        lambda: [system.train_step(batch) for _ in range(2) for batch in batches], device
    )
