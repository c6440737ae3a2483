"""What the package's modules define, read from their text: nothing is imported."""

import ast
import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """A public name: its kind, its signature as the source has it, its docstring, its members."""

    name: str
    kind: str
    signature: str = ""
    doc: str = ""
    bases: tuple[str, ...] = ()
    members: tuple["Definition", ...] = ()


def file_of(module: str) -> Path:
    """Return the file of a module such as transformer.engines; ValueError if there is none."""
    path = ROOT.joinpath(*module.split("."))
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.is_file():
            return found
    raise ValueError(f"there is no module {module}")


@functools.cache
def parsed(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(file_of(module).read_text(encoding="utf-8"))


def module_doc(module: str) -> str:
    """Return a module's docstring."""
    return ast.get_docstring(parsed(module)) or ""


def targets(node: ast.stmt) -> list[str]:
    """Return the names that an assignment binds."""
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def public_names(module: str) -> list[str]:
    """Return `__all__`, or else what the module defines without a leading underscore."""
    found = []
    for node in parsed(module).body:
        if isinstance(node, ast.Assign) and targets(node) == ["__all__"]:
            return list(ast.literal_eval(node.value))
        named = [node.name] if isinstance(node, Function | ast.ClassDef) else targets(node)
        found += [name for name in named if not name.startswith("_")]
    return list(dict.fromkeys(found))


def find(module: str, name: str) -> tuple[str, ast.stmt, str] | None:
    """Return the module that defines a name, its statement, and the text after an assignment."""
    body = parsed(module).body
    for index in range(len(body) - 1, -1, -1):
        node = body[index]
        if isinstance(node, Function | ast.ClassDef) and node.name == name:
            return module, node, ""
        if name in targets(node):
            return module, node, text_of(body[index + 1]) if index + 1 < len(body) else ""
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transformer"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return find(str(node.module), alias.name)
    return None


def text_of(node: ast.stmt) -> str:
    """Return the text of a statement that is nothing but a string."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return str(node.value.value) if isinstance(node.value.value, str) else ""
    return ""


def define(module: str, name: str) -> Definition | None:
    """Return what a public name of a module is, wherever it is defined; None for a submodule."""
    found = find(module, name)
    if found is None:
        return None
    _, node, text = found
    if isinstance(node, ast.ClassDef):
        return class_definition(node)
    if isinstance(node, Function):
        return Definition(name, "function", signature(node), ast.get_docstring(node) or "")
    return Definition(name, "data", annotation_of(node), text or texts_of(node))


def texts_of(node: ast.stmt) -> str:
    """Return a dictionary of texts as a table; nothing for any other value."""
    value = getattr(node, "value", None)
    if not isinstance(value, ast.Dict) or not value.values:
        return ""
    if not all(isinstance(each, ast.Constant) for each in value.values):
        return ""
    rows = [f"| `{key}` | {text} |" for key, text in ast.literal_eval(value).items()]
    return "\n".join(["| name | meaning |", "|---|---|", *rows])


def annotation_of(node: ast.stmt) -> str:
    """Return the annotation of an assignment."""
    return shown(node.annotation) if isinstance(node, ast.AnnAssign) else ""


def class_definition(node: ast.ClassDef) -> Definition:
    """Return a class with its public methods, in the order of the source."""
    bases = tuple(map(ast.unparse, node.bases))
    return Definition(
        node.name,
        "class",
        constructor(node),
        ast.get_docstring(node) or "",
        tuple(base for base in bases if base != "Protocol"),
        tuple(members(node)),
    )


def members(node: ast.ClassDef) -> Iterator[Definition]:
    """Yield a class's public methods and properties that say what they do."""
    for each in node.body:
        doc = ast.get_docstring(each) if isinstance(each, Function) else None
        if not isinstance(each, Function) or each.name.startswith("_") or not doc:
            continue
        marks = {ast.unparse(mark).split(".")[-1] for mark in each.decorator_list}
        if marks & {"property", "cached_property"}:
            yield Definition(each.name, "property", shown(each.returns), doc)
        else:
            special = marks & {"classmethod", "staticmethod"}
            kind = special.pop() if special else "method"
            yield Definition(each.name, kind, signature(each, kind != "staticmethod"), doc)


def constructor(node: ast.ClassDef) -> str:
    """Return how a class is called: by its `__init__`, or by the fields of a record."""
    for each in node.body:
        if isinstance(each, Function) and each.name == "__init__":
            return signature(each, drop_first=True).partition(" -> ")[0]
    marks = " ".join(map(ast.unparse, [*node.decorator_list, *node.bases]))
    if "dataclass" not in marks and "NamedTuple" not in marks:
        return ""
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    return f"({', '.join(map(field_text, fields))})"


def field_text(node: ast.AnnAssign) -> str:
    """Return a field as a parameter."""
    text = f"{targets(node)[0]}: {shown(node.annotation)}"
    return f"{text} = {ast.unparse(node.value)}" if node.value else text


def signature(node: Function, drop_first: bool = False) -> str:
    """Return a signature as it is written, with its shapes; without self or cls if asked."""
    listed = copy.deepcopy(node.args)
    if drop_first:
        (listed.posonlyargs or listed.args).pop(0)
    for each in [*listed.posonlyargs, *listed.args, *listed.kwonlyargs]:
        each.annotation = unquoted(each.annotation)
    text = f"({ast.unparse(listed)})"
    return f"{text} -> {shown(node.returns)}" if node.returns else text


def shown(node: ast.expr | None) -> str:
    """Return an annotation as text."""
    return ast.unparse(unquoted(node) or ast.Constant(None))


def unquoted(node: ast.expr | None) -> ast.expr | None:
    """Return an annotation as a reader wants it.

    A class that is named by a string is shown without quotes, and a shape such as " b" without the
    space that keeps linters from reading it as a name.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    found = copy.deepcopy(node)
    for each in ast.walk(found) if found else ():
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            each.value = each.value.strip()
    return found
