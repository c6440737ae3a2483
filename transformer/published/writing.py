"""Write a model as a folder that `transformers` loads."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from transformer.files import atomic_folder
from transformer.published.checking import POSITIONS
from transformer.published.families import read_settings
from transformer.published.hub import FILES
from transformer.published.tensors import INDEX, WEIGHTS

TOKENIZER_FILES = tuple(
    name for name in FILES if "safetensors" not in name and "config.json" not in name
)
WRITTEN = tuple(name for name in FILES if "*" not in name and name != INDEX)
"""What a folder may hold that is replaced."""


def write_folder(
    out: str | Path,
    tensors: Mapping[str, Tensor],
    settings: dict[str, Any],
    like: str | Path | None = None,
    files: Mapping[str, dict[str, Any]] = MappingProxyType({}),
) -> Path:
    """Write weights and settings into the folder `out`, and return its path.

    From the checkpoint `like` come its tokenizer and its rules of search, and its settings, too,
    where `settings` has no other value. `files` are further
    JSON files by name. The folder is replaced as a whole. Raises ValueError if it holds anything
    else, OSError if it cannot be written.
    """
    out = Path(out)
    with atomic_folder(out, WRITTEN) as draft:
        if like:
            settings = read_settings(Path(like) / "config.json") | settings
            settings.pop("torch_dtype", None)
            copied = (*TOKENIZER_FILES, "generation_config.json", "tokenizer_config.json")
            for path in [Path(like) / name for name in copied]:
                if path.is_file():
                    shutil.copyfile(path, draft / path.name)
        write_json(draft / "config.json", settings)
        for name, content in files.items():
            write_json(draft / name, content)
        save_file(dict(tensors), draft / WEIGHTS, metadata={"format": "pt"})
    return out


def position_tensors(family: str, first: Tensor, table: Tensor) -> dict[str, Tensor]:
    """Return tables of positions as a file has them: with the unused `first` rows of FSMT."""
    rows = torch.cat([first, table]) if family == "fsmt" else table
    return {name: rows.clone() for name in POSITIONS}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as JSON."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
