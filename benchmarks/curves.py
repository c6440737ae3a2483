"""Time and memory of a training step by length, batch, width and depth, and of attention alone.

A step is forward, backward and Adam, in float32, with a vocabulary too small to hide the rest.
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
from transformer.decoder import causal_mask
from transformer.fast_training import causal_attention
from transformer.files import atomic_write

VOCABULARY = 1_000
ROUNDS = 3
HEADS = 8  # of attention alone, as D_HEAD: those of the paper's base model
D_HEAD = 64
FORMS = {
    "plain": lambda q, k, v, causal: attention_weights(q, k) @ v,
    "fused": lambda q, k, v, causal: F.scaled_dot_product_attention(q, k, v),
    "causal": causal_attention,
}


@dataclass(frozen=True)
class Point:
    """One training step: the sizes of the model and of its batch."""

    length: int = 32
    batch: int = 16
    width: int = 128
    depth: int = 4

    def size(self) -> Size:
        """Return the size of the model: 32 features a head, feed-forward layers twice as wide."""
        sizes = (self.width, self.depth, self.width // 32, 2 * self.width)
        return Size("curve", *sizes, vocabulary=VOCABULARY, max_len=self.length + 1)

    def make(self, device: str) -> Batch:
        """Return a batch without padding."""
        torch.manual_seed(0)
        src, tgt = torch.randint(UNK, VOCABULARY, (2, self.batch, self.length + 1))
        src[:, -1] = EOS
        tgt[:, 0] = BOS
        tgt[:, -1] = EOS
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
    size = point.size()
    batch = point.make(device)
    system = find(name)(Setting("train", size, "fp32", device, Data(Path())))
    return lambda: system.train_step(batch), training_multiply_adds(size, [batch])


def attention_alone(
    _: str, form: str, length: int, device: str
) -> tuple[Callable[[], object], float]:
    """Return attention forward and backward, and its multiply-adds.

    They are n² d for the scores and n² d for the values, forward, and twice as many backward. The
    causal mask is an input, as the queries are.
    """
    shape = (1, HEADS, length, D_HEAD)
    q, k, v = (torch.randn(shape, device=device, requires_grad=True) for _ in range(3))
    causal = causal_mask(length, q.device)[None, None]

    def run() -> None:
        FORMS[form](q, k, v, causal).sum().backward()
        q.grad = k.grad = v.grad = None

    return run, 6.0 * length**2 * HEADS * D_HEAD


WORK = {"attention": attention_alone}


def measure_axis(axis: str, systems: Sequence[str], device: str, count: int) -> list[dict]:
    """Measure all systems along an axis: peak memory one by one, then time in turns."""
    rows = []
    for x in sizes_along(axis)[:count]:
        tasks = {}
        found = {}
        for name in FORMS if axis == "attention" else systems:
            run, work = WORK.get(axis, training_step)(axis, name, x, device)
            run()
            found[name] = {"axis": axis, "system": name, "x": x, "multiply_adds": work}
            found[name]["peak_mb"] = round(peak_mb(run, device), 1)
            tasks[name] = Task(run, ROUNDS)
        for name, samples in interleave(tasks, device, patience=5.0).items():
            seconds = statistics.median(samples.kept)
            found[name] |= {"seconds": seconds, "clean": len(samples.clean)}
            rows.append(found[name])
            measured = f"{1000 * seconds:10.2f} ms {found[name]['peak_mb']:9.1f} MB"
            print(f"{axis:9} {x:5} {name:15} {measured}", flush=True)
    return rows


def sizes_along(axis: str) -> list[int]:
    """Return the values of an axis; attention alone is measured at the same lengths as a step."""
    varied = axis if axis in AXES else "length"
    return [getattr(point, varied) for point in AXES[varied]]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    axes = [*AXES, "attention"]
    command = argparse.ArgumentParser(
        prog="python -m benchmarks.curves", description=__doc__.splitlines()[0]
    )
    command.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (default: cpu)"
    )
    command.add_argument(
        "--axes", nargs="+", choices=axes, default=axes, metavar="AXIS", help="(default: all)"
    )
    command.add_argument(
        "--systems", nargs="+", choices=[*SYSTEMS], default=["ours", "torch.nn"], metavar="SYSTEM"
    )
    command.add_argument(
        "--points", type=int, default=100, help="how many of each curve, from its beginning"
    )
    command.add_argument(
        "--out", type=Path, help="file of results (default: beside this program, by device)"
    )
    return command


def main() -> int:
    """Measure the curves that the options name, and write them."""
    options = parser().parse_args()
    out = options.out or default_path(options.device, "curves")
    results = json.loads(out.read_text()) if out.is_file() else {"points": []}
    results["machine"] = in_fresh_process(machine.limits, options.device)
    results["versions"] = machine.versions()
    for axis in options.axes:
        rows = in_fresh_process(measure_axis, axis, options.systems, options.device, options.points)
        new = {(row["axis"], row["system"]) for row in rows}
        old = [row for row in results["points"] if (row["axis"], row["system"]) not in new]
        results["points"] = old + rows
        atomic_write(out, f"{json.dumps(results, indent=1)}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
