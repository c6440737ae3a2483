"""Keep the two forms of each chapter of a folder equal: the one that was changed wins."""

from transformer.course import forms
from transformer.course.folder import Folder
from transformer.course.lessons import Lesson
from transformer.files import atomic_write


def sync(folder: Folder, lesson: Lesson, write_notebook: bool = True) -> str:
    """Make the forms of a chapter equal, and return what stands in the way, or nothing.

    The form that differs from when both were last equal wins. If both do, the newer one wins, and
    the other is kept beside it, with the suffix `.old`. Without `write_notebook`, a notebook is
    only read.
    """
    module = folder.module(lesson)
    path = folder.notebook(lesson)
    if not path.exists():
        return f"notebooks/{path.name} is missing: `course start {folder.package}` restores it"
    try:
        notebook = forms.read_notebook(path)
    except ValueError as error:
        return f"notebooks/{error}"
    from_notebook = forms.to_module(notebook)
    try:
        text = module.read_text(encoding="utf-8") if module.exists() else None
    except UnicodeDecodeError:
        return f"{module.name} is not UTF-8"
    if text is not None and text != from_notebook:
        if not notebook_wins(folder, lesson, from_notebook, text):
            if write_notebook:
                write_the_notebook(folder, lesson, text)
            return ""
        keep_other(folder, lesson, text, ".py.old")
    if text != from_notebook:
        atomic_write(module, from_notebook.encode())
    folder.state.synced[lesson.module] = forms.digest(from_notebook)
    return ""


def write_the_notebook(folder: Folder, lesson: Lesson, text: str) -> None:
    """Make the notebook equal to the module; outputs of cells that stay the same are kept."""
    path = folder.notebook(lesson)
    notebook = forms.read_notebook(path)
    keep_other(folder, lesson, forms.to_module(notebook), ".ipynb.old")
    atomic_write(path, forms.notebook_text(forms.with_sources(notebook, text)).encode())
    folder.module(lesson).touch()  # Jupyter refuses to open a notebook newer than its module
    folder.state.synced[lesson.module] = forms.digest(text)


def notebook_wins(folder: Folder, lesson: Lesson, from_notebook: str, text: str) -> bool:
    """Return whether the notebook is the form that was changed, or was changed last."""
    before = folder.state.synced.get(lesson.module)
    if forms.digest(text) == before:
        return True
    if forms.digest(from_notebook) == before:
        return False
    return folder.notebook(lesson).stat().st_mtime >= folder.module(lesson).stat().st_mtime


def keep_other(folder: Folder, lesson: Lesson, text: str, suffix: str) -> None:
    """Keep the text that is about to be replaced, if it was changed since both were equal."""
    if forms.digest(text) != folder.state.synced.get(lesson.module):
        atomic_write(folder.path / f"{lesson.module}{suffix}", text.encode())


def sync_all(folder: Folder, write_notebooks: bool = True) -> dict[str, str]:
    """Sync every chapter; return what stands in the way, by module.

    Of several processes that do so at once, each waits for the one before.
    """
    found = {}
    with folder.locked():
        for lesson in folder.lessons():
            trouble = sync(folder, lesson, write_notebooks)
            if trouble:
                found[lesson.module] = trouble
        folder.save()
    return found
