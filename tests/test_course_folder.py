"""A learner's folder: what is written, and that no update or sync loses work."""

import importlib
import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from learners import write

from transformer.course import forms, home, workbook
from transformer.course.exercises import all_exercises
from transformer.course.folder import STATE, Folder, find
from transformer.course.lessons import available, lesson
from transformer.course.stub_text import emptied, renamed, with_imports
from transformer.course.syncing import sync, sync_all
from transformer.course.workbook import start

ATTENTION = lesson(3)


def actions(path: Path) -> dict[int, str]:
    """Start again, and return what was done for each chapter."""
    return {one.lesson.number: one.action for one in start(path)[1]}


def change_notebook(path: Path, old: str, new: str) -> None:
    """Change the source of a notebook's cells, as a learner does in Jupyter."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, path)


@pytest.fixture
def newer_course(monkeypatch: pytest.MonkeyPatch) -> None:
    """The course as a later version has it: chapter 3, to look at no other, says something else."""
    real = workbook.chapter
    monkeypatch.setattr(workbook, "available", lambda: [ATTENTION])

    def newer(folder, one, lessons):
        notebook = real(folder, one, lessons)
        if one.number == 3:
            notebook.cells[-1].source += "\n# a new version"
        return notebook

    monkeypatch.setattr(workbook, "chapter", newer)


# --- start ----------------------------------------------------------------------------------------


def test_every_chapter_is_written_in_two_forms_without_outputs(started: Path) -> None:
    folder = Folder.open(started)
    assert [one.number for one in folder.lessons()] == [one.number for one in available()]
    for one in folder.lessons():
        notebook = nbformat.read(folder.notebook(one), as_version=4)
        nbformat.validate(notebook)
        text = folder.module(one).read_text(encoding="utf-8")
        assert forms.to_module(notebook) == text
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not [cell for cell in code if cell.outputs or cell.execution_count]
        assert 'use_folder("mine")' in code[0].source
        used = [line for line in text.splitlines() if line.startswith("from transformer.")]
        assert not [line for line in used if line.split()[1].split(".")[1] == one.module]


def test_blocks_are_empty_and_every_other_exercise_has_a_cell(started: Path) -> None:
    folder = Folder.open(started)
    for one in all_exercises():
        text = folder.module(lesson(one.chapter)).read_text(encoding="utf-8")
        assert f"Exercise {one.id} · {one.title}" in text
        assert one.name.rpartition(".")[2] in text
    text = (started / "attention.py").read_text(encoding="utf-8")
    assert "@borrow\ndef attention_weights(" in text
    assert "masked_fill(~mask" not in text, "the solution is not in the folder"
    assert "from mine.attention import attention" in (started / "multi_head.py").read_text("utf-8")


def test_starting_again_changes_nothing(mine: Path) -> None:
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    assert set(actions(mine).values()) == {"kept"}
    assert {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == before


def test_an_update_reaches_what_was_not_changed(mine: Path, newer_course) -> None:
    assert actions(mine)[3] == "updated"
    assert "a new version" in (mine / "attention.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["notebook", "module", "both"])
def test_an_update_never_overwrites_and_arrives_beside(mine: Path, form: str, newer_course) -> None:
    notebook = mine / "notebooks" / "03_attention.ipynb"
    module = mine / "attention.py"
    if form != "module":
        change_notebook(notebook, "answer_3_3 = ...", "answer_3_3 = [1]")
    if form != "notebook":
        write(mine, "3.3", "answer_3_3 = [1]")
    before = notebook.read_bytes(), module.read_bytes()
    assert actions(mine) == {3: "beside"}
    assert (notebook.read_bytes(), module.read_bytes()) == before
    beside = notebook.with_name("03_attention.new.ipynb")
    assert "a new version" in beside.read_text(encoding="utf-8")
    beside.unlink()
    assert actions(mine)[3] == "kept", "a new version is offered once"


def test_running_a_notebook_does_not_count_as_a_change(mine: Path, newer_course) -> None:
    path = mine / "notebooks" / "03_attention.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="1")]
    nbformat.write(notebook, path)
    assert actions(mine)[3] == "updated"


def test_a_damaged_notebook_is_kept(mine: Path, newer_course) -> None:
    path = mine / "notebooks" / "03_attention.ipynb"
    path.write_text("{", encoding="utf-8")
    assert actions(mine)[3] == "beside"
    assert path.read_text(encoding="utf-8") == "{"


def test_what_is_missing_is_restored_from_the_other_form(mine: Path) -> None:
    write(mine, "3.3", "answer_3_3 = [1]")
    notebook = mine / "notebooks" / "03_attention.ipynb"
    notebook.unlink()
    (mine / "encoder.py").unlink()
    done = actions(mine)
    assert done[3] == done[7] == "restored"
    assert "answer_3_3 = [1]" in notebook.read_text(encoding="utf-8")
    assert (mine / "encoder.py").stat().st_size > 1000


@pytest.mark.parametrize("name", ["3x", "my-own", "class", "transformer", "json", "torch"])
def test_a_name_that_cannot_be_imported_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="take a name such as mine"):
        start(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="not a folder of the course"):
        start(tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"]


def test_the_seed_chooses_the_bugs_and_stays(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(workbook, "available", lambda: [ATTENTION])
    texts = set()
    for seed in range(12):
        folder, _ = start(tmp_path / f"mine_{seed}", seed)
        texts.add(folder.module(ATTENTION).read_text("utf-8").partition("Exercise 3.4")[2][:400])
    assert len(texts) >= 3
    folder, done = start(tmp_path / "mine_11", 5)
    assert folder.state.seed == 11 and done[0].action == "kept"


def test_an_installed_package_has_all_but_the_introduction_and_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.course import lessons

    monkeypatch.setattr(lessons, "REPOSITORY", tmp_path / "site-packages")
    numbers = [one.number for one in available()]
    assert numbers[:2] == [1, 2]
    monkeypatch.setattr(workbook, "available", lambda: [ATTENTION])
    folder, _ = start(tmp_path / "mine")
    text = folder.module(ATTENTION).read_text(encoding="utf-8")
    assert "../figures/" not in text and "# 3 · Attention" in text
    assert not (tmp_path / "mine" / "figures").exists()


def test_of_two_processes_each_keeps_what_the_other_has_written(mine: Path) -> None:
    first, second = Folder.open(mine), Folder.open(mine)
    first.state.hints["3.1"] = 2
    first.state.passed = ["3.3"]
    first.save()
    second.state.hints["6.1"] = 1
    second.state.passed = ["6.1"]
    second.save()
    found = Folder.open(mine).state
    assert found.hints == {"3.1": 2, "6.1": 1}
    assert found.passed == ["3.3", "6.1"]
    assert second.state == found


def test_a_start_that_was_interrupted_is_completed(tmp_path: Path, monkeypatch) -> None:
    lessons = [ATTENTION, lesson(7)]
    monkeypatch.setattr(workbook, "available", lambda: lessons)
    real = workbook.write_pair

    def interrupted(folder, one, *given):
        if one.number == 7:
            raise KeyboardInterrupt
        real(folder, one, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(workbook, "write_pair", interrupted)
        start(tmp_path / "mine", 4)
    folder, done = start(tmp_path / "mine")
    assert [one.action for one in done] == ["new", "new"]
    assert folder.state.seed == 4 and folder.lessons() == lessons
    assert list((tmp_path / "mine").rglob("*.new.ipynb")) == []


# --- find -----------------------------------------------------------------------------------------


def test_the_folder_is_found_from_inside_and_beside(mine: Path, tmp_path: Path) -> None:
    for place in (mine, mine / "notebooks", tmp_path):
        assert find(start=place).path == mine
    assert find(mine).path == mine


def test_none_and_several_folders_are_said(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="no folder of the course here"):
        find(start=tmp_path / "other")
    (tmp_path / "other" / STATE).write_text(json.dumps({"package": "other"}))
    with pytest.raises(ValueError, match=r"several folders \(mine, other\)"):
        find(start=tmp_path)
    for text in ("{", "[]", "{}", '{"package": "../mine"}', '{"package": "a", "seed": "b"}'):
        (tmp_path / "other" / STATE).write_text(text)
        with pytest.raises(ValueError, match="damaged"):
            find(tmp_path / "other")


# --- the two forms --------------------------------------------------------------------------------


def older(path: Path) -> None:
    """Let a file have been saved a minute before."""
    before = path.stat().st_mtime - 60
    os.utime(path, (before, before))


@pytest.mark.parametrize("changed", ["notebook", "module"])
def test_the_form_that_was_changed_wins_whatever_the_times(mine: Path, changed: str) -> None:
    folder = Folder.open(mine)
    notebook = folder.notebook(ATTENTION)
    if changed == "notebook":
        change_notebook(notebook, "answer_3_3 = ...", "answer_3_3 = [1]")
        older(notebook)
    else:
        write(mine, "3.3", "answer_3_3 = [1]")
        older(folder.module(ATTENTION))
    assert sync(folder, ATTENTION) == ""
    assert "answer_3_3 = [1]" in folder.module(ATTENTION).read_text(encoding="utf-8")
    assert "answer_3_3 = [1]" in notebook.read_text(encoding="utf-8")
    assert list(mine.glob("*.old")) == []


@pytest.mark.parametrize("newer", ["notebook", "module"])
def test_if_both_were_changed_the_newer_wins_and_the_other_is_kept(mine: Path, newer: str) -> None:
    folder = Folder.open(mine)
    notebook = folder.notebook(ATTENTION)
    change_notebook(notebook, "answer_3_3 = ...", 'answer_3_3 = "notebook"')
    write(mine, "3.3", 'answer_3_3 = "module"')
    older(folder.module(ATTENTION) if newer == "notebook" else notebook)
    assert sync(folder, ATTENTION) == ""
    text = folder.module(ATTENTION).read_text(encoding="utf-8")
    assert f'answer_3_3 = "{newer}"' in text
    assert forms.to_module(forms.read_notebook(notebook)) == text
    (kept,) = mine.glob("*.old")
    other = {"notebook": "module", "module": "notebook"}[newer]
    assert f'answer_3_3 = "{other}"' in kept.read_text(encoding="utf-8")


def test_outputs_of_cells_that_stay_the_same_are_kept(mine: Path) -> None:
    path = mine / "notebooks" / "03_attention.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="kept")]
    nbformat.write(notebook, path)
    write(mine, "3.3", "answer_3_3 = [1]")
    sync(Folder.open(mine), ATTENTION)
    assert "kept" in path.read_text(encoding="utf-8")


def test_missing_and_damaged_notebooks_are_named(mine: Path) -> None:
    (mine / "notebooks" / "03_attention.ipynb").unlink()
    (mine / "notebooks" / "07_encoder.ipynb").write_text("{", encoding="utf-8")
    (mine / "decoder.py").write_bytes("# è".encode("latin1"))
    found = sync_all(Folder.open(mine))
    assert found.keys() == {"attention", "encoder", "decoder"}
    assert found["decoder"] == "decoder.py is not UTF-8"
    assert "03_attention.ipynb is missing: `course start mine` restores it" in found["attention"]
    assert "07_encoder.ipynb is damaged or not a notebook" in found["encoder"]


def test_a_notebook_makes_its_package_importable(mine: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(mine / "notebooks")
    notebook = mine / "notebooks" / "03_attention.ipynb"
    change_notebook(notebook, "answer_3_3 = ...", "answer_3_3 = [1]")
    before = notebook.read_bytes()
    try:
        home.use_folder("mine")
        attention = importlib.import_module("mine.attention")
        assert attention.answer_3_3 == [1], "the notebook counts, even if Jupyter did not pair it"
        assert notebook.read_bytes() == before
    finally:
        home.forget("mine")
    with pytest.raises(ValueError, match="no folder yours"):
        home.use_folder("yours")


def test_what_is_borrowed_in_a_later_chapter_calls_what_was_written_before(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The layer of chapter 4 is borrowed, and calls the attention of chapter 3."""
    old = "    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)\n"
    path = mine / "attention.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, f'    print("mine")\n{old}'), encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(mine)
    try:
        home.use_folder("mine")
        heads = importlib.import_module("mine.multi_head").MultiHeadAttention(4, 2)
        assert heads.__class__.__module__ == "mine.multi_head"
        heads(torch.ones(1, 2, 4), torch.ones(1, 2, 4))
    finally:
        home.forget("mine")
    assert capsys.readouterr().out == "mine\n"


# --- text -----------------------------------------------------------------------------------------


def test_bodies_are_removed_and_what_is_kept_stays() -> None:
    text = '''
@decorated
class Block(nn.Module):
    """Say."""

    size: int = 3

    def __init__(self, n):
        # a reason
        super().__init__()
        self.n = n

    @property
    def given(self):
        return 1

    def forward(
        self,
        x,
    ):
        """Return.

        More.
        """
        y = x
        return y
'''
    found = emptied(text, "Block", keep=("given",))
    assert "@borrow\n@decorated\nclass Block" in found and "return 1" in found
    assert "super" not in found and "a reason" not in found and "y = x" not in found
    assert found.count("        ...") == 2 and "More." in found and "size: int = 3" in found
    method = emptied(text, "Block.forward")
    assert "    @borrow\n    def forward(" in method and "self.n = n" in method
    with pytest.raises(ValueError, match="does not define Other"):
        emptied(text, "Other")


def test_imports_of_chapters_become_the_learners() -> None:
    text = "from transformer.attention import attention\nfrom transformer.checks import check_x"
    assert renamed(text, "mine", ["attention"]) == text.replace("transformer.att", "mine.att")
    found = with_imports("import math\n\nfrom einops import einsum\n")
    assert found.splitlines()[2] == "import torch"
    assert found.endswith("from transformer.course import borrow")
