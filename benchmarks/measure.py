"""One process of the benchmark: systems that do the same work are checked, then timed in turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import checks, results
from benchmarks.adapters import Setting, System, find
from benchmarks.timing import Samples, Task, interleave
from benchmarks.work import (
    BEAM_SIZE,
    SIZES,
    STEPS,
    Data,
    Size,
    decoding_multiply_adds,
    target_tokens,
    training_multiply_adds,
)
from transformer import Transformer
from transformer.cpu.process import tune_allocator


@dataclass(frozen=True)
class Plan:
    """What to measure, and where to write it."""

    device: str
    sizes: Sequence[str]
    dtypes: Sequence[str]
    works: Sequence[str]
    systems: Sequence[str]
    rounds: int | None
    quick: bool
    out: Path
    data: Path

    def size(self, name: str) -> Size:
        """Return a size; with `quick` it has less work to do."""
        size = SIZES[name]
        if self.quick:
            size = replace(size, batches=1, greedy=64, beam5=8, one=3)
        return replace(size, rounds=self.rounds or size.rounds)


@dataclass(frozen=True)
class Job:
    """One piece of work with its inputs."""

    setting: Setting
    inputs: Sequence[Any]
    tokens: int
    multiply_adds: float

    @classmethod
    def of(cls, work: str, size: Size, dtype: str, device: str, data: Data) -> "Job":
        """Prepare the inputs on the device, and count tokens and multiply-adds."""
        setting = Setting(work, size, dtype, device, data)
        if work == "train":
            batches = data.training(size.batches)
            arithmetic = training_multiply_adds(size, batches)
            return cls(
                setting, [batch.to(device) for batch in batches], target_tokens(batches), arithmetic
            )
        sources = data.sources_of(work, size)
        arithmetic = decoding_multiply_adds(size, sources, BEAM_SIZE if work == "beam5" else 1)
        return cls(
            setting, [src.to(device) for src in sources], STEPS * sum(map(len, sources)), arithmetic
        )

    def check(self, system: System) -> None:
        """Raise AssertionError if the output of the system is wrong."""
        if self.setting.work == "train":
            checks.check_training(system, self.inputs)
        else:
            checks.check_decoding(system, self.setting.work, self.inputs, self.setting.dtype)

    def run(self, system: System) -> Callable[[], Any]:
        """Return a function that makes one pass of the system over the work."""
        if self.setting.work == "train":
            return lambda: [system.train_step(batch) for batch in self.inputs]
        if self.setting.work == "beam5":
            return lambda: system.beam(self.inputs, STEPS, BEAM_SIZE)
        if self.setting.work == "one":  # each sentence waits for the one before
            return lambda: [system.greedy([src], STEPS) for src in self.inputs]
        return lambda: system.greedy(self.inputs, STEPS)


def measure_all(plan: Plan, malloc: str) -> None:
    """Measure every group of the plan in this process, and write each as soon as it is measured."""
    if malloc == "tuned" and not tune_allocator():
        print("the allocator of this system cannot be tuned: no rows with malloc tuned")
        return
    data = Data(plan.data)
    for size in map(plan.size, plan.sizes):
        for work in plan.works:
            for dtype in plan.dtypes:
                measure_group(plan, Job.of(work, size, dtype, plan.device, data), malloc)


def measure_group(plan: Plan, job: Job, malloc: str) -> None:
    """Time the systems that can do a job, in turns, and write their rows into the results."""
    setting = job.setting
    group = dict(work=setting.work, size=setting.size.name, dtype=setting.dtype, malloc=malloc)
    tried = [
        name for name in plan.systems if (adapter := available(name)) and can(adapter, setting)
    ]
    systems = {name: system for name in tried if (system := checked(name, job))}
    tasks = {
        name: Task(job.run(system), rounds(system, setting)) for name, system in systems.items()
    }
    timed = interleave(tasks, plan.device, patience=0.0 if plan.quick else 20.0)
    run = datetime.now(timezone.utc).isoformat(timespec="seconds")
    limits = results.read(plan.out)["machine"]
    rows = [
        group | row_of(job, systems[name], timed[name], limits) | {"run": run} for name in systems
    ]
    results.update(plan.out, rows, [results.key(group | {"system": name}) for name in tried])
    results.print_group(
        f"{setting.work} {setting.size.name} {setting.dtype}, malloc {malloc}", rows
    )


def can(adapter: type[System], setting: Setting) -> bool:
    """Return whether a system does such work in such a precision."""
    return setting.work in adapter.works and setting.dtype in adapter.dtypes


def rounds(system: System, setting: Setting) -> int:
    """Return how many samples of a system are wanted."""
    return 1 if setting.work in system.slow_works else setting.size.rounds


def checked(name: str, job: Job) -> System | None:
    """Build a system and return it if its output is right; otherwise print why it is left out."""
    try:
        system = find(name)(job.setting)
        ours = sum(p.numel() for p in Transformer(job.setting.size.config()).parameters())
        checks.check_parameters(name, system.parameters(), ours)
        job.check(system)
    except Exception as error:
        print(f"LEFT OUT: {name}, {type(error).__name__}: {str(error)[:300]}", flush=True)
        return None
    return system


def row_of(job: Job, system: System, samples: Samples, limits: dict) -> dict:
    """Return the row of results of a system."""
    seconds, spread = results.median_and_spread(samples.kept)
    limit = limits.get(f"matmul_{job.setting.dtype}_gflops") if "int8" not in system.name else None
    return {
        "system": system.name,
        "tokens_per_s": round(job.tokens / seconds, 1),
        "peak_mb": None,
        "seconds": [round(s, 4) for s in samples.kept],
        "spread": spread,
        "clean": len(samples.clean),
        "share_of_limit": round(2e-9 * job.multiply_adds / seconds / limit, 4) if limit else None,
        "parameters": system.parameters(),
    }


MISSING: set[str] = set()


def available(name: str) -> type[System] | None:
    """Return the adapter of a system, or print once that it is not installed."""
    try:
        return find(name)
    except ImportError as error:
        if name not in MISSING:
            print(f"{name} is left out: {error}")
        MISSING.add(name)
        return None
