"""What exports need: optional packages, arrays, and a hash that tells whether they are current."""

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from torch import Tensor

from transformer.files import folder_lock
from transformer.model import Transformer


def optional(package: str, install: str) -> ModuleType:
    """Import a package that is not among the dependencies.

    Raises ValueError, with the command that installs it, if it cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"{package} cannot be imported ({error}): pip install {install}") from None


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor of any device and precision as a float32 array."""
    return tensor.detach().cpu().float().contiguous().numpy()


def weights_hash(model: Transformer) -> str:
    """Return a hash of the config and all weights, by which an export is known to be up to date."""
    digest = hashlib.sha256(repr(model.config).encode())
    for parameter in model.parameters():
        digest.update(as_array(parameter).data)
    return digest.hexdigest()


def is_current(folder: Path, names: Sequence[str], model: Transformer) -> bool:
    """Return whether a folder has all files of an export, and was made of the model's weights."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        made_of = about["weights"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return all((folder / name).is_file() for name in names) and made_of == weights_hash(model)


def export_if_stale(
    folder: Path, names: Sequence[str], model: Transformer, write: Callable[[], Path]
) -> Path:
    """Return the folder of an export; `write` it first unless it is current.

    Another process that loads the same model waits for the folder instead of writing it, too.
    """
    if not is_current(folder, names, model):
        with folder_lock(folder):
            if not is_current(folder, names, model):
                write()
    return folder
