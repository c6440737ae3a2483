"""What reviewers ask, and where it is met: `make review`. The criteria are in review.toml."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10: pytest brings tomli
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).with_name("review.toml")


@dataclass(frozen=True)
class Criterion:
    """One line of a list: what it asks, the places that meet it, and what is left to a person."""

    source: str
    name: str
    asks: str
    met: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    ignored: str = ""
    person: str = ""


def criteria(path: Path = DATA) -> list[Criterion]:
    """Read the criteria; TypeError for a key that there is not."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    found = []
    for source in data.pop("sources"):
        for row in data.pop(source):
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
            found.append(Criterion(source, **values))
    if data:
        raise TypeError(f"{path.name} has no source {', '.join(data)}")
    return found


def there(place: str, root: Path = ROOT) -> bool:
    """Return whether a place is there; review.toml says which kinds there are."""
    if place.startswith("make "):
        makefile = (root / "Makefile").read_text(encoding="utf-8")
        return re.search(rf"^{re.escape(place[5:])}:", makefile, re.MULTILINE) is not None
    file, kind, what = re.fullmatch(r"(\S+)(?: (::|:|#) (.+))?", place).groups()
    path = root / file
    if kind is None or not path.exists():
        return path.exists()
    text = path.read_text(encoding="utf-8")
    if kind == ":":
        return what in text
    pattern = rf"^#+ {re.escape(what)}$" if kind == "#" else rf"^def {re.escape(what)}\("
    return re.search(pattern, text, re.MULTILINE) is not None


def faults(criterion: Criterion, root: Path = ROOT) -> list[str]:
    """List why a criterion is not met as its row says."""
    found = [f"missing: {place}" for place in criterion.met if not there(place, root)]
    found += [f"is there: {place}" for place in criterion.absent if there(place, root)]
    if criterion.ignored:
        settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        if criterion.name not in settings["tool"]["repo-review"]["ignore"]:
            found.append("repo-review is not told to leave it out")
    if not (criterion.met or criterion.absent or criterion.ignored or criterion.person):
        found.append("says nothing")
    return found


def where(criterion: Criterion, root: Path = ROOT) -> str:
    """Return the last column of a criterion's row."""
    parts = list(criterion.met)
    parts += [f"none: {place}" for place in criterion.absent]
    parts += [f"left out: {criterion.ignored}"] if criterion.ignored else []
    parts += [f"**a person**: {criterion.person}"] if criterion.person else []
    wrong = [f"**NOT MET**, {fault}" for fault in faults(criterion, root)]
    return " · ".join([*wrong, *parts])


def table() -> str:
    """Return the criteria as tables of Markdown, and what is left to a person."""
    rows = criteria()
    titles = tomllib.loads(DATA.read_text(encoding="utf-8"))["sources"]
    lines = []
    for source, title in titles.items():
        lines += [
            f"## {title}",
            "",
            "| criterion | what it asks | where it is met |",
            "|---|---|---|",
        ]
        own = [row for row in rows if row.source == source]
        lines += [f"| {row.name} | {row.asks} | {where(row)} |" for row in own] + [""]
    left = [f"- {row.name}: {row.person}" for row in rows if row.person]
    unmet = sum(bool(faults(row)) for row in rows)
    count = f"{len(rows)} criteria, {unmet} not met; {len(left)} need a person, too:"
    return "\n".join([*lines, count, "", *left])


if __name__ == "__main__":
    print(table())
    sys.exit(any(faults(row) for row in criteria()))
