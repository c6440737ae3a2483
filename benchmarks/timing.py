"""Clocks for a machine that others may use: systems take turns, and what others disturbed is put aside."""

import gc
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import torch

MOST_OTHERS = 0.06  # of all cores, that other processes may use during a sample
SHORTEST = 0.5  # seconds of a sample: the kernel counts in hundredths


@dataclass
class Samples:
    """Seconds of one pass over the work, and the share of the machine that others used meanwhile, sample by sample."""

    seconds: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    @property
    def clean(self) -> list[float]:
        """Return the samples that nobody disturbed."""
        return [s for s, other in zip(self.seconds, self.others) if other <= MOST_OTHERS]

    @property
    def kept(self) -> list[float]:
        """Return the clean samples; when there is none, the one that was disturbed least."""
        return self.clean or [min(zip(self.others, self.seconds))[1]]


@dataclass(frozen=True)
class Task:
    """Something to time: a pass over the work, and how many samples of it are wanted."""

    run: Callable[[], Any]
    rounds: int


def interleave(tasks: Mapping[str, Task], device: str = "cpu", patience: float = 20.0) -> dict[str, Samples]:
    """Time A, B, C, A, B, C, … until each task has its clean samples, or more than `patience` seconds were disturbed.

    All begin with the number of threads that PyTorch has now, whatever the one before has set. Tasks that are shorter
    than a sample are repeated. Each is run once beforehand, when all are there: building one may take the memory in
    which another was warm.
    """
    threads, samples = torch.get_num_threads(), {name: Samples() for name in tasks}
    repeats: dict[str, int] = {}
    for task in tasks.values():
        measure(task.run, device, threads)

    def sample(name: str) -> tuple[float, float]:
        seconds, others = measure(tasks[name].run, device, threads, repeats.get(name, 1))
        if name not in repeats:
            repeats[name] = max(1, round(SHORTEST / seconds))
            return (seconds, others) if repeats[name] == 1 else sample(name)
        return seconds, others

    disturbed = 0.0
    while disturbed <= patience:
        missing = [name for name, task in tasks.items() if len(samples[name].clean) < task.rounds]
        if not missing:
            break
        for name in missing:
            seconds, others = sample(name)
            samples[name].seconds.append(seconds)
            samples[name].others.append(others)
            disturbed += seconds * repeats[name] * (others > MOST_OTHERS)
    return samples


def measure(run: Callable[[], Any], device: str, threads: int, repeats: int = 1) -> tuple[float, float]:
    """Return the seconds of one run and the share of the machine that other processes used meanwhile."""
    torch.set_num_threads(threads)
    gc.collect()
    synchronize(device)
    busy, own, start = busy_seconds(), time.process_time(), time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize(device)
    seconds = time.perf_counter() - start
    others = busy_seconds() - busy - (time.process_time() - own)
    watched = device == "cpu" and busy > 0
    return seconds / repeats, max(0.0, others / (seconds * os.cpu_count())) if watched else 0.0


def busy_seconds() -> float:
    """Return for how long the cores of this machine have worked for anybody, in seconds; 0 where nobody counts it."""
    if sys.platform != "linux":
        return 0.0
    with open("/proc/stat") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was told."""
    if device != "cpu":
        torch.accelerator.synchronize()


def fastest_of(run: Callable[[], Any], times: int = 5, device: str = "cpu") -> float:
    """Return the seconds of the fastest run, after one to warm up: what is possible."""
    threads = torch.get_num_threads()
    return min([measure(run, device, threads)[0] for _ in range(times + 1)][1:])


def in_fresh_process(function: Callable, *arguments: Any) -> Any:
    """Return what a function returns in a process of its own, which has imported and allocated nothing yet."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
