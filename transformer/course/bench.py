"""Import a learner's chapters, each after those it needs, and put the library's where one fails."""

import ast
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from transformer.course.lessons import LESSONS, MODULES, Lesson

LESSON_OF = {lesson.module: lesson for lesson in LESSONS}
FRESH = (
    "In a fresh process there is only what the module itself imports and defines, not what a demo "
    "cell did"
)


class Bench:
    """A learner's package, imported module by module.

    `tell` is called with the name of each module before it is imported. `broken` has the modules
    that could not be imported, with the reason; others find the library's in their place.
    """

    def __init__(self, path: Path, package: str, tell: Callable[[str], None]):
        self.path = path
        self.package = package
        self.tell = tell
        self.broken: dict[str, str] = {}
        add_package(path, package)

    def load(self, module: str) -> ModuleType | None:
        """Import a chapter of the learner's, or return None if it is broken."""
        if module in self.broken:
            return None
        name = f"{self.package}.{module}"
        if name in sys.modules:
            return sys.modules[name]
        for other in needs(self.path, self.package, module):
            self.load(other)
        self.tell(module)
        try:
            return importlib.import_module(name)
        except BaseException as error:  # a learner's module may raise anything, even SystemExit
            self.replace(module, reason(self.path, self.package, module, error))
            return None

    def replace(self, module: str, reason: str) -> None:
        """Give up a module: those that import it get the library's instead."""
        self.broken[module] = reason
        self.put(module)

    def put(self, module: str) -> None:
        """Put the library's module where the learner's is imported from."""
        lesson = LESSON_OF[module]
        if lesson.number:
            sys.modules[f"{self.package}.{module}"] = lesson.load()
            setattr(sys.modules[self.package], module, lesson.load())

    @contextmanager
    def alone(self, lesson: Lesson) -> Iterator[ModuleType | None]:
        """Import a chapter anew with the library's chapters before it, for a block."""
        before = {name: value for name, value in sys.modules.items() if self.is_mine(name)}
        for other in LESSONS:
            if other.number < lesson.number:
                self.put(other.module)
        sys.modules.pop(f"{self.package}.{lesson.module}", None)
        try:
            module = importlib.import_module(f"{self.package}.{lesson.module}")
        except Exception:
            module = None
        try:
            yield module
        finally:
            for name in [name for name in sys.modules if self.is_mine(name)]:
                del sys.modules[name]
            sys.modules.update(before)

    def stand_ins(self, module: str) -> dict[str, str]:
        """Return the broken chapters that a chapter needs, directly or not, with the reasons."""
        found: dict[str, str] = {}
        for other in needs(self.path, self.package, module):
            if other in self.broken:
                found[other] = self.broken[other]
            found |= self.stand_ins(other)
        return found

    def is_mine(self, name: str) -> bool:
        return name.partition(".")[0] == self.package

    def imported(self, lesson: Lesson) -> list[str]:
        """List the learner's chapters before a lesson that are in use."""
        found = []
        for other in LESSONS:
            module = sys.modules.get(f"{self.package}.{other.module}")
            mine = module is not None and module.__name__.startswith(f"{self.package}.")
            if mine and other.number < lesson.number:
                found.append(other.module)
        return found


def add_package(path: Path, package: str) -> None:
    """Import a package from its folder, whatever the name of the folder and the search path."""
    spec = importlib.util.spec_from_file_location(
        package, path / "__init__.py", submodule_search_locations=[str(path)]
    )
    if spec is None or spec.loader is None or package in MODULES | {"transformer"}:
        raise ValueError(f"{package} cannot be imported from {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    if (path / "__init__.py").exists():
        spec.loader.exec_module(module)


def needs(path: Path, package: str, module: str) -> list[str]:
    """List the chapters that a learner's module imports, as far as its text can be read."""
    try:
        tree = ast.parse((path / f"{module}.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    found = {name.split(".")[1] for name in names if name.startswith(f"{package}.")}
    return [lesson.module for lesson in LESSONS if lesson.module in found - {module}]


def reason(path: Path, package: str, module: str, error: BaseException) -> str:
    """Say in which line a module fails, and how."""
    if isinstance(error, SyntaxError) and error.filename:
        line = (error.text or "").strip()
        found = f"{package}/{Path(error.filename).name}, line {error.lineno}: {error.msg}"
        return f"{found}: {line}" if line else found
    if isinstance(error, SystemExit):
        return f"{package}/{module}.py calls sys.exit when it is imported"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if Path(frame.filename).parent == path]
    where = f"{package}/{module}.py"
    if mine:
        where = f"{package}/{Path(mine[-1].filename).name}, line {mine[-1].lineno}"
    text = f"{where}: {type(error).__name__}: {error}".rstrip(": ")
    return f"{text}. {FRESH}" if isinstance(error, NameError) else text
