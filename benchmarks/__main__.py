"""The command line: `python -m benchmarks`."""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import machine, memory, results
from benchmarks.adapters import SYSTEMS
from benchmarks.measure import Plan, available, measure_all
from benchmarks.timing import in_fresh_process
from benchmarks.work import DTYPES, SIZES, WORKS, prepare

MALLOCS = ("default", "tuned")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    command = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Time this library beside its peers."
    )
    command.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (default: cpu)"
    )
    parts = {"sizes": SIZES, "dtypes": DTYPES, "work": WORKS, "systems": SYSTEMS}
    for name, choices in parts.items():
        command.add_argument(
            f"--{name}",
            nargs="+",
            choices=list(choices),
            default=list(choices),
            metavar=name.upper(),
            help=f"of {' '.join(choices)} (default: all)",
        )
    command.add_argument(
        "--malloc",
        nargs="+",
        choices=MALLOCS,
        help="of default tuned (default: both, on cuda default)",
    )
    command.add_argument(
        "--rounds",
        type=int,
        help="samples of each system (default: 5; 3 for base, and with malloc default)",
    )
    command.add_argument(
        "--out", type=Path, help="file of results (default: beside this program, by device)"
    )
    command.add_argument(
        "--folder", help="folder with raw/ of Multi30k, instead of a download ($MULTI30K)"
    )
    command.add_argument(
        "--quick", action="store_true", help="one short sample of everything, into a temporary file"
    )
    return command


def plan_of(options: argparse.Namespace, folder: Path) -> Plan:
    """Return what the options ask for; `folder` holds what is removed after the run."""
    out = folder / "results.json" if options.quick else results.default_path(options.device)
    return Plan(
        device=options.device,
        sizes=options.sizes,
        dtypes=options.dtypes,
        works=options.work,
        systems=options.systems,
        rounds=1 if options.quick else options.rounds,
        quick=options.quick,
        out=options.out or out,
        data=folder,
    )


def main() -> int:
    """Measure what the options name, print it beside the aims, and return the exit status.

    Without a corpus it prints one sentence and returns 1.
    """
    options = parser().parse_args()
    mallocs = options.malloc or (MALLOCS if options.device == "cpu" else MALLOCS[:1])
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(options, Path(folder))
        try:
            prepare(plan.data, options.folder)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        limits = in_fresh_process(machine.limits, plan.device, plan.quick)
        results.update(plan.out, machine=limits, versions=machine.versions())
        print(", ".join(f"{name} {value}" for name, value in limits.items()), flush=True)
        for malloc in mallocs:
            # Only rows with the tuned allocator are compared, so three of the others are enough.
            few = malloc == "default" and "tuned" in mallocs
            rounds = plan.rounds or (3 if few else None)
            in_fresh_process(measure_all, replace(plan, rounds=rounds), malloc)
        if "train" in plan.works and "default" in mallocs:
            measure_memory(plan)
        results.print_aims(results.read(plan.out))
    return 0


def measure_memory(plan: Plan) -> None:
    """Add the peak memory of training steps to the rows measured with the default allocator."""
    for row in results.pick(results.read(plan.out)["rows"], work="train", malloc="default"):
        system, size, dtype = (row[name] for name in ("system", "size", "dtype"))
        wanted = system in plan.systems and size in plan.sizes and dtype in plan.dtypes
        if wanted and available(system):
            peak = memory.training_peak_mb(system, size, dtype, plan.device, plan.data)
            results.update(plan.out, [row | {"peak_mb": round(peak, 1)}])
            text = f"train {size} {dtype} {system}: {peak:,.0f} MB beyond the weights"
            print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
