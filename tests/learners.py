"""What a learner does to a folder of the course: write, delete, break."""

import ast
from pathlib import Path

from transformer.course import report
from transformer.course.exercise import Answer
from transformer.course.exercises import exercise
from transformer.course.lessons import definition, lesson


def module(folder: Path, name: str) -> Path:
    """Return the module that holds an exercise's answer."""
    return folder / f"{lesson(exercise(name).chapter).module}.py"


def write(folder: Path, name: str, text: str | None = None) -> None:
    """Put an answer where its cell is; the solution, unless another text is given."""
    path = module(folder, name)
    old = path.read_text(encoding="utf-8")
    lines = old.splitlines()
    start, end = place(old, exercise(name).name)
    column = len(lines[start]) - len(lines[start].lstrip())
    new = solution(name) if text is None else text
    lines[start:end] = [" " * column + line if line else "" for line in new.splitlines()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def solution(name: str) -> str:
    """Return the solution as it is pasted: of a value, its last line."""
    text = report.solution_text(exercise(name)).rstrip()
    return text.splitlines()[-1] if isinstance(exercise(name), Answer) else text


def place(text: str, name: str) -> tuple[int, int]:
    """Return the first line of a definition or assignment, and the one after its last."""
    tree = ast.parse(text)
    node = definition(tree, name)
    if node is not None:
        lines = [node.lineno, *(decorator.lineno for decorator in node.decorator_list)]
        return min(lines) - 1, node.end_lineno
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node.lineno - 1, node.end_lineno
    raise AssertionError(f"no {name} in the module")
