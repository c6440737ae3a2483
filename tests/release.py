"""Whether the repository may be released under a tag: `make release-check TAG=v0.1.0`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?"
HEADINGS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def version(root: Path = ROOT) -> str:
    """Return the package's version, which stands in one place."""
    text = (root / "transformer" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]*)"$', text, re.MULTILINE)[1]


def changelog_problems(text: str) -> list[str]:
    """List where a changelog departs from the form of Keep a Changelog."""
    found = []
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    if not sections or sections[0] != "[Unreleased]":
        found.append("the first section is not [Unreleased]")
    dated = re.compile(rf"\[{VERSION}\] - \d{{4}}-\d\d-\d\d")
    found += [f"## {name}: not [version] - date" for name in sections[1:] if not dated.match(name)]
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        found += [f"### {kind}: no kind of change" for kind in kinds if kind not in HEADINGS]
        if len(set(kinds)) < len(kinds):
            found.append(f"## {part.partition(chr(10))[0]}: a kind of change stands twice")
        entries = re.split(r"\n(?=- |### |\[)", part)
        lines = [entry.strip() for entry in entries if entry.startswith("- ")]
        found += [
            f"twice: {line[:60]}" for line in sorted({x for x in lines if lines.count(x) > 1})
        ]
    return found


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """List what stands in the way of a release under this tag."""
    number = version(root)
    found = [] if tag == f"v{number}" else [f"the tag is {tag}, the version {number}"]
    if not re.fullmatch(VERSION, number):
        found.append(f"the version {number} is not MAJOR.MINOR.PATCH")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found += changelog_problems(changelog)
    if not re.search(rf"^## \[{re.escape(number)}\] - ", changelog, re.MULTILINE):
        found.append(f"CHANGELOG.md has no section [{number}]")
    if "the_owner" in (root / "pyproject.toml").read_text(encoding="utf-8"):
        found.append("the repository has no address: make links ADDRESS=https://github.com/…")
    return found


if __name__ == "__main__":
    tag = sys.argv[1] if len(sys.argv) > 1 else f"v{version()}"
    found = problems(tag)
    print("\n".join(found) or f"{tag} can be released.")
    raise SystemExit(bool(found))
