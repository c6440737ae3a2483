"""The text of what a learner fills in: blocks without their bodies, and the cells of exercises."""

import ast
import inspect
import re
from collections.abc import Iterable, Sequence

from transformer.course.exercise import Answer, Exercise, FindBug, Predict, WriteTest
from transformer.course.hunts import bug_text
from transformer.course.lessons import definition

Function = ast.FunctionDef | ast.AsyncFunctionDef


def emptied(text: str, target: str, keep: Sequence[str] = ()) -> str:
    """Return a cell's text with `@borrow` on the target and `...` for its body.

    Of a class all methods are emptied, except those that `keep` names.
    """
    node = definition(ast.parse(text), target)
    if node is None:
        raise ValueError(f"the cell does not define {target}")
    functions = [node] if isinstance(node, Function) else methods(node, keep)
    lines = text.splitlines()
    for function in sorted(functions, key=lambda function: -function.lineno):
        remove_body(lines, function)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines.insert(first - 1, " " * node.col_offset + "@borrow")
    return "\n".join(lines)


def methods(node: ast.ClassDef, keep: Sequence[str]) -> list[Function]:
    """List the methods of a class whose bodies are to be written."""
    found = [child for child in node.body if isinstance(child, Function)]
    return [child for child in found if child.name not in keep]


def progress(text: str, target: str, keep: Sequence[str] = ()) -> str:
    """Say which methods of a class are still empty, if others are written; else nothing."""
    node = definition(ast.parse(text), target)
    if not isinstance(node, ast.ClassDef):
        return ""
    found = methods(node, keep)
    empty = [method.name for method in found if has_no_body(method)]
    if not empty or len(empty) == len(found):
        return ""
    names = ", ".join(empty)
    return f"the whole class is borrowed as long as a method is empty: {names}"


def has_no_body(node: Function) -> bool:
    """Return whether a function does nothing: a docstring, `...` or `pass` at most."""
    return all(
        isinstance(one, ast.Pass)
        or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        for one in node.body
    )


def remove_body(lines: list[str], node: Function) -> None:
    """Replace the lines of a function's body by `...`, all but the docstring."""
    has_docstring = ast.get_docstring(node) is not None
    rest = node.body[has_docstring:]
    if not rest:
        return
    before = node.body[0].end_lineno if has_docstring else None
    start = before if before is not None else header_end(lines, node)
    indent = " " * node.body[0].col_offset
    lines[start : node.end_lineno] = [f"{indent}..."]


def header_end(lines: Sequence[str], node: Function) -> int:
    """Return the number of the line that ends a function's signature; comments may follow it."""
    last = node.body[0].lineno - 1
    while lines[last - 1].strip().startswith("#") or not lines[last - 1].strip():
        last -= 1
    return last


def with_imports(text: str) -> str:
    """Return a cell of imports that also has torch, which most answers need, and `borrow`."""
    lines = text.rstrip("\n").splitlines()
    if "import torch" not in lines:
        after = re.compile(r"(import|from) (torch|einops)")
        places = [number for number, line in enumerate(lines) if after.match(line)]
        lines.insert(places[0] if places else len(lines), "import torch")
    return "\n".join([*lines, "", "from transformer.course import borrow"])


def renamed(text: str, package: str, modules: Iterable[str]) -> str:
    """Return code that imports the learner's chapters instead of the library's."""
    pattern = rf"\btransformer\.({'|'.join(sorted(modules))})\b"
    return re.sub(pattern, rf"{package}.\1", text)


# --- the cells of exercises -----------------------------------------------------------------------


def starter(exercise: Exercise, seed: int = 0) -> str:
    """Return the cell in which an exercise is answered; a block's cell is in the chapter."""
    if isinstance(exercise, FindBug):
        body = bug_text(exercise, seed)
    elif isinstance(exercise, WriteTest):
        body = f"def {exercise.name}(implementation):\n    ..."
    elif isinstance(exercise, Answer):
        body = f"{exercise.name} = ...  # {exercise.form}"
    else:
        raise ValueError(f"exercise {exercise.id} has no cell of its own")
    gap = "\n" if isinstance(exercise, Answer) else "\n\n"
    return f"{exercise.given}\n{gap}{body}" if exercise.given else body


def task_text(exercise: Exercise, seed: int = 0) -> str:
    """Return the task, with the symptom of this folder's bug."""
    if isinstance(exercise, FindBug):
        return exercise.task.replace("{symptom}", exercise.bug(seed).symptom).strip()
    return exercise.task.strip()


def experiment(exercise: Predict) -> str:
    """Return the code to be run after a prediction."""
    if exercise.run:
        return exercise.run.strip()
    function = exercise.solution.__name__
    shown = function.replace("solution", "experiment")
    text = inspect.getsource(exercise.solution).replace(function, shown).rstrip()
    return f"{text}\n\n\n{shown}()"
