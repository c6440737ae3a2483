"""The pages of the book in one folder, laid out as in the repository, so that their links hold."""

import ast
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from book.definitions import ROOT
from book.glossary import glossary
from book.reference import pages as reference_pages

PAGES = ("INSTRUCTORS.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
"""Pages of the repository that the book shows as they are."""
FILES = ("*.md", "paper/*.md", "CITATION.cff", "LICENSE*", "figures/*.svg", "benchmarks/*.svg")
"""What pages show, or link to and a reader can download."""
EXPLORED = "12_inference"
"""The chapter that stores a page of the explorer."""


def collect(folder: Path) -> None:
    """Bring the folder of pages up to date; a file that has not changed keeps its time."""
    wanted = dict(texts())
    copies = {path.relative_to(ROOT).as_posix(): path for path in files()}
    for old in [path for path in folder.rglob("*") if path.is_file()]:
        if old.relative_to(folder).as_posix() not in wanted.keys() | copies.keys():
            old.unlink()
    for name, text in wanted.items():
        put(folder / name, text.encode())
    for name, path in copies.items():
        put(folder / name, path.read_bytes())


def put(path: Path, content: bytes) -> None:
    """Write a file unless it has this content."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def files() -> Iterator[Path]:
    """Yield the files that are copied."""
    for pattern in (*PAGES, *FILES):
        yield from sorted(ROOT.glob(pattern))


def texts() -> Iterator[tuple[str, str]]:
    """Yield the pages that are made, by name."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        yield f"notebooks/{path.name}", nbformat.writes(chapter(path))
    for path in sorted((ROOT / "book" / "pages").glob("*.md")):
        yield path.name, with_sections(path.read_text(encoding="utf-8"))
    for name, text in reference_pages().items():
        yield f"{name}.md", text
    yield "glossary.md", glossary(ROOT / "notebooks" / "00_introduction.ipynb")
    yield "cli.md", command_line()


def with_sections(page: str) -> str:
    """Return a page with sections of the README in place of `<!-- README: first … next -->`.

    The sections are those from the heading `first` up to the heading `next`, which is not included.
    Raises ValueError for a heading that the README does not have.
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    def section(found: re.Match[str]) -> str:
        first, after = (f"\n## {title.strip()}\n" for title in found[1].split("…"))
        for heading in (first, after):
            if heading not in readme:
                raise ValueError(f"the README has no heading {heading.strip()}")
        return first.strip() + "\n" + readme.partition(first)[2].partition(after)[0].rstrip()

    return re.sub(r"<!-- README: (.+?) -->", section, page)


# --- chapters -------------------------------------------------------------------------------------


def chapter(path: Path) -> NotebookNode:
    """Return a notebook as the book shows it.

    The cell that installs the package on Colab is left out, and each plot gets a text for readers
    who cannot see it.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "colab" not in tags(cell)]
    for cell in notebook.cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            cell.metadata["mystnb"] = {"image": {"alt": alternative(cell.source)}}
    return notebook


def tags(cell: NotebookNode) -> list[str]:
    """Return a cell's tags."""
    return cell.metadata.get("tags", [])


def alternative(source: str) -> str:
    """Return what stands in for a plot: its title, and where its code is."""
    titles = [text for text in strings(source, "plot_") if text[:1].isupper() and len(text) > 3]
    return f"Plot: {titles[-1]}" if titles else "Plot, drawn by the code above"


def strings(source: str, prefix: str) -> list[str]:
    """Return the texts among the arguments of calls of functions with a prefix."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [call for call in calls if ast.unparse(call.func).startswith(prefix)]
    constants = [
        node
        for call in named
        for argument in [*call.args, *(k.value for k in call.keywords if k.arg == "title")]
        for node in ast.walk(argument)
        if isinstance(node, ast.Constant)
    ]
    return [node.value for node in constants if isinstance(node.value, str)]


def explorer_page() -> str:
    """Return the page that the chapter on inference stores; ValueError if it has none."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{EXPLORED}.ipynb", as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found = re.search(r'srcdoc="([^"]*)"', output.get("data", {}).get("text/html", ""))
            if found:
                return unescape(found[1])
    raise ValueError(f"{EXPLORED}.ipynb stores no page of the explorer")


# --- the command line -----------------------------------------------------------------------------


def command_line() -> str:
    """Return a page with the help of each command."""
    import argparse
    import os

    from transformer.cli import parser

    os.environ["COLUMNS"] = "96"
    made = parser()
    actions = [a for a in made._actions if isinstance(a, argparse._SubParsersAction)]
    commands = {name: sub for action in actions for name, sub in action.choices.items()}
    lines = ["# The command line", "", "`transformer-course` is short for `python -m transformer`."]
    for name, sub in [("", made), *commands.items()]:
        title = f"python -m transformer {name}".strip()
        lines += ["", f"## `{title}`", "", "```text", sub.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"
