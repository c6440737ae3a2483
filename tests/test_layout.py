"""Who imports whom, and how long things are.

Each rule is a function, and is also tried on something that breaks it.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10: pytest brings tomli
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "transformer"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FLOORS: dict[str, int] = PYPROJECT["tool"]["transformer"]["floors"]
FORMATS: list[str] = PYPROJECT["tool"]["jupytext"]["formats"]

BESIDE = {"__init__", "__main__", "plotting"}
"""Modules without a floor: the package itself, the command, and what only notebooks import."""

FUNCTION_STATEMENTS = 25
CLASS_STATEMENTS = 60
MODULE_LINES = 450
MODULE_CODE = 250
CHAPTER_CODE = 200
COLUMNS = 100


def pairs(formats: list[str]) -> dict[str, str]:
    """Map notebook names to module names, in the order of the chapters."""
    pattern = re.compile(r"notebooks//(\w+)/ipynb,transformer//(\w+)/py:percent")
    return dict(pattern.fullmatch(line).groups() for line in formats)


def name_of(path: Path) -> str:
    """Return a module's name in the package: cpu/probes.py is cpu.probes."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def unit(name: str) -> str:
    """Return what has a floor: a top-level module, or a package as a whole."""
    return name.split(".")[0]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


CHAPTERS = list(pairs(FORMATS).values())
MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = {name_of(path) for path in PACKAGE.glob("*/__init__.py")}
each_module = pytest.mark.parametrize("name", MODULES)


# --- imports --------------------------------------------------------------------------------------


def absolute(node: ast.ImportFrom, importer: str, is_package: bool) -> str:
    """Return the dotted name that `from … import` starts from; a relative one is resolved."""
    if not node.level:
        return node.module
    above = ["transformer", *importer.split(".")]
    above = above[: len(above) - node.level + is_package]
    return ".".join([*above, *filter(None, [node.module])])


def imports(tree: ast.AST, importer: str, is_package: bool = False) -> Iterator[str]:
    """Yield what a module imports from the package, at any depth: model.Config, cpu.probes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, importer, is_package)
            found = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (f.removeprefix("transformer.") for f in found if f.startswith("transformer."))


def module_imported(target: str, modules: Iterable[str]) -> str:
    """Return the module that `target` names, or in which it is defined."""
    parts = target.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((name for name in names if name in modules), parts[0])


def graph(trees: dict[str, ast.Module], packages: set[str]) -> dict[str, set[str]]:
    """Return for each module those it imports."""
    return {
        name: {module_imported(t, trees) for t in imports(tree, name, name in packages)} - {name}
        for name, tree in trees.items()
    }


def climbs(links: dict[str, set[str]], floors: dict[str, int]) -> list[str]:
    """List the imports that do not come from a lower floor or from the same package."""
    found = []
    for importer, targets in sorted(links.items()):
        if unit(importer) in BESIDE:
            continue
        for target in sorted(targets - {"plotting"}):
            same_unit = unit(target) == unit(importer)
            higher = floors.get(unit(target), 99) >= floors.get(unit(importer), 0)
            if higher and not same_unit:
                found.append(f"{importer} imports {target}")
    return found


def reachable(start: str, links: dict[str, set[str]]) -> set[str]:
    """Return all that is imported when `start` is, directly or not."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = links.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def cycles(links: dict[str, set[str]]) -> list[str]:
    """List the modules that import themselves by way of others."""
    return sorted(name for name in links if name in reachable(name, links))


def looks_ahead(links: dict[str, set[str]], chapters: list[str]) -> list[str]:
    """List the chapters that import a later one, directly or by way of other modules."""
    found = []
    for number, chapter in enumerate(chapters):
        later = reachable(chapter, links).intersection(chapters[number + 1 :])
        found += [f"{chapter} imports {name}" for name in sorted(later)]
    return found


LINKS = graph({name: parse(path) for name, path in MODULES.items()}, PACKAGES)


def test_modules_import_only_from_lower_floors() -> None:
    assert climbs(LINKS, FLOORS) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert cycles(LINKS) == []


def test_no_chapter_imports_a_later_one() -> None:
    assert looks_ahead(LINKS, CHAPTERS) == []


def test_everything_but_the_package_itself_has_a_floor() -> None:
    assert set(FLOORS) == {unit(name) for name in MODULES} - BESIDE


def test_every_chapter_is_a_module() -> None:
    assert [name for name in CHAPTERS if name not in MODULES] == []


def links_of(**sources: str) -> dict[str, set[str]]:
    """Return the graph of some modules given by their code; `a__b` is the module a.b."""
    trees = {name.replace("__", "."): ast.parse(code) for name, code in sources.items()}
    return graph(trees, {unit(name) for name in trees if "." in name})


@pytest.mark.parametrize(
    "line",
    [
        "from transformer.high import x",
        "import transformer.high",
        "from transformer import high",
        "from .high import x",
        "from . import high",
        "def f():\n    from transformer.high import x",
    ],
)
def test_an_import_from_a_higher_floor_is_seen(line: str) -> None:
    floors = {"low": 1, "high": 2}
    assert climbs(links_of(low=line, high=""), floors) == ["low imports high"]
    assert climbs(links_of(high=line.replace("high", "low"), low=""), floors) == []


def test_a_package_is_one_unit_and_its_neighbours_are_not() -> None:
    inside = links_of(room="", room__a="from . import b\nfrom .b import x", room__b="")
    assert inside["room.a"] == {"room.b"}
    assert climbs(inside, {"room": 1}) == []
    outside = links_of(room="", room__a="from ..beside import x", beside="")
    assert climbs(outside, {"room": 1, "beside": 1}) == ["room.a imports beside"]
    assert climbs(links_of(a="import transformer.b", b=""), {"a": 1}) == ["a imports b"]
    assert climbs(links_of(a="from transformer import AXES"), {"a": 1}) == ["a imports AXES"]


def test_a_cycle_is_seen_inside_a_package_too() -> None:
    links = links_of(room="", room__a="from .b import x", room__b="def f():\n    from . import c")
    assert cycles(links) == []
    links |= links_of(room__c="from transformer.room.a import y", room__a="", room="")
    links["room.b"] = {"room.c"}
    links["room.a"] = {"room.b"}
    assert cycles(links) == ["room.a", "room.b", "room.c"]


def test_a_later_chapter_is_seen_behind_another_module() -> None:
    links = links_of(one="import transformer.tool", tool="from transformer.two import x", two="")
    assert looks_ahead(links, ["one", "two"]) == ["one imports two"]
    assert looks_ahead(links, ["two", "one"]) == []


HELPERS = {"checks", "course", "plotting", "zoo"}


def eager_helpers(tree: ast.Module, importer: str = "x") -> list[str]:
    """List the imports of helpers that run when the module is imported."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    deferred = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    late = {id(node) for function in deferred for node in ast.walk(function)}
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    eager = ast.Module([node for node in statements if id(node) not in late], [])
    return [name for name in imports(eager, importer) if unit(name) in HELPERS]


@each_module
def test_what_only_learners_and_tests_use_is_not_imported_with_a_module(name: str) -> None:
    if unit(name) not in HELPERS:
        assert eager_helpers(parse(MODULES[name]), name) == []


def test_an_eager_import_of_a_helper_is_seen() -> None:
    line = "from transformer import plotting"
    assert eager_helpers(ast.parse(f"if True:\n    {line}")) == ["plotting"]
    assert eager_helpers(ast.parse("from .checks.suite import x")) == ["checks.suite.x"]
    assert eager_helpers(ast.parse(f"def f():\n    {line}")) == []


# --- names ----------------------------------------------------------------------------------------


def prefixes(names: Iterable[str], longer: Iterable[str]) -> list[tuple[str, str]]:
    """List the names that begin another name: Jupytext would take one for the other."""
    return [(a, b) for a in names for b in longer if a != b and b.startswith(a)]


def mistaken_for_chapters(modules: Iterable[str], chapters: list[str]) -> list[tuple[str, str]]:
    """List the modules of subfolders whose names begin with a chapter's: Jupytext pairs them."""
    inside = [name for name in modules if "." in name]
    return [(c, name) for c in chapters for name in inside if name.split(".")[-1].startswith(c)]


def test_no_name_begins_another() -> None:
    top = sorted({unit(name) for name in MODULES})
    assert prefixes(top, top) == []
    assert mistaken_for_chapters(MODULES, CHAPTERS) == []


def test_a_name_that_begins_another_is_seen() -> None:
    names = ["attention", "attention_x", "data"]
    assert prefixes(names, names) == [("attention", "attention_x")]
    modules = ["data", "checks.data", "checks.data_more", "checks.my_data"]
    found = mistaken_for_chapters(modules, ["data"])
    assert found == [("data", "checks.data"), ("data", "checks.data_more")]


# --- private operators ----------------------------------------------------------------------------

PRIVATE = ("torch.ops", "torch.jit", "torch.classes")
PRIVATE_TEXT = re.compile(r"\b(?:aten|mkldnn|quantized)::\w+|\b_scaled_dot\w+")


def aliases(tree: ast.AST) -> dict[str, str]:
    """Map the names under which a module knows parts of PyTorch to their full names."""
    found = {"torch": "torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return {short: name for short, name in found.items() if unit(name) == "torch"}


def dotted(node: ast.AST) -> str:
    """Return a name such as `torch.load`; what is not a name is empty."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_private(name: str) -> bool:
    """Return whether PyTorch makes no promise about a name, such as `torch.cpu._is_avx512_…`."""
    hidden = any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
    return hidden or any(name == room or name.startswith(f"{room}.") for room in PRIVATE)


def private_operators(tree: ast.Module) -> list[str]:
    """List the private names of PyTorch that a module uses or imports, or names in a string."""
    known = aliases(tree)
    used = {name for name in known.values() if is_private(name)}
    docs = {id(text) for text in docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = dotted(node).partition(".")
            if first in known and is_private(f"{known[first]}.{rest}"):
                used.add(f"{known[first]}.{rest}")
        elif isinstance(node, ast.Import):
            used |= {a.name for a in node.names if unit(a.name) == "torch" and is_private(a.name)}
        elif isinstance(node, ast.Constant) and id(node) not in docs:
            used.update(re.findall(PRIVATE_TEXT, str(node.value)))
    whole = [name for name in used if not any(other.startswith(f"{name}.") for other in used)]
    return sorted(whole)


@each_module
def test_private_operators_of_pytorch_are_used_in_cpu_only(name: str) -> None:
    if unit(name) != "cpu":
        assert private_operators(parse(MODULES[name])) == []


def test_a_private_operator_is_seen() -> None:
    code = """
import torch, torch._dynamo
import torch.nn.functional as F
from torch import jit, nn
from torch.ops import aten
'''A page may speak of torch.ops and of _scaled_dot_product_flash_attention_for_cpu.'''
torch.ops.mkldnn._linear_pointwise(x)
torch.cpu._is_avx512_bf16_supported()
torch.backends.mkldnn.is_available()
torch.backends.mkldnn._flags()
torch._C._get_tracing_state()
F._scaled_dot_product_attention(q, k, v)
F.scaled_dot_product_attention(q, k, v)
self._own + nn.Linear.__init__
call("_scaled_dot_product_flash_attention_for_cpu")
"""
    assert private_operators(ast.parse(code)) == [
        "_scaled_dot_product_flash_attention_for_cpu",
        "torch._C._get_tracing_state",
        "torch._dynamo",
        "torch.backends.mkldnn._flags",
        "torch.cpu._is_avx512_bf16_supported",
        "torch.jit",
        "torch.nn.functional._scaled_dot_product_attention",
        "torch.ops.aten",
        "torch.ops.mkldnn._linear_pointwise",
    ]


# --- sizes ----------------------------------------------------------------------------------------


def docstrings(tree: ast.AST) -> list[ast.Constant]:
    """Return the strings that stand alone: docstrings, and what is written under a constant."""
    alone = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    return [v for v in alone if isinstance(v, ast.Constant) and isinstance(v.value, str)]


def statements(node: ast.AST) -> int:
    """Count the statements inside a definition, those of inner definitions too; no docstrings."""
    inner = [child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]
    return len(inner) - len(docstrings(node))


def too_long(tree: ast.Module) -> list[str]:
    """List the functions and classes that have too many statements."""
    limits = {
        ast.FunctionDef: FUNCTION_STATEMENTS,
        ast.AsyncFunctionDef: FUNCTION_STATEMENTS,
        ast.ClassDef: CLASS_STATEMENTS,
    }
    counted = [(node, statements(node)) for node in ast.walk(tree) if type(node) in limits]
    return [f"{node.name}: {n} statements" for node, n in counted if n > limits[type(node)]]


@each_module
def test_definitions_are_short(name: str) -> None:
    assert too_long(parse(MODULES[name])) == []


def test_a_long_definition_is_seen() -> None:
    def function(count: int) -> str:
        return 'def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * count

    assert too_long(ast.parse(function(25))) == []
    assert too_long(ast.parse(function(26))) == ["f: 26 statements"]
    packed = "def f():\n    " + "; ".join(["x = 1"] * 26)
    assert too_long(ast.parse(packed)) == ["f: 26 statements"]
    nested = "def f():\n    def g():\n        if a:\n" + "            x = 1\n" * 24
    assert too_long(ast.parse(nested)) == ["f: 26 statements"]
    assert too_long(ast.parse("class C:\n" + "    x = 1\n" * 61)) == ["C: 61 statements"]


def lines_to_read(text: str, is_chapter: bool) -> int:
    """Count the lines of a module; in a chapter, those with text in its markdown and code cells.

    A chapter's prose is in the module. Its demo cells are comments there and run in the notebook,
    so they do not count; neither do cell markers, and empty lines between paragraphs and cells.
    """
    if not is_chapter:
        return len(text.splitlines())
    cells = re.split(r"^(?=# %%)", text, flags=re.MULTILINE)
    kept = [cell for cell in cells if "active-ipynb" not in cell.partition("\n")[0]]
    lines = [line for cell in kept for line in cell.splitlines() if not line.startswith("# %%")]
    return sum(line.strip() not in ("", "#") for line in lines)


def is_data(name: str) -> bool:
    """Return whether a module holds texts that are shown: the exercises of a chapter."""
    return name.startswith("course.exercises.")


def without_texts(text: str) -> str:
    """Return a module without the lines inside its strings of several lines."""
    strings = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    inside = {n for s in strings for n in range(s.lineno + 1, s.end_lineno or s.lineno)}
    return "".join(
        line for n, line in enumerate(text.splitlines(keepends=True), 1) if n not in inside
    )


def lines_of_code(text: str) -> int:
    """Count the lines that are not blank, no comment and no docstring."""
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    busy: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in quiet | {tokenize.ENDMARKER}:
            busy.update(range(token.start[0], token.end[0] + 1))
    for string in docstrings(ast.parse(text)):
        busy.difference_update(range(string.lineno, string.end_lineno + 1))
    lines = text.splitlines()
    return sum(bool(lines[number - 1].strip()) for number in busy)


def oversize(text: str, is_chapter: bool) -> list[str]:
    """List by how much a module is too long."""
    total = lines_to_read(text, is_chapter)
    code = lines_of_code(text)
    most = CHAPTER_CODE if is_chapter else MODULE_CODE
    found = [f"{total} lines"] if total > MODULE_LINES else []
    return found + ([f"{code} lines of code"] if code > most else [])


@each_module
def test_modules_are_short(name: str) -> None:
    text = MODULES[name].read_text(encoding="utf-8")
    assert oversize(without_texts(text) if is_data(name) else text, name in CHAPTERS) == []


def test_a_long_module_is_seen() -> None:
    code = "x = 1\n"
    demo = '# %% tags=["active-ipynb"]\n' + "# x = 1\n" * 99
    prose = "# %% [markdown]\n#\n" + "# word\n" * 450
    assert oversize(code * 201, is_chapter=True) == ["201 lines of code"]
    assert oversize(code * 201, is_chapter=False) == []
    assert oversize(code * 251, is_chapter=False) == ["251 lines of code"]
    assert oversize(prose + demo, is_chapter=True) == []
    assert oversize(prose + demo + "# %%\n\n" + code, is_chapter=True) == ["451 lines"]
    assert oversize(prose + demo, is_chapter=False) == ["552 lines"]


def test_what_counts_as_code() -> None:
    docstring = '    """One.\n\n    Two."""\n\n'
    text = f"def f():  # why\n{docstring}    # a reason\n    return (\n        1\n    )\n"
    assert lines_of_code(text) == 4
    table = 'TABLE = """\none\n\ntwo\n"""\n'
    assert lines_of_code(table) == 4, "a string that is used is code"
    assert lines_of_code(without_texts(table)) == 2, "except in a module of texts"


# --- one statement a line -------------------------------------------------------------------------


def packed(tree: ast.Module) -> list[str]:
    """List the tuple assignments that are not a swap, and the lines with two statements."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.List):
            values = sorted(map(ast.unparse, node.value.elts))
            sides = [t.elts for t in node.targets if isinstance(t, ast.Tuple | ast.List)]
            if any(sorted(map(ast.unparse, side)) != values for side in sides):
                found.append(ast.unparse(node))
    return found + crowded(tree)


def crowded(tree: ast.Module) -> list[str]:
    """List the statements that begin on another's line; a body of `...` may."""
    first: dict[int, ast.stmt] = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            other = first.setdefault(node.lineno, node)
            if other is not node and ast.unparse(node) != "...":
                found.append(ast.unparse(node))
    return found


@each_module
def test_there_is_one_statement_a_line(name: str) -> None:
    assert packed(parse(MODULES[name])) == []


def test_packed_statements_are_seen() -> None:
    code = """
a, b = x, y
a, b = b, a
x[0], x[1] = x[1], x[0]
a, b = pair
self.a, self.b = a, (b, c)
low, high = high, low + high
a, b = (x, y) if z else pair
A, B = range(2)
def f(): ...
"""
    assert packed(ast.parse(code)) == [
        "a, b = (x, y)",
        "self.a, self.b = (a, (b, c))",
        "low, high = (high, low + high)",
    ]
    assert packed(ast.parse("a = 1; b = 2\nif a: b = 3")) == ["b = 2", "b = 3"]


# --- columns --------------------------------------------------------------------------------------


def too_wide(text: str) -> list[str]:
    """List the lines over 100 columns; in markdown, tables, links and formulas may be wider."""
    found = []
    for cell in re.split(r"^(?=# %%)", text, flags=re.MULTILINE):
        markdown = "[markdown]" in cell.partition("\n")[0]
        for line in cell.splitlines():
            unbroken = re.search(r"^(# )?\||\]\(|https?://|\$", line)
            if len(line) > COLUMNS and not (markdown and unbroken):
                found.append(line)
    return found


@each_module
def test_lines_have_at_most_100_columns(name: str) -> None:
    assert too_wide(MODULES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_pages_are_wrapped_too(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert too_wide(f"# %% [markdown]\n{page}") == []


def test_a_wide_line_is_seen() -> None:
    wide = "word " * 20 + "."
    table = f"# | {wide}"
    link = f"# [word]({wide})"
    formula = f"# $ x {wide} $"
    assert too_wide(f"# {wide}\nx = 1") == [f"# {wide}"]
    assert too_wide(f"# %% [markdown]\n# {wide}\n{table}\n{link}\n{formula}\n") == [f"# {wide}"]
    assert too_wide(f"# %%\n{table}\n") == [table]
    assert too_wide("x" * 100) == []
