"""What a notebook of a learner's folder calls: make the folder's package importable."""

import importlib
import sys
from pathlib import Path

from transformer.course.folder import STATE, Folder
from transformer.course.syncing import sync_all


def use_folder(package: str) -> None:
    """Make a learner's package importable, with what its notebooks hold now.

    The folder is searched in the working folder and above it. Modules of the package that were
    imported before are forgotten. A notebook that cannot be read is named. Raises ValueError if
    there is no such folder.
    """
    here = Path.cwd()
    places = [here.parent, here, *here.parents]
    home = next((place for place in places if (place / package / STATE).exists()), None)
    if home is None:
        raise ValueError(f"no folder {package} of the course in or around {here}")
    for trouble in sync_all(Folder.open(home / package), write_notebooks=False).values():
        print(trouble)
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    forget(package)


def forget(package: str) -> None:
    """Forget a package and its modules, so that they are read again."""
    for name in list(sys.modules):
        if name == package or name.startswith(f"{package}."):
            del sys.modules[name]
    importlib.invalidate_caches()
