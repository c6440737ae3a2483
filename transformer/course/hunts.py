"""The text of a bug that is given out: the zoo's, under another name and without what it says."""

import ast
import re

from transformer import zoo
from transformer.course.exercise import FindBug

SECRETS = {"CHECK", "CAUGHT_BY", "OPTIONS"}


def bug_text(exercise: FindBug, seed: int = 0) -> str:
    """Return a wrong implementation under the exercise's name, without a word on the mistake.

    What it takes from the library keeps the name `library`, because the learner's own blocks have
    the same names.
    """
    text = zoo.member(exercise.bug(seed).member).source
    lines = text.splitlines()
    hidden: set[int] = set()
    for node in ast.parse(text).body:
        if is_secret(node):
            hidden.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    kept = [line for number, line in enumerate(lines, start=1) if number not in hidden]
    source = re.sub(r"\bwrong\b", exercise.name, "\n".join(kept))
    return re.sub(r"\n{3,}", "\n\n\n", with_library(source)).strip()


def is_secret(node: ast.stmt) -> bool:
    """Return whether a statement of the zoo says what is wrong."""
    if isinstance(node, ast.Assign):
        return bool({name.id for name in node.targets if isinstance(name, ast.Name)} & SECRETS)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def with_library(text: str) -> str:
    """Return code that imports the library's modules instead of names from them."""
    tree = ast.parse(text)
    found = [node for node in tree.body if is_ours(node)]
    modules = {node.module for node in found if isinstance(node, ast.ImportFrom)}
    lines = text.splitlines()
    owners: dict[str, str] = {}
    for node in found:
        assert isinstance(node, ast.ImportFrom) and node.module
        package, _, last = node.module.rpartition(".")
        owner = "library" if len(modules) == 1 else f"library_{last}"
        owners |= {alias.name: owner for alias in node.names}
        lines[node.lineno - 1] = f"from {package} import {last} as {owner}"
        for number in range(node.lineno, node.end_lineno or node.lineno):
            lines[number] = ""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in owners]
    for node in sorted(names, key=lambda node: (node.lineno, -node.col_offset)):
        line = lines[node.lineno - 1].encode()  # columns count bytes
        before = line[: node.col_offset].decode()
        after = line[node.col_offset :].decode()
        lines[node.lineno - 1] = f"{before}{owners[node.id]}.{after}"
    return "\n".join(lines)


def is_ours(node: ast.stmt) -> bool:
    """Return whether a statement imports names from a module of the library."""
    return isinstance(node, ast.ImportFrom) and str(node.module).startswith("transformer.")
