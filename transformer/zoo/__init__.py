"""Wrong implementations that people really write; a check must catch each of them and name it.

There is one folder for each module of checks, and one module for each mistake. Its docstring is a
sentence that says what the mistake is. `CHECK` names the check that must catch it, `OPTIONS` the
options of that check, `CAUGHT_BY` is a pattern of the message, and `wrong` is the implementation.

The tests prove with them that a check can fail. The course compares a learner's wrong answer with
them, gives them out as bugs to be found, and counts how many a learner's test finds.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["Member", "member", "members", "names"]


@dataclass(frozen=True)
class Member:
    """A wrong implementation: its name, its one sentence, the check that catches it, and how."""

    name: str
    sentence: str
    check: str
    caught_by: str
    wrong: Any
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Return the text of its module, with the sentence that names the mistake."""
        module = importlib.import_module(f"{__name__}.{self.name}")
        return Path(str(module.__file__)).read_text(encoding="utf-8")


def names() -> list[str]:
    """List all members, such as ch03_attention.weights_not_scaled, without importing them."""
    found = []
    for folder in pkgutil.iter_modules(__path__):
        if folder.ispkg:
            inside = pkgutil.iter_modules([str(Path(__path__[0]) / folder.name)])
            found += [f"{folder.name}.{module.name}" for module in inside]
    return sorted(found)


def member(name: str) -> Member:
    """Import a member by its name; ValueError if the zoo has none of this name."""
    if name not in names():
        raise ValueError(f"the zoo has no member {name!r}")
    return _member(name, importlib.import_module(f"{__name__}.{name}"))


def members(check: str) -> Iterator[Member]:
    """Yield the members that a check must catch, in the order of their names."""
    for name in names():
        path = Path(__path__[0], *name.split(".")).with_suffix(".py")
        if f'CHECK = "{check}"' in path.read_text(encoding="utf-8"):
            yield member(name)


def _member(name: str, module: ModuleType) -> Member:
    """Return what a module of the zoo holds."""
    sentence = (module.__doc__ or "").strip()
    options = getattr(module, "OPTIONS", {})
    return Member(name, sentence, module.CHECK, module.CAUGHT_BY, module.wrong, options)
