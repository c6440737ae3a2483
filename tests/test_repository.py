"""What must hold for the whole repository. Each rule is a function, and is also tried on something that breaks it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from jupytext.config import load_jupytext_configuration_file
from nbformat import NotebookNode

try:
    import tomllib
except ImportError:  # Python 3.10: pytest brings tomli
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FLOORS: dict[str, int] = PYPROJECT["tool"]["transformer"]["floors"]
FORMATS: list[str] = PYPROJECT["tool"]["jupytext"]["formats"]

UNPAIRED = {"__init__", "__main__", "checks", "plotting", "grammar", "export"}
NO_FLOOR = {"__init__", "__main__", "checks", "plotting"}
FUNCTION_LINES, CLASS_LINES, PROSE_WORDS = 25, 40, 120
CONDA_NAMES = {"torch": "pytorch"}

MODULES = sorted((ROOT / "transformer").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def pairs(formats: list[str]) -> dict[str, str]:
    """Map notebook names to module names, in the order of the chapters."""
    pattern = re.compile(r"notebooks//(\w+)/ipynb,transformer//(\w+)/py:percent")
    return dict(pattern.fullmatch(line).groups() for line in formats)


# --- floors and chapters ---------------------------------------------------------------------------------------------


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the package's modules that are imported under a node, at whatever depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["transformer" if node.level else "", node.module]))
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "transformer" else [base]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("transformer."))


def climbs(module: str, tree: ast.AST, floors: dict[str, int]) -> list[str]:
    """List the imports of a module that are not from a lower floor."""
    allowed = {name for name, floor in floors.items() if floor < floors[module]}
    return [name for name in imported_modules(tree) if name not in allowed | {"checks", "plotting"}]


def eager_helpers(tree: ast.Module) -> list[str]:
    """List the imports of checks or plotting that run when the module is imported."""
    deferred = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]
    late = {id(node) for function in deferred for node in ast.walk(function)}
    eager = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) and id(n) not in late]
    return [name for node in eager for name in imported_modules(node) if name in {"checks", "plotting"}]


@each_module
def test_modules_import_only_from_lower_floors(path: Path) -> None:
    if path.stem not in NO_FLOOR:
        assert climbs(path.stem, parse(path), FLOORS) == []
        assert eager_helpers(parse(path)) == []


def test_an_import_from_the_same_or_a_higher_floor_is_seen() -> None:
    floors = {"low": 1, "beside": 1, "high": 2}
    for line in ("from transformer.high import x", "import transformer.high", "from transformer import high"):
        assert climbs("low", ast.parse(line), floors) == ["high"]
        assert climbs("high", ast.parse(line.replace("high", "low")), floors) == []
    assert climbs("low", ast.parse("def f():\n    from .beside import x"), floors) == ["beside"]
    assert eager_helpers(ast.parse("if True:\n    from transformer import plotting")) == ["plotting"]
    assert eager_helpers(ast.parse("def f():\n    from transformer import plotting")) == []


def test_every_module_is_a_chapter_or_a_listed_helper() -> None:
    chapters = set(pairs(FORMATS).values())
    assert {path.stem for path in MODULES} - UNPAIRED == chapters
    assert set(FLOORS) == chapters | (UNPAIRED - NO_FLOOR)


def test_every_notebook_is_a_chapter() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["00_introduction", *pairs(FORMATS)]


def prefixes(names: list[str]) -> list[tuple[str, str]]:
    """List the names that begin another name: Jupytext would take one for the other."""
    return [(a, b) for a in names for b in names if a != b and b.startswith(a)]


def test_no_name_begins_another() -> None:
    assert prefixes([path.stem for path in MODULES]) == []
    assert prefixes([path.stem for path in NOTEBOOKS]) == []
    assert prefixes(["attention", "attention_x", "data"]) == [("attention", "attention_x")]


# --- one source, two forms -------------------------------------------------------------------------------------------


def as_module(notebook: NotebookNode) -> str:
    """Return the text that the notebook has as a module."""
    config = load_jupytext_configuration_file(str(ROOT / "pyproject.toml"))
    return jupytext.writes(notebook, "py:percent", config=config)


@pytest.mark.parametrize(("name", "module"), pairs(FORMATS).items())
def test_a_notebook_equals_its_module(name: str, module: str) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    text = (ROOT / "transformer" / f"{module}.py").read_text(encoding="utf-8")
    assert as_module(notebook) == text, "the pair differs: see what is right, then run make sync"


def test_a_changed_cell_is_seen() -> None:
    text = '# %% [markdown]\nr"""\n# 1 · A title\n"""\n\n# %% tags=["active-ipynb"]\n# 1 + 1\n'
    notebook = jupytext.reads(text, "py:percent")
    assert as_module(notebook) == text
    notebook.cells[-1].source = "1 + 2"
    assert as_module(notebook) != text


# --- notebooks -------------------------------------------------------------------------------------------------------


def blemishes(notebook: NotebookNode) -> list[str]:
    """List what a stored notebook should not have, or lacks."""
    found = [] if notebook.metadata.get("kernelspec", {}).get("name") == "python3" else ["no kernelspec python3"]
    for index, cell in enumerate(notebook.cells):
        if "execution" in cell.metadata:
            found.append(f"cell {index}: execution timestamps")
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            found.append(f"cell {index}: never run")
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            found.append(f"cell {index}: an error")
        if any(str(place) in str(cell.get("outputs", [])) for place in (ROOT, Path.home())):
            found.append(f"cell {index}: a path of this machine")
    return found


@each_notebook
def test_notebooks_are_stored_executed_and_clean(path: Path) -> None:
    assert blemishes(nbformat.read(path, as_version=4)) == []


def test_blemishes_are_seen() -> None:
    cell = nbformat.v4.new_code_cell("1 / 0", metadata={"execution": {"iopub.execute_input": "2026-01-01"}})
    cell.outputs = [
        nbformat.v4.new_output("error", ename="ZeroDivisionError", evalue="", traceback=[]),
        nbformat.v4.new_output("stream", text=str(ROOT)),
    ]
    assert len(blemishes(nbformat.v4.new_notebook(cells=[cell]))) == 5
    done = nbformat.v4.new_code_cell("1", execution_count=1)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    assert blemishes(nbformat.v4.new_notebook(cells=[done], metadata=kernel)) == []


def words(markdown: str) -> int:
    """Count the words of prose: not code, equations, tables or HTML tags."""
    for other in (r"```.*?```", r"\$\$.*?\$\$", r"^ *\|.*$", r"<[^>]*>", r"\]\([^)]*\)"):
        markdown = re.sub(other, " ", markdown, flags=re.DOTALL if "?" in other else re.MULTILINE)
    return sum(any(c.isalpha() for c in word) for word in markdown.split())


@each_notebook
def test_prose_cells_are_short(path: Path) -> None:
    prose = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert [text for text in prose if words(text) > PROSE_WORDS] == []


def test_only_prose_is_counted() -> None:
    code, equation, table = "```python\nsome code here\n```", "$$ a + b $$", "| a | table |"
    assert words(f"two words\n{code}\n{equation}\n{table}\n<b>one</b> + [link](target)") == 4
    assert words("word " * 121) == 121


# --- the code --------------------------------------------------------------------------------------------------------


def length(node: ast.AST) -> int:
    """Count the lines of a definition without its docstrings."""
    docstrings = 0
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            docstrings += inner.body[0].end_lineno - inner.body[0].lineno + 1
    return node.end_lineno - node.lineno + 1 - docstrings


def too_long(tree: ast.Module) -> list[str]:
    """List the functions and classes that do not fit a cell."""
    limits = {ast.FunctionDef: FUNCTION_LINES, ast.AsyncFunctionDef: FUNCTION_LINES, ast.ClassDef: CLASS_LINES}
    nodes = [node for node in ast.walk(tree) if type(node) in limits]
    return [f"{node.name}: {length(node)} lines" for node in nodes if length(node) > limits[type(node)]]


@each_module
def test_definitions_are_short(path: Path) -> None:
    assert too_long(parse(path)) == []


def test_a_long_definition_is_seen() -> None:
    def function(lines: int) -> str:
        return 'def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * (lines - 1)

    assert too_long(ast.parse(function(25))) == []
    assert too_long(ast.parse(function(26))) == ["f: 26 lines"]
    assert too_long(ast.parse("class C:\n" + "    x = 1\n" * 40)) == ["C: 41 lines"]


def dotted(node: ast.AST) -> str:
    """Return a name such as `torch.load`; what is not a name is empty."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def unsafe(tree: ast.AST) -> list[str]:
    """List what would run code from a file or from text."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    calls = {"torch.load", "torch.hub.load", "torch.jit.load", "np.load", "numpy.load", "eval", "exec", "__import__"}
    found = [dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and dotted(node.func) in calls]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in modules]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name in calls or name.split(".")[0] in modules]
    return found


@each_module
def test_nothing_unpickles(path: Path) -> None:
    assert unsafe(parse(path)) == []


def test_unpickling_is_seen() -> None:
    code = "import pickle\nfrom dill import loads\nfrom torch import load\ntorch.load(path)\neval(text)\nmodel.eval()"
    assert sorted(unsafe(ast.parse(code))) == ["dill.loads", "eval", "pickle", "torch.load", "torch.load"]


def reshaped(tree: ast.AST) -> list[str]:
    """List the calls that move or split axes without naming them; `view(torch.int16)` reads bits anew, and may."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    moves = [node for node in calls if node.func.attr in {"view", "permute", "transpose"}]
    return [text for text in map(ast.unparse, moves) if ".view(torch." not in text]


@each_module
def test_axes_are_moved_by_name(path: Path) -> None:
    tree = parse(path)
    if path.stem == "fast":  # at a single position a rearrange takes longer than the operator, and chapter 15 says so
        allowed = ("PackedLayer", "PackedDecoderLayer", "Fold", "PackedEncoder", "PackedStep")
        tree.body = [node for node in tree.body if getattr(node, "name", "") not in allowed]
    assert reshaped(tree) == []


def test_a_move_without_names_is_seen() -> None:
    assert reshaped(
        ast.parse("x.view(2, -1)\nx.view(torch.int16)\ntorch.permute(x, (1, 0))\nrearrange(x, 'a b -> b a')")
    ) == [
        "x.view(2, -1)",
        "torch.permute(x, (1, 0))",
    ]


def axes(tree: ast.AST) -> set[str]:
    """Collect the axis names of the jaxtyping annotations, such as the b, t and d of `Float[Tensor, "b t d"]`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and len(node.slice.elts) == 2:
            kind, shape = node.slice.elts
            if dotted(kind).split(".")[-1] == "Tensor" and isinstance(shape, ast.Constant):
                found.update(re.findall(r"[A-Za-z]\w*", shape.value))
    return found


def strangers(names: set[str], glossary: dict[str, str]) -> set[str]:
    """Return the axes that the glossary does not explain; d_v and d_model are sizes of its d."""
    return {name for name in names if name not in glossary and name.split("_")[0] not in glossary}


@each_module
def test_axes_are_in_the_glossary(path: Path) -> None:
    from transformer import AXES

    assert strangers(axes(parse(path)), AXES) == set()


def test_an_unknown_axis_is_seen() -> None:
    names = axes(ast.parse('def f(x: Float[Tensor, "... #q k d_v 2"]) -> Bool[torch.Tensor, "b t-1 z"] | None: ...'))
    assert names == {"q", "k", "d_v", "b", "t", "z"}
    assert strangers(names, dict.fromkeys("bdkqt", "")) == {"z"}


def test_a_wrong_shape_is_caught_in_the_tests(types_are_checked: bool) -> None:
    if not types_are_checked:
        pytest.skip("run with --jaxtyping-packages=transformer,beartype.beartype")
    import torch
    from jaxtyping import TypeCheckError

    from transformer.attention import attention_weights

    q, k = torch.zeros(2, 3, 4), torch.zeros(2, 5, 6)
    with pytest.raises(TypeCheckError):
        attention_weights(q, k)


# --- the files around it ---------------------------------------------------------------------------------------------


def requirements() -> set[str]:
    """Return what pyproject.toml asks for with the extras course and dev, under its names on conda-forge."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    parts = [
        re.match(r"([\w-]+)(.*)", line.replace(" ", "")).groups()
        for line in project["dependencies"] + extras["course"] + extras["dev"]
    ]
    return {CONDA_NAMES.get(name, name) + constraint for name, constraint in parts}


def test_the_conda_environment_agrees_with_pyproject() -> None:
    lines = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    plain = {line.replace(" ", "") for line in lines if isinstance(line, str)}
    python = next(line for line in plain if line.startswith("python="))
    assert plain - {python, "pip"} == requirements()
    assert [line["pip"] for line in lines if isinstance(line, dict)] == [["-e ."]]
    oldest = PYPROJECT["project"]["requires-python"].removeprefix(">=").split(".")
    assert [int(n) for n in python.removeprefix("python=").split(".")] >= [int(n) for n in oldest]


def test_the_readme_lists_every_chapter() -> None:
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert [path.name for path in NOTEBOOKS if not any(path.name in row for row in rows)] == []


def test_every_command_that_is_told_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    told = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci" / "run", *(ROOT / ".github").rglob("*.yml")]
    for path in told:
        text = path.read_text(encoding="utf-8")
        commands = set(re.findall(r"(?:`|^|run: |exec )make ([a-z-]+)", text, re.MULTILINE))
        assert commands <= targets, path.name
