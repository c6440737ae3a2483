"""`course start`: write a learner's folder, or bring it up to date without touching their work."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from transformer.course import forms
from transformer.course.chapters import chapter
from transformer.course.folder import STATE, Folder, State, refuse_name
from transformer.course.lessons import REPOSITORY, Lesson, available, has_figures
from transformer.files import atomic_write


@dataclass(frozen=True)
class Written:
    """What `start` did with a chapter: new, updated, restored, kept, or beside the learner's."""

    lesson: Lesson
    action: str


def start(path: str | Path, seed: int = 0) -> tuple[Folder, list[Written]]:
    """Write a learner's folder, and return it with what was done for each chapter.

    An existing folder keeps what the learner has changed: a chapter's new version is laid beside
    it. What was not touched is updated, and what is missing is restored. The seed of an existing
    folder stays. Of several processes that start a folder at once, each waits for the one before.
    Raises ValueError for a name that cannot be imported, or a folder that is not the course's.
    """
    path = Path(path)
    if (path / STATE).exists():
        folder = Folder.open(path)
    else:
        refuse_name(path)
        if path.exists() and any(not is_ours(entry) for entry in path.iterdir()):
            raise ValueError(f"{path} exists and is not a folder of the course: take a new name")
        folder = Folder(path, State(path.resolve().name, seed))
    lessons = available()
    with folder.locked():
        folder.save()  # first, so that whoever starts it at the same time or after a crash goes on
        write_frame(folder, lessons)
        done = [Written(lesson, write_chapter(folder, lesson, lessons)) for lesson in lessons]
        folder.save()
    return folder, done


def is_ours(entry: Path) -> bool:
    """Return whether a file is of a folder that another process has just begun."""
    return entry.name.lstrip(".").startswith("course.")


def write_frame(folder: Folder, lessons: Iterable[Lesson]) -> None:
    """Write what surrounds the chapters: the package, the pairs, the figures."""
    package = folder.path / "__init__.py"
    if not package.exists():
        text = f'"""The Transformer, as {folder.package} wrote it."""\n'
        atomic_write(package, text.encode())
    atomic_write(folder.path / "jupytext.toml", pairs_text(lessons).encode())
    if has_figures():
        (folder.path / "figures").mkdir(parents=True, exist_ok=True)
        for figure in (REPOSITORY / "figures").glob("*.svg"):
            shutil.copyfile(figure, folder.path / "figures" / figure.name)


def pairs_text(lessons: Iterable[Lesson]) -> str:
    """Return the settings that make Jupyter save each notebook as a module too."""
    pairs = [
        f'  "notebooks/{lesson.notebook}/ipynb,/{lesson.module}/py:percent",' for lesson in lessons
    ]
    head = [
        "# Saving a notebook in Jupyter writes its module, and the other way round.",
        'notebook_metadata_filter = "-all"',
        'cell_metadata_filter = "tags,-all"',
        "formats = [",
    ]
    return "\n".join([*head, *pairs, "]\n"])


def write_chapter(folder: Folder, lesson: Lesson, lessons: Sequence[Lesson]) -> str:
    """Write both forms of a chapter unless the learner has changed one; say what was done."""
    notebook = chapter(folder, lesson, lessons)
    text = forms.to_module(notebook)
    state = folder.state
    new = forms.digest(text)
    old = state.written.get(lesson.module)
    present = forms_present(folder, lesson)
    if all(form in (old, new) for form in present):  # new: an update was interrupted
        if old == new and len(present) == 2:
            return "kept"
        write_pair(folder, lesson, notebook, text)
        return "new" if old is None else "updated" if old != new else "restored"
    restored = len(present) == 1 and restore(folder, lesson)
    if new in (old, state.offered.get(lesson.module)):
        return "restored" if restored else "kept"
    beside = folder.notebook(lesson).with_suffix(".new.ipynb")
    atomic_write(beside, forms.notebook_text(notebook).encode())
    state.offered[lesson.module] = new
    return "beside"


def forms_present(folder: Folder, lesson: Lesson) -> list[str]:
    """Return the fingerprint of each form of a chapter that is there."""
    found = []
    module = folder.module(lesson)
    notebook = folder.notebook(lesson)
    if module.exists():
        found.append(forms.digest(module.read_text(encoding="utf-8", errors="replace")))
    if notebook.exists():
        try:
            found.append(forms.digest(forms.to_module(forms.read_notebook(notebook))))
        except ValueError:
            found.append("damaged")  # whatever it is, it is not to be overwritten
    return found


def restore(folder: Folder, lesson: Lesson) -> bool:
    """Write the form of a chapter that is missing from the one that is there."""
    module = folder.module(lesson)
    path = folder.notebook(lesson)
    if module.exists():
        notebook = forms.to_notebook(module.read_text(encoding="utf-8", errors="replace"))
        atomic_write(path, forms.notebook_text(notebook).encode())
        module.touch()
        return True
    try:
        text = forms.to_module(forms.read_notebook(path))
    except ValueError:
        return False
    atomic_write(module, text.encode())
    return True


def write_pair(folder: Folder, lesson: Lesson, notebook: NotebookNode, text: str) -> None:
    """Write the two forms of a chapter, and remember what was written.

    The module comes last: Jupyter refuses to open a notebook that is newer than its module.
    """
    atomic_write(folder.notebook(lesson), forms.notebook_text(notebook).encode())
    atomic_write(folder.module(lesson), text.encode())
    folder.state.written[lesson.module] = forms.digest(text)
    folder.state.synced[lesson.module] = forms.digest(text)
