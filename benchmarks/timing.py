"""Timing on a shared machine: systems take turns, and disturbed samples are put aside."""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from typing import Any

import torch

MOST_OTHERS = 0.06  # of all cores, that other processes may use during a sample
SHORTEST = 0.5  # seconds of a sample: the kernel counts in hundredths


@dataclass
class Samples:
    """For each sample, seconds of one pass and the share of the machine that others used."""

    seconds: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    @property
    def clean(self) -> list[float]:
        """Return the samples that no other process disturbed."""
        return [s for s, other in zip(self.seconds, self.others) if other <= MOST_OTHERS]

    @property
    def kept(self) -> list[float]:
        """Return the clean samples, or the one that was disturbed least if there is none."""
        return self.clean or [min(zip(self.others, self.seconds))[1]]


@dataclass(frozen=True)
class Task:
    """A pass over the work, and how many samples of it are wanted."""

    run: Callable[[], Any]
    rounds: int


def interleave(
    tasks: Mapping[str, Task], device: str = "cpu", patience: float = 20.0
) -> dict[str, Samples]:
    """Time the tasks in turns, A, B, C, A, B, C, …, until each has its clean samples.

    It ends earlier if more than `patience` seconds were disturbed. Every task starts with the
    number of threads that PyTorch has now, whatever the one before has set. A task shorter than a
    sample is repeated. Each is run once before the clock starts, after all have been built, because
    building one may evict another from the caches.
    """
    threads = torch.get_num_threads()
    samples = {name: Samples() for name in tasks}
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


def measure(
    run: Callable[[], Any], device: str, threads: int, repeats: int = 1
) -> tuple[float, float]:
    """Return the seconds of one run and the share of the machine that other processes used."""
    torch.set_num_threads(threads)
    gc.collect()
    synchronize(device)
    busy = busy_seconds()
    own = time.process_time()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize(device)
    seconds = time.perf_counter() - start
    others = busy_seconds() - busy - (time.process_time() - own)
    watched = device == "cpu" and busy > 0
    return seconds / repeats, max(0.0, others / (seconds * os.cpu_count())) if watched else 0.0


def busy_seconds() -> float:
    """Return the seconds that the cores of this machine have worked for all processes.

    It is 0 where the system does not count them.
    """
    if sys.platform != "linux":
        return 0.0
    with open("/proc/stat") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def synchronize(device: str) -> None:
    """Wait until a GPU has finished its work."""
    if device != "cpu":
        torch.accelerator.synchronize()


def fastest_of(run: Callable[[], Any], times: int = 5, device: str = "cpu") -> float:
    """Return the seconds of the fastest run, after one to warm up."""
    threads = torch.get_num_threads()
    return min([measure(run, device, threads)[0] for _ in range(times + 1)][1:])


def in_fresh_process(function: Callable, *arguments: Any) -> Any:
    """Return what a function returns in a fresh process, which ends when this one is killed."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=end_with_parent) as pool:
        return pool.submit(function, *arguments).result()


def end_with_parent() -> None:
    """Let this process end as soon as its parent has ended, for whatever reason."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
