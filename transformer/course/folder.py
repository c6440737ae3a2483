"""A learner's folder: where its files are, and what it remembers."""

import copy
import importlib.util
import json
import keyword
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from transformer.course.lessons import LESSONS, Lesson
from transformer.files import atomic_write, folder_lock

STATE = ".course.json"
LOCK = ".course"  # with the suffix that `folder_lock` adds


@dataclass
class State:
    """What a folder remembers.

    `seed` chooses its bugs. `written` has the fingerprint of each chapter as it was written,
    `offered` of newer ones laid beside, `synced` of each pair when its forms were last equal.
    `hints` counts those given, and `passed` lists the exercises that were seen to be right.
    """

    package: str
    seed: int = 0
    written: dict[str, str] = field(default_factory=dict)
    offered: dict[str, str] = field(default_factory=dict)
    synced: dict[str, str] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)


class Folder:
    """A learner's folder, which is a package: `path` is where it is, `state` what it remembers.

    Several processes may use it at once, such as `course watch` and the notebooks' kernels: `save`
    writes only what was changed here, and keeps what others have written meanwhile.
    """

    def __init__(self, path: str | Path, state: State):
        self.path = Path(path).resolve()
        self.state = state
        self.known = copy.deepcopy(state)

    @classmethod
    def open(cls, path: str | Path) -> "Folder":
        """Open a folder that `start` has written; ValueError if it is another one."""
        return cls(path, read_state(Path(path)))

    @property
    def package(self) -> str:
        """Return the name under which the folder is imported."""
        return self.state.package

    def module(self, lesson: Lesson) -> Path:
        return self.path / f"{lesson.module}.py"

    def notebook(self, lesson: Lesson) -> Path:
        return self.path / "notebooks" / f"{lesson.notebook}.ipynb"

    def lessons(self) -> list[Lesson]:
        """List the chapters that were written into this folder."""
        return [lesson for lesson in LESSONS if lesson.module in self.state.written]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for a block, with what it remembers now; other processes wait."""
        with folder_lock(self.path / LOCK):
            self.refresh()
            yield

    def refresh(self) -> None:
        """Take over what other processes have written since, beside what was changed here."""
        if (self.path / STATE).exists():
            written = read_state(self.path)
            self.state = merged(written, self.known, self.state)
            self.known = written

    def save(self) -> None:
        """Write down what the folder remembers."""
        with self.locked():
            text = json.dumps(asdict(self.state), indent=1, sort_keys=True)
            atomic_write(self.path / STATE, f"{text}\n".encode())
            self.known = copy.deepcopy(self.state)


def merged(written: State, known: State, now: State) -> State:
    """Return what is written down with the changes from `known` to `now`.

    Exercises that were seen to be right are only added.
    """
    found = copy.deepcopy(written)
    for name in ("written", "offered", "synced", "hints"):
        before = getattr(known, name)
        after = getattr(now, name)
        changes = {key: value for key, value in after.items() if before.get(key) != value}
        getattr(found, name).update(changes)
    found.passed = sorted({*written.passed, *now.passed})
    return found


def read_state(path: Path) -> State:
    """Read what a folder remembers; ValueError if it is not the course's, or damaged."""
    file = path / STATE
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{path} is not a folder of the course; `course start NAME` makes one"
        ) from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{file} is damaged ({error!s:.100})") from None
    return state_of(settings, file)


def state_of(settings: Any, file: Path) -> State:
    """Return what was remembered; ValueError if it is of another form."""
    blank = State("mine")
    kinds = {one.name: type(getattr(blank, one.name)) for one in fields(State)}
    found = settings if isinstance(settings, dict) else {}
    known = {name: value for name, value in found.items() if name in kinds}
    wrong = [name for name, value in known.items() if not isinstance(value, kinds[name])]
    package = str(known.get("package", ""))
    if wrong or not package.isidentifier() or package == "transformer":
        what = ", ".join(wrong) or "package"
        raise ValueError(f"{file} is damaged: {what} is missing or of another form")
    return State(**known)


def find(given: str | Path | None = None, start: Path | None = None) -> Folder:
    """Open the folder that is given, or the one in or around the working directory.

    Raises ValueError if there is none, or more than one.
    """
    if given is not None:
        return Folder.open(given)
    here = (start or Path.cwd()).resolve()
    for path in (here, *here.parents):
        if (path / STATE).exists():
            return Folder.open(path)
    found = sorted(path.parent for path in here.glob(f"*/{STATE}"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"there are several folders ({names}): name one with --folder")
    if not found:
        raise ValueError("there is no folder of the course here: `course start mine` makes one")
    return Folder.open(found[0])


def refuse_name(path: Path) -> None:
    """Raise a ValueError unless a new folder's name can be that of a package."""
    name = path.resolve().name
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot be imported: take a name such as mine")
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec else []
    if spec and not any(Path(place).resolve() == path.resolve() for place in places):
        raise ValueError(f"{name!r} is the name of another package: take a name such as mine")
