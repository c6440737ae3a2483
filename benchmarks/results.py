"""The file of results: its rows, which later runs replace, and their comparison with the aims."""

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.adapters import SYSTEMS
from benchmarks.work import DTYPES, SIZES, WORKS
from transformer.files import atomic_write

HERE = Path(__file__).parent
KEY = ("work", "size", "dtype", "malloc", "system")
ORDER = dict(zip(KEY, (WORKS, [*SIZES], DTYPES, ("default", "tuned"), [*SYSTEMS])))
PEERS = (
    "torch.nn",
    "x-transformers",
    "hf-marian",
)  # in PyTorch, like ours: "the fastest peer" is one of these

Row = dict


def default_path(device: str = "cpu", name: str = "results") -> Path:
    """Return the path of the results of a device."""
    return HERE / (f"{name}.json" if device == "cpu" else f"{name}-{device}.json")


def read(path: Path) -> dict:
    """Return the results so far."""
    if not path.is_file():
        return {"machine": {}, "versions": {}, "rows": []}
    return json.loads(path.read_text(encoding="utf-8"))


def update(path: Path, rows: Iterable[Row] = (), gone: Iterable[tuple] = (), **parts) -> None:
    """Write rows and parts into the file.

    They replace rows of the same measurement; rows whose key is in `gone` are removed.
    """
    results = read(path)
    table = {key(row): row for row in results["rows"] if key(row) not in set(gone)}
    table |= {key(row): row for row in rows}
    results |= parts | {"rows": sorted(table.values(), key=rank)}
    lines = json.dumps(results | {"rows": []}, indent=1).rsplit("[]", 1)
    rows_text = ",\n".join(f"  {json.dumps(row)}" for row in results["rows"])
    atomic_write(path, f"{lines[0]}[\n{rows_text}\n ]{lines[1]}\n".encode())


def key(row: Row) -> tuple:
    """Return the fields that two rows of the same measurement share."""
    return tuple(row[name] for name in KEY)


def rank(row: Row) -> list[int]:
    """Return what sorts rows into the order of the table."""
    return [ORDER[name].index(row[name]) for name in KEY]


def pick(rows: Iterable[Row], **wanted) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def groups(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each piece of work, with one allocator: tuned if that was measured."""
    for work in WORKS:
        for size in SIZES:
            for dtype in DTYPES:
                found = pick(rows, work=work, size=size, dtype=dtype)
                yield from filter(None, [pick(found, malloc="tuned") or found])


def by_system(rows: Iterable[Row]) -> dict[str, Row]:
    """Map the name of each system to its row."""
    return {row["system"]: row for row in rows}


def fastest(rows: Iterable[Row]) -> Row | None:
    """Return the row of the fastest peer."""
    peers = [row for row in rows if row["system"] in PEERS]
    return max(peers, key=lambda row: row["tokens_per_s"], default=None)


def ratio(rows: list[Row], against: str, what: str = "tokens_per_s") -> tuple[float, str] | None:
    """Return ours divided by another system, and a note if the comparison is doubtful.

    It is None if one of the two was not measured.
    """
    systems = by_system(rows)
    ours = systems.get("ours")
    other = fastest(rows) if against == "fastest peer" else systems.get(against)
    if not ours or not other or not ours[what] or not other[what]:
        return None
    apart = "not from one run" if ours["run"] != other["run"] else ""
    disturbed = "" if ours["clean"] and other["clean"] else "disturbed"
    return ours[what] / other[what], ", ".join(filter(None, [apart, disturbed]))


@dataclass(frozen=True)
class Aim:
    """The least ratio of our speed to that of another system."""

    work: str
    sizes: tuple[str, ...]
    dtypes: tuple[str, ...]
    against: str
    least: float


AIMS = (
    Aim("train", ("tiny", "small"), ("bf16",), "fastest peer", 1.5),
    Aim("train", ("tiny", "small"), ("fp32",), "fastest peer", 1.2),
    Aim("train", ("base",), ("bf16",), "fastest peer", 1.25),
    Aim("train", ("base",), ("fp32",), "fastest peer", 1.05),
    Aim("greedy", ("tiny",), DTYPES, "hf-marian", 3.0),
    Aim("greedy", ("base",), DTYPES, "hf-marian", 2.0),
    Aim("beam5", ("tiny",), DTYPES, "hf-marian", 3.0),
    Aim("beam5", ("base",), DTYPES, "hf-marian", 2.0),
    Aim("one", ("tiny",), DTYPES, "hf-marian", 4.0),
    Aim("one", ("base",), DTYPES, "hf-marian", 1.5),
    Aim("greedy", ("tiny",), ("fp32",), "ctranslate2-fp32", 0.6),
)
MOST_MEMORY = 0.6
LEAST_NEWCOMER = 2.5
MOST_IMPORT = 0.15


Comparison = tuple[str, float, str, bool, str]
"""What is compared, the value, the aim, whether it is met, and a note if this is doubtful."""


def compared(results: dict) -> Iterator[Comparison]:
    """Yield every comparison that was measured."""
    rows = results["rows"]
    for aim in AIMS:
        for size in aim.sizes:
            for dtype in aim.dtypes:
                found = pick(rows, work=aim.work, size=size, dtype=dtype)
                name = f"{aim.work} {size} {dtype}, speed ÷ {aim.against}"
                if value := ratio(pick(found, malloc="tuned") or found, aim.against):
                    yield at_least(name, value[0], aim.least, value[1])
    for dtype in DTYPES:
        found = pick(rows, work="train", size="tiny", dtype=dtype, malloc="default")
        if value := ratio(found, "torch.nn", "peak_mb"):
            yield at_most(f"train tiny {dtype}, peak memory ÷ torch.nn", value[0], MOST_MEMORY)
    if newcomer := results.get("newcomer"):
        note = "" if all(newcomer["clean"].values()) else "disturbed"
        name = "train tiny, as a newcomer, speed ÷ torch.nn"
        yield at_least(name, newcomer["ratio"], LEAST_NEWCOMER, note)
        yield at_most("seconds to import, beyond torch", newcomer["import_seconds"], MOST_IMPORT)


def at_least(name: str, value: float, aim: float, note: str = "") -> Comparison:
    """Return a comparison whose value should be at least the aim."""
    return name, value, f"≥ {aim}", value >= aim, note


def at_most(name: str, value: float, aim: float) -> Comparison:
    """Return a comparison whose value should be at most the aim."""
    return name, value, f"≤ {aim}", value <= aim, ""


def print_aims(results: dict) -> None:
    """Print every comparison beside its aim."""
    for name, value, aim, met, note in compared(results):
        verdict = "met" if met else "missed"
        print(f"{name:52} {value:7.2f}   {aim:7} {verdict}{note and f'  ({note})'}")


def print_group(title: str, rows: list[Row]) -> None:
    """Print the systems of one piece of work, fastest first."""
    print(title)
    others = {"ours": by_system(rows).get("ours"), "fastest peer": fastest(rows)}
    for row in sorted(rows, key=lambda row: -row["tokens_per_s"]):
        speed = f"{row['tokens_per_s']:10,.0f} tokens/s"
        ratios = [
            f"{row['tokens_per_s'] / other['tokens_per_s']:6.2f} × {name}"
            for name, other in others.items()
            if other
        ]
        share = f"{row['share_of_limit']:4.0%} of the limit" if row["share_of_limit"] else ""
        low, high = row["spread"]
        note = "" if row["clean"] else "  DISTURBED"
        parts = f"{' '.join(ratios)}   {low:.2f}-{high:.2f}   {share}{note}"
        print(f"  {row['system']:17} {speed} {parts}")


def median_and_spread(seconds: list[float]) -> tuple[float, list[float]]:
    """Return the median, and the fastest and the slowest sample as shares of it."""
    middle = statistics.median(seconds)
    return middle, [round(min(seconds) / middle, 3), round(max(seconds) / middle, 3)]
