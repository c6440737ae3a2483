"""A chapter for a learner: its blocks are empty, and its exercises have cells to be filled."""

import ast
import re
from collections.abc import Sequence

from nbformat import NotebookNode

from transformer.course import forms, stub_text
from transformer.course.exercise import Exercise, Predict, WriteBlock
from transformer.course.exercises import STARS, of_chapter
from transformer.course.folder import Folder
from transformer.course.lessons import Lesson, definition, has_figures

LISTED = "## Exercises\n"
COLAB = "colab"  # the tag of the cell that installs the package where a chapter is opened alone
LINKS = re.compile(r"^(# )?Nothing installed\?[^\n]*\n(#?\n)?", re.MULTILINE)


def chapter(folder: Folder, lesson: Lesson, lessons: Sequence[Lesson]) -> NotebookNode:
    """Return a chapter as it is written into a folder; `lessons` are all that are."""
    notebook = reference_notebook(lesson)
    exercises = of_chapter(lesson.number)
    modules = [other.module for other in lessons if other.number]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = stub_text.renamed(cell.source, folder.package, modules)
    blocks = [exercise for exercise in exercises if isinstance(exercise, WriteBlock)]
    if blocks:
        imports = library_cells(notebook)[0]
        imports.source = stub_text.with_imports(imports.source)
    for block in blocks:
        empty_block(notebook, block, folder)
    put_exercises(notebook, exercise_cells(folder, lesson))
    if lesson.module == "inference":
        notebook.cells += last_cells(folder.package)
    notebook.cells.insert(1, forms.code(opening(folder.package, lesson), forms.DEMO))
    return notebook


def reference_notebook(lesson: Lesson) -> NotebookNode:
    """Return the library's chapter as a notebook without outputs, and without links to Colab."""
    text = (
        lesson.path.read_text(encoding="utf-8")
        if lesson.number
        else forms.to_module(forms.read_notebook(lesson.path))
    )
    if not has_figures():
        text = re.sub(r"^(# )?!\[[^\n]*\]\(\.\./figures/[^\n]*\n", "", text, flags=re.MULTILINE)
    notebook = forms.to_notebook(LINKS.sub("", text))
    notebook.cells = [c for c in notebook.cells if COLAB not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code" and not lesson.number:
            cell.metadata["tags"] = forms.DEMO  # the introduction has experiments, no library
    return notebook


def opening(package: str, lesson: Lesson) -> str:
    """Return the cell that makes the learner's package importable."""
    about = "# There is nothing to write in this chapter: it has no module and no exercises.\n"
    if lesson.number:
        file = f"{package}/{lesson.module}.py"
        about = (
            f"# This notebook is {file}: save it, and later chapters use it.\n"
            "# A block that is empty under @borrow is the library's, until you have your own.\n"
        )
    return f'{about}from transformer.course import use_folder\n\nuse_folder("{package}")'


def library_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """List the cells that belong to the module."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if "active-ipynb" not in cell.metadata.get("tags", [])]


def empty_block(notebook: NotebookNode, block: WriteBlock, folder: Folder) -> None:
    """Empty a block in its cell, and put the task before it; ValueError if there is none."""
    for cell in library_cells(notebook):
        if definition(ast.parse(cell.source), block.target):
            cell.source = stub_text.emptied(cell.source, block.target, block.keep)
            place = notebook.cells.index(cell)
            notebook.cells[place:place] = task_cells(block, folder)
            return
    raise ValueError(f"exercise {block.id}: no library cell of the chapter defines {block.target}")


def task_cells(exercise: Exercise, folder: Folder) -> list[NotebookNode]:
    """Return the title and the task, each as a cell of prose."""
    title = (
        f"### Exercise {exercise.id} · {exercise.title}\n\n"
        f"*{exercise.kind} · {STARS[exercise.difficulty]} · {exercise.minutes} minutes · trains "
        f"{exercise.trains}*"
    )
    task = stub_text.task_text(exercise, folder.state.seed)
    return [forms.markdown(title), forms.markdown(task)]


def put_exercises(notebook: NotebookNode, cells: list[NotebookNode]) -> None:
    """Put the exercises where the library's chapter lists them, or at the end."""
    places = [n for n, cell in enumerate(notebook.cells) if cell.source.startswith(LISTED)]
    start = places[0] if places else len(notebook.cells)
    notebook.cells[start : start + len(places)] = cells


def exercise_cells(folder: Folder, lesson: Lesson) -> list[NotebookNode]:
    """Return the section of the exercises that are not blocks."""
    exercises = of_chapter(lesson.number)
    cells = [forms.markdown(instructions(lesson))] if exercises else []
    for exercise in exercises:
        if not isinstance(exercise, WriteBlock):
            cells += task_cells(exercise, folder)
            cells.append(forms.code(stub_text.starter(exercise, folder.state.seed)))
        if isinstance(exercise, Predict):
            cells.append(forms.code(stub_text.experiment(exercise), forms.DEMO))
    return cells


def last_cells(package: str) -> list[NotebookNode]:
    """Return the end of chapter 12, which translates with the learner's model."""
    text = f'from transformer.course import translate_with\n\ntranslate_with("{package}")'
    code = forms.code(text, [*forms.DEMO, "nbval-ignore-output"])
    return [forms.markdown("## Who wrote this translator?"), code]


def instructions(lesson: Lesson) -> str:
    """Return the prose that begins the exercises of a chapter."""
    n = lesson.number
    return (
        "## Exercises\n\n"
        f"Save the notebook, then run `python -m transformer course check {n}` in a terminal. It "
        "runs what you have saved in a fresh process, and says what is yours. "
        f"`course hint {n}.1` gives the next of three hints for exercise {n}.1, and "
        f"`course watch {n}` checks whenever you save.\n\n"
        "A cell that you add becomes part of your module. Give it the tag `active-ipynb` if it "
        "should not."
    )
