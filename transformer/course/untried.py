"""Exercises that are not to be judged: nothing was written, or what was written is gone."""

import ast
from types import ModuleType
from typing import Any

from transformer.course.exercise import Answer, Exercise, FindBug, WriteBlock
from transformer.course.folder import Folder
from transformer.course.lessons import definition, lesson
from transformer.course.rows import BORROWED, BROKEN, EMPTY, MISSING, Row
from transformer.course.stub_text import progress, starter
from transformer.course.stubs import is_borrowed, is_empty


def untried(task: Exercise, module: ModuleType, folder: Folder) -> Row | None:
    """Return the row of an exercise that is not to be judged; None if it is."""
    answer: Any = module
    for name in task.name.split("."):
        answer = getattr(answer, name, MISSING)
    if answer is MISSING:
        path = f"{folder.package}/{lesson(task.chapter).module}.py"
        gone = f"{task.name} is not in {path}: was its cell deleted or renamed?"
        return Row(task.id, MISSING, gone)
    if isinstance(task, WriteBlock):
        return block(task, answer, folder)
    if isinstance(task, Answer):
        nothing = answer is ...
    elif isinstance(task, FindBug):
        nothing = is_unchanged(task, folder)
    else:
        nothing = is_empty(answer)
    return Row(task.id, EMPTY) if nothing else None


def block(task: WriteBlock, answer: Any, folder: Folder) -> Row | None:
    """Return the row of a block that is borrowed, or empty without being borrowed."""
    if is_borrowed(answer):
        text = folder.module(lesson(task.chapter)).read_text(encoding="utf-8")
        return Row(task.id, BORROWED, note=progress(text, task.target, task.keep))
    if is_empty(answer):
        gone = "its body is empty and @borrow is gone: put @borrow back, or write the body"
        return Row(task.id, BROKEN, gone)
    return None


def is_unchanged(task: FindBug, folder: Folder) -> bool:
    """Return whether a bug is still as it was given."""
    text = folder.module(lesson(task.chapter)).read_text(encoding="utf-8")
    given = definition(ast.parse(starter(task, folder.state.seed)), task.name)
    now = definition(ast.parse(text), task.name)
    return given is not None and now is not None and ast.dump(given) == ast.dump(now)


def used_by(name: str, text: str) -> set[str]:
    """Return the top-level definitions of a module that one of them uses, directly or not."""
    nodes = {
        node.name: node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    found: set[str] = set()
    waiting = [name]
    while waiting:
        node = nodes.get(waiting.pop())
        names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} if node else set()
        waiting += sorted((names & nodes.keys()) - found - {name})
        found |= names & nodes.keys()
    return found - {name}
