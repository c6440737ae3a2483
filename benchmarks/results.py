"""The file of results: rows that a later run replaces one by one, and what they say side by side."""

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.adapters import SYSTEMS
from benchmarks.work import DTYPES, SIZES, WORKS
from transformer.model import write_safely

HERE = Path(__file__).parent
KEY = ("work", "size", "dtype", "malloc", "system")
ORDER = dict(zip(KEY, (WORKS, [*SIZES], DTYPES, ("default", "tuned"), [*SYSTEMS])))
PEERS = ("torch.nn", "x-transformers", "hf-marian")  # in PyTorch, like ours: "the fastest peer" is one of these

Row = dict


def default_path(device: str = "cpu", name: str = "results") -> Path:
    """Return where results of a device are kept."""
    return HERE / (f"{name}.json" if device == "cpu" else f"{name}-{device}.json")


def read(path: Path) -> dict:
    """Return the results so far."""
    if not path.is_file():
        return {"machine": {}, "versions": {}, "rows": []}
    return json.loads(path.read_text(encoding="utf-8"))


def update(path: Path, rows: Iterable[Row] = (), gone: Iterable[tuple] = (), **parts) -> None:
    """Put rows and parts into the file, in the place of those they repeat, and take out the rows named `gone`."""
    results = read(path)
    table = {key(row): row for row in results["rows"] if key(row) not in set(gone)}
    table |= {key(row): row for row in rows}
    results |= parts | {"rows": sorted(table.values(), key=place)}
    lines = json.dumps(results | {"rows": []}, indent=1).rsplit("[]", 1)
    rows_text = ",\n".join(f"  {json.dumps(row)}" for row in results["rows"])
    write_safely(path, f"{lines[0]}[\n{rows_text}\n ]{lines[1]}\n".encode())


def key(row: Row) -> tuple:
    """Return what makes a row the same measurement as another."""
    return tuple(row[name] for name in KEY)


def place(row: Row) -> list[int]:
    """Return where a row belongs in the table."""
    return [ORDER[name].index(row[name]) for name in KEY]


def pick(rows: Iterable[Row], **wanted) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def groups(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each piece of work, in one malloc setting: tuned, when that was measured."""
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
    """Return ours divided by another system, and what speaks against the comparison; None when one is missing."""
    systems = by_system(rows)
    ours, other = systems.get("ours"), fastest(rows) if against == "fastest peer" else systems.get(against)
    if not ours or not other or not ours[what] or not other[what]:
        return None
    apart = "not from one run" if ours["run"] != other["run"] else ""
    disturbed = "" if ours["clean"] and other["clean"] else "disturbed"
    return ours[what] / other[what], ", ".join(filter(None, [apart, disturbed]))


@dataclass(frozen=True)
class Aim:
    """What a ratio of ours to another system should be."""

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
MOST_MEMORY, LEAST_NEWCOMER, MOST_IMPORT = 0.6, 2.5, 0.15


def compared(results: dict) -> Iterator[tuple[str, float, str, bool, str]]:
    """Yield what is compared, the value, the aim in words, whether it is met, and what speaks against it."""
    rows = results["rows"]
    for aim in AIMS:
        for size in aim.sizes:
            for dtype in aim.dtypes:
                found = pick(rows, work=aim.work, size=size, dtype=dtype)
                name = f"{aim.work} {size} {dtype}, speed ÷ {aim.against}"
                if value := ratio(pick(found, malloc="tuned") or found, aim.against):
                    yield name, value[0], f"≥ {aim.least}", value[0] >= aim.least, value[1]
    for dtype in DTYPES:
        found = pick(rows, work="train", size="tiny", dtype=dtype, malloc="default")
        if value := ratio(found, "torch.nn", "peak_mb"):
            yield (
                f"train tiny {dtype}, peak memory ÷ torch.nn",
                value[0],
                f"≤ {MOST_MEMORY}",
                value[0] <= MOST_MEMORY,
                "",
            )
    if newcomer := results.get("newcomer"):
        value, note = newcomer["ratio"], "" if all(newcomer["clean"].values()) else "disturbed"
        yield "train tiny, as a newcomer, speed ÷ torch.nn", value, f"≥ {LEAST_NEWCOMER}", value >= LEAST_NEWCOMER, note
        value = newcomer["import_seconds"]
        yield "seconds to import, beyond torch", value, f"≤ {MOST_IMPORT}", value <= MOST_IMPORT, ""


def print_aims(results: dict) -> None:
    """Print every ratio that was measured beside its aim."""
    for name, value, aim, met, note in compared(results):
        print(f"{name:52} {value:7.2f}   {aim:7} {'met' if met else 'missed'}{note and f'  ({note})'}")


def print_group(title: str, rows: list[Row]) -> None:
    """Print the systems of one piece of work, fastest first."""
    print(title)
    systems, best = by_system(rows), fastest(rows)
    for row in sorted(rows, key=lambda row: -row["tokens_per_s"]):
        speed = row["tokens_per_s"]
        versus = [
            f"{speed / other['tokens_per_s']:6.2f} × {name}"
            for name, other in (("ours", systems.get("ours")), ("fastest peer", best))
            if other
        ]
        share = f"{row['share_of_limit']:4.0%} of the limit" if row["share_of_limit"] else ""
        low, high = row["spread"]
        note = "" if row["clean"] else "  DISTURBED"
        print(f"  {row['system']:17} {speed:10,.0f} tokens/s {' '.join(versus)}   {low:.2f}-{high:.2f}   {share}{note}")


def median_and_spread(seconds: list[float]) -> tuple[float, list[float]]:
    """Return the median, and the fastest and the slowest sample as shares of it."""
    middle = statistics.median(seconds)
    return middle, [round(min(seconds) / middle, 3), round(max(seconds) / middle, 3)]
