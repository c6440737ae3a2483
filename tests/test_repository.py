"""What must hold for pairs, notebooks, code and the files around them.

Each rule is a function, and is also tried on something that breaks it.
"""

import ast
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from jupytext.config import load_jupytext_configuration_file
from nbformat import NotebookNode
from test_layout import (
    FORMATS,
    MODULES,
    PYPROJECT,
    ROOT,
    dotted,
    each_module,
    pairs,
    parse,
    prefixes,
    unit,
)

PROSE_WORDS = 120
CONDA_NAMES = {"torch": "pytorch"}

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


# --- one source, two forms ------------------------------------------------------------------------


def test_every_notebook_is_a_chapter() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["00_introduction", *pairs(FORMATS)]


def test_no_notebook_begins_anothers_name() -> None:
    names = [path.stem for path in NOTEBOOKS]
    assert prefixes(names, names) == []


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


# --- notebooks ------------------------------------------------------------------------------------


def blemishes(notebook: NotebookNode) -> list[str]:
    """List what a stored notebook should not have, or lacks."""
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    found = [] if kernel == "python3" else ["no kernelspec python3"]
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
    timed = {"execution": {"iopub.execute_input": "2026-01-01"}}
    cell = nbformat.v4.new_code_cell("1 / 0", metadata=timed)
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
    cells = nbformat.read(path, as_version=4).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert [text for text in prose if words(text) > PROSE_WORDS] == []


def test_only_prose_is_counted() -> None:
    code = "```python\nsome code here\n```"
    others = "$$ a + b $$\n| a | table |"
    assert words(f"two words\n{code}\n{others}\n<b>one</b> + [link](target)") == 4
    assert words("word " * 121) == 121


# --- the code -------------------------------------------------------------------------------------


def unsafe(tree: ast.AST) -> list[str]:
    """List what would run code from a file or from text."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    calls = {"torch.load", "torch.hub.load", "torch.jit.load", "np.load", "numpy.load"}
    calls |= {"eval", "exec", "__import__"}
    called = [dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [name for name in called if name in calls]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in modules]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name in calls or name.split(".")[0] in modules]
    return found


RUNS_TEXT = {"course.stubs": ["exec"]}
"""Modules that run text: `borrow` runs that of the package's own chapters."""


@each_module
def test_nothing_unpickles(name: str) -> None:
    assert unsafe(parse(MODULES[name])) == RUNS_TEXT.get(name, [])


def test_unpickling_is_seen() -> None:
    code = """
import pickle
from dill import loads
from torch import load
torch.load(path)
eval(text)
model.eval()
"""
    found = sorted(unsafe(ast.parse(code)))
    assert found == ["dill.loads", "eval", "pickle", "torch.load", "torch.load"]


# For a single position a rearrange takes longer than the operator it calls, and the zoo is wrong on
# purpose.
RESHAPING = {"cpu", "fast_decoding", "checks", "zoo"}


def reshaped(tree: ast.AST) -> list[str]:
    """List the calls that move or split axes without naming them.

    Allowed are `view(torch.int16)`, another dtype of the same bits, and `reshape(x.shape)`.
    """
    nodes = ast.walk(tree)
    calls = [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    moves = [n for n in calls if n.func.attr in {"view", "reshape", "permute", "transpose"}]
    kept = re.compile(r".*\.(view\(torch\.\w+|(view|reshape)\([\w.]+\.shape)\)", re.DOTALL)
    return [text for text in map(ast.unparse, moves) if not kept.fullmatch(text)]


@each_module
def test_axes_are_moved_by_name(name: str) -> None:
    if unit(name) not in RESHAPING:
        assert reshaped(parse(MODULES[name])) == []


def test_a_move_without_names_is_seen() -> None:
    code = """
x.view(2, -1)
x.view(torch.int16)
x.reshape(y.shape)
x.reshape(2, x.shape[0])
torch.permute(x, (1, 0))
rearrange(x, "a b -> b a")
"""
    found = reshaped(ast.parse(code))
    assert found == ["x.view(2, -1)", "x.reshape(2, x.shape[0])", "torch.permute(x, (1, 0))"]


def axes(tree: ast.AST) -> set[str]:
    """Collect the axis names of the annotations: b, t and d of `Float[Tensor, "b t d"]`."""
    slices = [node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    found = set()
    for elements in [s.elts for s in slices if isinstance(s, ast.Tuple) and len(s.elts) == 2]:
        kind, shape = elements
        text = shape.value if isinstance(shape, ast.Constant) else None
        if dotted(kind).split(".")[-1] == "Tensor" and isinstance(text, str):
            found.update(re.findall(r"[A-Za-z]\w*", text))
    return found


def strangers(names: set[str], glossary: dict[str, str]) -> set[str]:
    """Return the axes that the glossary does not explain."""
    return names - set(glossary)


@each_module
def test_axes_are_in_the_glossary(name: str) -> None:
    from transformer import AXES

    assert strangers(axes(parse(MODULES[name])), AXES) == set()


def test_an_unknown_axis_is_seen() -> None:
    takes = 'Float[Tensor, "... #q k d_v 2"]'
    gives = 'Bool[torch.Tensor, "b t-1 z"] | tuple[Tensor, ...]'
    names = axes(ast.parse(f"def f(x: {takes}) -> {gives}: ..."))
    assert names == {"q", "k", "d_v", "b", "t", "z"}
    assert strangers(names, dict.fromkeys(["b", "d_v", "k", "q", "t"], "")) == {"z"}


def test_a_wrong_shape_is_caught_in_the_tests(types_are_checked: bool) -> None:
    if not types_are_checked:
        pytest.skip("run with --jaxtyping-packages=transformer,beartype.beartype")
    import torch
    from jaxtyping import TypeCheckError

    from transformer.attention import attention_weights

    q = torch.zeros(2, 3, 4)
    k = torch.zeros(2, 5, 6)
    with pytest.raises(TypeCheckError):
        attention_weights(q, k)


# --- the files around it --------------------------------------------------------------------------


def requirements() -> set[str]:
    """Return what the package asks for with its extras course and dev, in conda-forge's names."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["course"], *extras["dev"]]
    lines = [line for line in lines if "python_version <" not in line]  # conda has a newer Python
    parts = [re.match(r"([\w-]+)(?:\[.*\])?(.*)", line.replace(" ", "")).groups() for line in lines]
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
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert [path.name for path in NOTEBOOKS if not any(path.name in row for row in rows)] == []


def test_every_command_that_is_told_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    told = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "INSTRUCTORS.md", ".ci/run")]
    for path in [*told, *(ROOT / ".github").rglob("*.yml")]:
        text = path.read_text(encoding="utf-8")
        commands = set(re.findall(r"(?:`|^|run: |exec )make ([a-z-]+)", text, re.MULTILINE))
        assert commands <= targets, path.name
