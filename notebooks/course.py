"""Run the chapters in order, with their progress on screen: `make course`."""

import argparse
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

FOLDER = Path(__file__).resolve().parent
SENTENCE = "I love you very much"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TRAIN_AFTER = "10"
TITLE_WIDTH = 48


class CellError(Exception):
    """A cell failed; the message says where, shows the cell, and gives the error."""


def chapters(only: list[str]) -> list[Path]:
    """List the notebooks in order, or those whose number or name starts with one of `only`."""
    paths = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    unknown = [name for name in only if not any(path.name.startswith(name) for path in paths)]
    if unknown:
        known = ", ".join(path.stem for path in paths)
        raise SystemExit(f"No chapter starts with {', '.join(unknown)}; there are {known}.")
    if not paths:
        raise SystemExit(f"No chapters in {FOLDER}.")
    return [path for path in paths if not only or path.name.startswith(tuple(only))]


def title(notebook: NotebookNode) -> str:
    """Return the first heading, without its number."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(?:\d+ *[·.:-] *)?(.+)$", text, re.MULTILINE)
    return heading[1].strip() if heading else "(no title)"


def run(notebook: NotebookNode, label: str) -> None:
    """Run every cell of a notebook in place; the working folder is that of the notebooks.

    Raises `CellError` at the first cell that fails.
    """
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=CRITICAL"],
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.reset_execution_trackers()
    # disable=None: no bar where the output is not a terminal
    with (
        client.setup_kernel(),
        tqdm(notebook.cells, label, unit="cell", leave=False, disable=None) as cells,
    ):
        for index, cell in enumerate(cells):
            try:
                client.execute_cell(cell, index)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                raise CellError(failure(index, cell, error)) from None


def failure(index: int, cell: NotebookNode, error: Exception) -> str:
    """Return which cell failed and why, with the source of the cell."""
    lines = "\n".join(f"    {line}" for line in cell.source.splitlines())
    reason = (
        f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
    )
    return f"cell {index} failed:\n\n{lines}\n\n{reason}"


def write(notebook: NotebookNode, path: Path) -> None:
    """Store a notebook with its outputs, but without timestamps and names of the machine.

    The file is replaced at once, so no reader sees half of it.
    """
    from transformer.files import atomic_write

    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    text = nbformat.writes(notebook)
    atomic_write(path, (text if text.endswith("\n") else f"{text}\n").encode())


@contextmanager
def timed(label: str) -> Iterator[None]:
    """Print the label with the seconds that the block took, and a tick or a cross."""
    start = time.perf_counter()
    mark = "✗"
    try:
        yield
        mark = "✓"
    finally:
        print(f"{label:<{TITLE_WIDTH}}{time.perf_counter() - start:6.0f} s  {mark}", flush=True)


def train() -> None:
    """Train the translator that chapters 11 and 12 use, unless it was trained before."""
    from transformer.cpu import process
    from transformer.recipes import trained_translator

    process.tune_allocator()
    with timed("     the English→Italian translator"):
        trained_translator()


def translate() -> None:
    """Translate one sentence with the trained translator, and print where to go next."""
    from transformer.translator import Translator

    translation = Translator.load("en-it").translate([SENTENCE])[0]
    print(f"\n{SENTENCE} → {translation}\n")
    print("Now take the course yourself: make lab opens the first chapter.")
    print("README.md lists the chapters, and shows how to use the package on text of your own.")


def course(only: list[str], keep: bool) -> None:
    """Run the chapters.

    Without a selection, the translator is trained on the way, and used at the end.
    """
    for path in chapters(only):
        notebook = nbformat.read(path, as_version=4)
        number = path.name[:2]
        label = f"{number} · {title(notebook)}"
        try:
            with timed(label):
                run(notebook, label)
        except CellError as error:
            raise SystemExit(f"\n{path.name}, {error}") from None
        if keep:
            write(notebook, path)
        if number == TRAIN_AFTER and not only:
            train()
    if not only:
        translate()


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description="Run the chapters of the course in order.")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NN", help="run only these chapters, such as 03"
    )
    parser.add_argument(
        "--write", action="store_true", help="keep the outputs in the notebooks (for maintainers)"
    )
    options = parser.parse_args()
    try:
        course(options.only, options.write)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
