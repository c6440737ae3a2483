"""`@borrow`: a function or class that is still empty is borrowed from the reference.

In a learner's folder the blocks to be written are empty: their bodies are `...`. What is borrowed
is the reference's *text*, run in the learner's module. So it calls what that module imports and
defines, and a borrowed decoder runs the attention that the learner has written.
"""

import ast
import dis
import inspect
import sys
from types import FunctionType
from typing import Any, TypeVar

from transformer.course.lessons import MODULES, PACKAGE, defining_module, definition, parsed

Block = TypeVar("Block")
BORROWED = "__borrowed__"


def borrow(block: Block) -> Block:
    """Return a function or class as it is, or the reference's of the same name if it is empty.

    A class is empty as long as one of its methods is. Raises ValueError if no chapter defines the
    name.
    """
    return _reference(block) if is_empty(block) else block


def is_borrowed(block: object) -> bool:
    """Return whether something comes from the reference, not from the learner."""
    mark = BORROWED in getattr(block, "__dict__", {})
    return mark or str(getattr(block, "__module__", "")).startswith("transformer.")


def empty_methods(cls: type) -> list[str]:
    """List the methods of a class whose bodies are empty."""
    return [name for name, value in vars(cls).items() if is_empty(_function(value))]


def is_empty(block: object) -> bool:
    """Return whether a function's body is `...`, or that of one of a class's methods."""
    if isinstance(block, type):
        return bool(empty_methods(block))
    function = inspect.unwrap(block) if callable(block) else block
    return isinstance(function, FunctionType) and _steps(function) in (_BARE, _DOCUMENTED)


def _function(value: Any) -> Any:
    """Return the function of a method, class method, static method or property."""
    return getattr(value, "__func__", getattr(value, "fget", value))


def _steps(function: FunctionType) -> list[tuple[str, Any]]:
    """Return what a function does, as operations of Python's virtual machine."""
    return [(step.opname, step.argval) for step in dis.get_instructions(function)]


def _bare(): ...


def _documented():
    """Say something, and do nothing."""
    ...


_BARE = _steps(_bare)
_DOCUMENTED = _steps(_documented)


def _reference(block: Any) -> Any:
    """Run the reference's text of a block in the module that holds the block."""
    name = block.__qualname__
    here = block.__module__.rpartition(".")[2]
    module = here if here in MODULES else defining_module(name)
    node = definition(parsed(module), name)
    if node is None:
        raise ValueError(f"transformer.{module} does not define {name}")
    path = str(PACKAGE / f"{module}.py")
    code = compile(ast.Module([node], []), path, "exec", dont_inherit=True)
    namespace: dict[str, Any] = {}
    exec(code, vars(sys.modules[block.__module__]), namespace)
    found = namespace[node.name]
    found.__qualname__ = name
    setattr(found, BORROWED, True)
    return found
