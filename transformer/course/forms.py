"""The two forms of a chapter, notebook and module, and how one becomes the other."""

import hashlib
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
DEMO = ["active-ipynb"]
"""The tags of a cell that runs in the notebook only, and is a comment in the module."""


def converter() -> Any:
    """Import jupytext; ValueError that says how to install it."""
    try:
        import jupytext
    except ImportError:
        raise ValueError(
            'the course needs Jupytext and Jupyter: pip install "transformer-course[course]"'
        ) from None
    return jupytext


def to_notebook(text: str) -> NotebookNode:
    """Return the notebook that a module's text describes, without outputs."""
    notebook = converter().reads(text, "py:percent")
    notebook.metadata = NotebookNode(KERNEL)
    return notebook


def to_module(notebook: NotebookNode) -> str:
    """Return the text of a notebook as a module; only the tags of its cells are kept."""
    from jupytext.config import JupytextConfiguration

    config = JupytextConfiguration(
        notebook_metadata_filter="-all", cell_metadata_filter="tags,-all"
    )
    return converter().writes(notebook, "py:percent", config=config)


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook; ValueError if it is not one."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises what it finds: JSON, keys, types
        reason = str(error).strip().partition("\n")[0][:100] or type(error).__name__
        raise ValueError(f"{path.name} is damaged or not a notebook ({reason})") from None


def notebook_text(notebook: NotebookNode) -> str:
    """Return a notebook as the content of its file."""
    import nbformat

    text = nbformat.writes(notebook)
    return text if text.endswith("\n") else f"{text}\n"


def with_sources(notebook: NotebookNode, text: str) -> NotebookNode:
    """Return the notebook of a module's text, with the outputs of cells that stayed the same."""
    found = to_notebook(text)
    kept = {cell.source: cell for cell in notebook.cells if cell.cell_type == "code"}
    for cell in found.cells:
        same = kept.get(cell.source)
        if cell.cell_type == "code" and same is not None:
            cell.outputs = same.get("outputs", [])
            cell.execution_count = same.get("execution_count")
    return found


def digest(text: str) -> str:
    """Return a short fingerprint of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def markdown(source: str) -> NotebookNode:
    """Return a cell of prose."""
    import nbformat

    return nbformat.v4.new_markdown_cell(source.strip())


def code(source: str, tags: list[str] | None = None) -> NotebookNode:
    """Return a cell of code."""
    import nbformat

    metadata = {"tags": tags} if tags else {}
    return nbformat.v4.new_code_cell(source.strip("\n"), metadata=metadata)
