"""Time and peak memory as the work grows: training steps by length, batch, width and depth, and attention alone.

A step is forward, backward and Adam, in float32, with a vocabulary so small that it does not hide the rest.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks import machine
from benchmarks.adapters import SYSTEMS, Setting, find
from benchmarks.memory import peak_mb
from benchmarks.results import default_path
from benchmarks.timing import Task, in_fresh_process, interleave
from benchmarks.work import Data, Size, training_multiply_adds
from transformer.attention import attention_weights
from transformer.data import BOS, EOS, UNK, Batch
from transformer.fast import causal_attention
from transformer.model import write_safely

VOCABULARY = 1_000
ROUNDS = 3
HEADS, D_HEAD = 8, 64  # of attention alone: the paper's base model
FORMS = {
    "plain": lambda q, k, v: attention_weights(q, k) @ v,
    "fused": F.scaled_dot_product_attention,
    "causal": lambda q, k, v: causal_attention(q, k, v, torch.ones_like(k[:, :1, None, :, 0], dtype=torch.bool)),
}


@dataclass(frozen=True)
class Point:
    """One training step: the sizes of the model and of its batch."""

    length: int = 32
    batch: int = 16
    width: int = 128
    depth: int = 4

    def size(self) -> Size:
        """Return the model: heads of 32 features, feed-forward layers twice as wide as the model."""
        sizes = (self.width, self.depth, self.width // 32, 2 * self.width)
        return Size("curve", *sizes, vocabulary=VOCABULARY, max_len=self.length + 1)

    def make(self, device: str) -> Batch:
        """Return a batch without padding."""
        torch.manual_seed(0)
        src, tgt = torch.randint(UNK, VOCABULARY, (2, self.batch, self.length + 1))
        src[:, -1], tgt[:, 0], tgt[:, -1] = EOS, BOS, EOS
        return Batch(src[:, 1:], tgt).to(device)


AXES: dict[str, list[Point]] = {
    "length": [Point(length=2**i, batch=1) for i in range(5, 13)],
    "batch": [Point(batch=2**i) for i in range(8)],
    "width": [Point(width=2**i) for i in range(6, 11)],
    "depth": [Point(depth=2**i) for i in range(5)],
}


def training_step(axis: str, name: str, x: int, device: str) -> tuple[Callable[[], object], float]:
    """Return a training step of a system, and its multiply-adds."""
    point = next(point for point in AXES[axis] if getattr(point, axis) == x)
    size, batch = point.size(), point.make(device)
    system = find(name)(Setting("train", size, "fp32", device, Data(Path())))
    return lambda: system.train_step(batch), training_multiply_adds(size, [batch])


def attention_alone(_: str, form: str, length: int, device: str) -> tuple[Callable[[], object], float]:
    """Return attention forward and backward, and its multiply-adds: n² d for scores and n² d for values, thrice."""
    q, k, v = (torch.randn(1, HEADS, length, D_HEAD, device=device, requires_grad=True) for _ in range(3))

    def run() -> None:
        FORMS[form](q, k, v).sum().backward()
        q.grad = k.grad = v.grad = None

    return run, 6.0 * length**2 * HEADS * D_HEAD


WORK = {"attention": attention_alone}


def measure_axis(axis: str, systems: Sequence[str], device: str, count: int) -> list[dict]:
    """Measure all systems along an axis: the peak of each alone, then their times in turns."""
    rows = []
    for x in places(axis)[:count]:
        tasks, found = {}, {}
        for name in FORMS if axis == "attention" else systems:
            run, work = WORK.get(axis, training_step)(axis, name, x, device)
            run()
            found[name] = {"axis": axis, "system": name, "x": x, "multiply_adds": work}
            found[name]["peak_mb"] = round(peak_mb(run, device), 1)
            tasks[name] = Task(run, ROUNDS)
        for name, samples in interleave(tasks, device, patience=5.0).items():
            found[name] |= {"seconds": statistics.median(samples.kept), "clean": len(samples.clean)}
            rows.append(found[name])
            seconds, peak = found[name]["seconds"], found[name]["peak_mb"]
            print(f"{axis:9} {x:5} {name:15} {1000 * seconds:10.2f} ms {peak:9.1f} MB", flush=True)
    return rows


def places(axis: str) -> list[int]:
    """Return what an axis goes through."""
    return [getattr(point, axis) for point in AXES[axis]] if axis in AXES else places("length")


def main() -> int:
    """Measure the curves that the options name and write them."""
    axes = [*AXES, "attention"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (default: cpu)")
    parser.add_argument("--axes", nargs="+", choices=axes, default=axes, metavar="AXIS", help="(default: all)")
    parser.add_argument("--systems", nargs="+", choices=[*SYSTEMS], default=["ours", "torch.nn"], metavar="SYSTEM")
    parser.add_argument("--points", type=int, default=100, help="how many of each curve, from its beginning")
    parser.add_argument("--out", type=Path, help="file of results (default: beside this program, by device)")
    options = parser.parse_args()
    options.out = options.out or default_path(options.device, "curves")
    results = json.loads(options.out.read_text()) if options.out.is_file() else {"points": []}
    results |= {"machine": in_fresh_process(machine.limits, options.device), "versions": machine.versions()}
    for axis in options.axes:
        rows = in_fresh_process(measure_axis, axis, options.systems, options.device, options.points)
        new = {(row["axis"], row["system"]) for row in rows}
        results["points"] = [old for old in results["points"] if (old["axis"], old["system"]) not in new] + rows
        write_safely(options.out, f"{json.dumps(results, indent=1)}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
