"""One process with two threads, or two with one: steps a second, quiet and beside a busy loop.

    python -m benchmarks.processes --rounds 5

Every variant trains the tiny model on the same batches, in processes of its own; variants take
turns. A busy loop is a Python process that never rests.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from transformer import Config, Transformer
from transformer.data import Batch
from transformer.distributed import shard
from transformer.ranks import joined
from transformer.recipes import MULTI30K, fast_trainer

VARIANTS = {
    "1 process × 2 threads": (1, {"OMP_NUM_THREADS": "2"}),
    "1 process × 2 threads, spin 1000": (1, {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "1000"}),
    "1 process × 2 threads, passive": (1, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}),
    "2 processes × 1 thread": (2, {"OMP_NUM_THREADS": "1"}),
    "1 process × 1 thread": (1, {"OMP_NUM_THREADS": "1"}),
}
"""The number of processes, and the environment."""
OUT = Path(__file__).with_name("processes.json")


def batches(count: int) -> list[Batch]:
    """Return batches of about 2,048 tokens a side, as long as captions are."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(count):
        width = 10 + 2 * (i % 6)
        src, tgt = (
            torch.randint(4, 10_000, (2048 // width, width), generator=generator) for _ in range(2)
        )
        found.append(Batch(src, tgt))
    return found


def work(steps: int) -> None:
    """Train, and print the steps a second after a warm-up."""
    with joined() as ranks:
        torch.manual_seed(0)
        trainer = fast_trainer(Transformer(Config.tiny(10_000)), MULTI30K.training, "fp32")
        feed = batches(6)
        if ranks.world > 1:
            feed = [shard(batch, ranks.rank, ranks.world) for batch in feed]
        for batch in feed:
            trainer.step(batch)
        start = time.perf_counter()
        for i in range(steps):
            trainer.step(feed[i % len(feed)])
        if ranks.is_first:
            print(json.dumps(steps / (time.perf_counter() - start)))


def run(world: int, environment: dict[str, str], steps: int) -> float:
    """Return the steps a second of a variant."""
    launcher = [sys.executable]
    if world > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc-per-node", str(world)]
    command = [*launcher, "-m", "benchmarks.processes", "--work", str(steps)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    found = subprocess.run(command, env=kept | environment, capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(found.stderr)
    return json.loads(found.stdout.splitlines()[-1])


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keep processors busy meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> None:
    """Measure, print and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    found: dict[str, dict[str, list[float]]] = {name: {} for name in VARIANTS}
    for _ in range(options.rounds):
        for loops, where in ((0, "quiet"), (1, "beside a busy loop")):
            for name, (world, environment) in VARIANTS.items():
                with busy(loops):
                    speed = run(world, environment, options.steps)
                found[name].setdefault(where, []).append(round(speed, 2))
                print(f"{where:20} {name:36} {speed:6.2f} steps/s", flush=True)
    rows = {
        name: {where: {"median": median(all_), "all": all_} for where, all_ in cases.items()}
        for name, cases in found.items()
    }
    load = [round(x, 1) for x in os.getloadavg()]
    about = {"cores": os.cpu_count(), "load": load, "torch": torch.__version__, "rows": rows}
    OUT.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, cases in rows.items():
        print(f"{name:36}", *(f"{where} {row['median']:.2f}" for where, row in cases.items()))


if __name__ == "__main__":
    main()
