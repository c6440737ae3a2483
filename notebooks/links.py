"""Write what each chapter has for Colab and Binder: `make links`, from a clone.

Colab opens a notebook alone, so its first code cell installs the package; elsewhere the cell does
nothing, and in the module it is a comment. The repository's address stands in `pyproject.toml`,
under `[project.urls]`; with another one, `make links ADDRESS=…` writes it everywhere.
"""

import argparse
import os
import re
from pathlib import Path

import jupytext
import nbformat
from jupytext.config import load_jupytext_configuration_file
from nbformat import NotebookNode

__all__ = ["TAG", "UNPUBLISHED", "install_cell", "links", "repository", "with_links"]

ROOT = Path(__file__).resolve().parent.parent
UNPUBLISHED = "https://github.com/the_owner/transformer"
"""Stands for the address until there is one. No account of GitHub can have an underscore."""
BRANCH = "main"
TAG = "colab"
FIRST = "**What you need**"
LINKS = re.compile(r"^Nothing installed\? Open this chapter in .*$", re.MULTILINE)


def repository() -> str:
    """Return the address of the repository."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^Source = "(https://github\.com/[\w.-]+/[\w.-]+)"', text, re.MULTILINE)
    if found is None:
        raise ValueError('pyproject.toml has no Source = "https://github.com/…/…"')
    return found[1]


def links(name: str, address: str) -> str:
    """Return the line of Markdown that opens a chapter, such as 03_attention, elsewhere."""
    where = address.removeprefix("https://github.com/")
    file = f"notebooks/{name}.ipynb"
    colab = f"https://colab.research.google.com/github/{where}/blob/{BRANCH}/{file}"
    binder = f"https://mybinder.org/v2/gh/{where}/{BRANCH}?urlpath=lab/tree/{file}"
    return f"Nothing installed? Open this chapter in [Colab]({colab}) or [Binder]({binder})."


def install_cell(address: str) -> str:
    """Return the source of the cell that installs the package where it is missing."""
    return (
        "# For Colab. Where the package is installed, this does nothing.\n"
        "import importlib.util\n\n"
        'if importlib.util.find_spec("transformer") is None:\n'
        f'    %pip install -q "transformer-course @ git+{address}"'
    )


def with_links(notebook: NotebookNode, name: str, address: str) -> NotebookNode:
    """Put the links and the cell into a chapter, or renew them; outputs stay as they are."""
    needs = next(cell for cell in notebook.cells if cell.source.startswith(FIRST))
    line = links(name, address)
    if LINKS.search(needs.source):
        needs.source = LINKS.sub(lambda _: line, needs.source)
    else:
        before, _, after = needs.source.partition("\n\n")
        needs.source = "\n\n".join(filter(None, [before, line, after]))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = next((cell for cell in code if TAG in cell.metadata.get("tags", [])), None)
    if found is None:
        for cell in code:
            if cell.execution_count is not None:  # an empty cell has no number
                count(cell, cell.execution_count + 1)
        found = nbformat.v4.new_code_cell(metadata={"tags": ["active-ipynb", TAG]}, id=TAG)
        count(found, 1)
        notebook.cells.insert(notebook.cells.index(code[0]), found)
    found.source = install_cell(address)
    return notebook


def count(cell: NotebookNode, number: int) -> None:
    """Number a cell, and its result, as if it had been run in this place."""
    cell.execution_count = number
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output.execution_count = number


def write(path: Path, address: str) -> None:
    """Write both forms of a chapter; the module comes last, as Jupytext wants it."""
    notebook = with_links(nbformat.read(path, as_version=4), path.stem, address)
    text = nbformat.writes(notebook)
    path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8", newline="\n")
    module = ROOT / "transformer" / f"{path.stem[3:]}.py"
    if module.exists():
        config = load_jupytext_configuration_file(str(ROOT / "pyproject.toml"))
        module.write_text(
            jupytext.writes(notebook, "py:percent", config=config), encoding="utf-8", newline="\n"
        )
        os.utime(module)


def move(address: str) -> None:
    """Write another address into the files that name it."""
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise SystemExit(f"ADDRESS={address} must be https://github.com/OWNER/NAME")
    old = repository()
    for name in ("pyproject.toml", "CITATION.cff"):
        file = ROOT / name
        text = file.read_text(encoding="utf-8").replace(old, address)
        file.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Write the chapters, with another address if one is given."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", metavar="URL", help="move to this address")
    options = parser.parse_args()
    if options.address:
        move(options.address.rstrip("/"))
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        write(path, repository())
    print(f"Every chapter has its links to {repository()}.")


if __name__ == "__main__":
    main()
