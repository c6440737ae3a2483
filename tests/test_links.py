"""Colab and Binder: each chapter has the same links and the same guarded cell, from one script."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat import NotebookNode
from test_repository import NOTEBOOKS, PYPROJECT, ROOT, each_notebook

from transformer.course.chapters import chapter
from transformer.course.folder import Folder, State
from transformer.course.lessons import LESSONS

sys.path.insert(0, str(ROOT / "notebooks"))

import links

ADDRESS = links.repository()


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def sources(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells]


@each_notebook
def test_a_chapter_has_its_links_and_its_cell(path: Path) -> None:
    notebook = read(path)
    before = nbformat.writes(notebook)
    assert nbformat.writes(links.with_links(notebook, path.stem, ADDRESS)) == before, "make links"
    assert "\n".join(sources(notebook)).count("colab.research") == 1
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].metadata["tags"] == ["active-ipynb", "colab"], "it comes before every import"
    assert [cell.source for cell in code].count(links.install_cell(ADDRESS)) == 1
    assert code[0].outputs == []


@each_notebook
def test_a_link_opens_the_chapter_itself(path: Path) -> None:
    line = links.links(path.stem, ADDRESS)
    targets = re.findall(r"\((https://[^)]*)\)", line)
    assert [target.endswith(f"notebooks/{path.name}") for target in targets] == [True, True]


def test_a_changed_cell_a_lost_line_and_another_address_are_seen() -> None:
    notebook = read(NOTEBOOKS[3])
    before = sources(notebook)
    other = links.with_links(notebook, NOTEBOOKS[3].stem, "https://github.com/someone/else")
    changed = [(a, b) for a, b in zip(before, sources(other), strict=True) if a != b]
    assert len(changed) == 2 and all("someone/else" in b for _, b in changed)
    again = links.with_links(other, NOTEBOOKS[3].stem, ADDRESS)
    assert sources(again) == before
    cells = [cell for cell in again.cells if cell.get("id") != links.TAG]
    bare = nbformat.v4.new_notebook(cells=cells)
    bare.cells[1].source = links.LINKS.sub("", bare.cells[1].source).replace("\n\n\n\n", "\n\n")
    assert sources(bare) != before
    assert sources(links.with_links(bare, NOTEBOOKS[3].stem, ADDRESS)) == before


def installed_by(monkeypatch: pytest.MonkeyPatch, missing: bool) -> list[str]:
    """Run the cell, and return what it installs where the package is missing, or is there."""
    from IPython.core.inputtransformer2 import TransformerManager

    asked = []

    class Shell:
        def run_line_magic(self, name: str, line: str, *_: object) -> None:
            asked.append(f"{name} {line}")

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if missing and name == "transformer" else real(name, *rest),
    )
    code = TransformerManager().transform_cell(links.install_cell(ADDRESS))
    exec(compile(code, "cell", "exec"), {"get_ipython": Shell})
    return asked


def test_the_cell_installs_the_package_only_where_it_is_missing(monkeypatch) -> None:
    name = PYPROJECT["project"]["name"]
    assert installed_by(monkeypatch, missing=False) == []
    assert installed_by(monkeypatch, missing=True) == [f'pip install -q "{name} @ git+{ADDRESS}"']


@each_notebook
def test_no_module_runs_the_cell(path: Path) -> None:
    module = ROOT / "transformer" / f"{path.stem[3:]}.py"
    if module.exists():
        text = module.read_text(encoding="utf-8")
        assert '# %% tags=["active-ipynb", "colab"]\n# # For Colab' in text
        assert "find_spec" not in ast.dump(ast.parse(text))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.notebook)
def test_a_learners_chapter_has_neither(lesson, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "mine", State("mine"))
    text = "\n".join(sources(chapter(folder, lesson, LESSONS)))
    assert "colab" not in text.lower() and "Nothing installed" not in text
    assert "\n\n\n" not in text.split("**What you need**")[1].split("##")[0]


def test_every_file_names_the_same_address() -> None:
    urls = PYPROJECT["project"]["urls"]
    assert urls["Source"] == ADDRESS
    assert urls["Issues"] == f"{ADDRESS}/issues"
    assert urls["Changelog"] == f"{ADDRESS}/blob/{links.BRANCH}/CHANGELOG.md"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["repository-code"] == ADDRESS


def test_another_address_is_written_everywhere(tmp_path: Path, monkeypatch) -> None:
    for name in ("pyproject.toml", "CITATION.cff"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(links, "ROOT", tmp_path)
    links.move("https://github.com/someone/else")
    assert links.repository() == "https://github.com/someone/else"
    for name in ("pyproject.toml", "CITATION.cff"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert ADDRESS not in text and "https://github.com/someone/else" in text
    with pytest.raises(SystemExit, match="must be"):
        links.move("https://example.com/course")
