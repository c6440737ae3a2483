"""The glossary as a page of its own: each term of chapter 0's table gets an anchor."""

import re
from pathlib import Path

import nbformat

HEAD = """# Glossary

The terms of the course, with the chapter that explains each. The same table ends
[chapter 0](notebooks/00_introduction.ipynb). The letters of axes, such as `b t d_model`, are in
{py:obj}`transformer.AXES`.

"""


def glossary(introduction: Path) -> str:
    """Return the page; ValueError if the notebook has no glossary."""
    cells = nbformat.read(introduction, as_version=4).cells
    found = [cell.source for cell in cells if cell.source.startswith("## Glossary")]
    if not found:
        raise ValueError(f"{introduction.name} has no cell that begins with ## Glossary")
    rows = [line.strip("| ").split(" | ") for line in found[0].splitlines() if line[:2] == "| "]
    return f"{HEAD}:::{{glossary}}\n{''.join(entry(*row) for row in rows[1:])}:::\n"


def entry(terms: str, meaning: str, chapters: str) -> str:
    """Return one entry; terms between commas share it."""
    lines = "\n".join(term.strip() for term in terms.split(", "))
    links = re.sub(r"\[ *(\d+)\]\((\w+\.ipynb)\)", r"[\1](notebooks/\2)", chapters)
    word = "chapters" if links.count("](") > 1 else "chapter"
    return f"{lines}\n    {meaning[0].upper()}{meaning[1:]} ({word} {links}).\n\n"
