"""The weights of a checkpoint: safetensors, in one file or several, read with little memory."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt")
FLOATS = ("F16", "BF16", "F32", "F64")


def weight_files(folder: str | Path) -> list[Path]:
    """Return the files that have the weights.

    Raises FileNotFoundError if there is none, ValueError if there are only pickles, which are not
    read because they can run code.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            names = sorted(set(index["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / INDEX} is damaged ({error!s:.200})") from None
        return [folder / Path(name).name for name in names]
    pickled = [name for name in PICKLES if (folder / name).exists()]
    if pickled:
        raise ValueError(
            f"{folder} has its weights in {pickled[0]} only, a pickle, which can run code when it "
            f"is read: in a container, convert it with `transformers`, "
            f"AutoModelForSeq2SeqLM.from_pretrained(…).save_pretrained(…), and load that folder"
        )
    raise FileNotFoundError(f"there is no {WEIGHTS} in {folder}")


def tensor_shapes(folder: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor, from the headers only.

    Raises FileNotFoundError if there are no weights, ValueError if a file is damaged, pickled, or
    has numbers that are not floating-point.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        with opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (the file is no dictionary)
                part = file.get_slice(name)
                if part.get_dtype() not in FLOATS:
                    raise ValueError(f"{path}: {name} is {part.get_dtype()}, not floating-point")
                found[name] = tuple(part.get_shape())
    return found


def read_tensor(folder: str | Path, name: str) -> Tensor:
    """Return one tensor in float32, in memory of its own.

    The file is opened for each tensor: so of its pages only those of one tensor are in memory.
    """
    for path in weight_files(folder):
        with opened(path) as file:
            if name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                return torch.empty(tensor.shape, dtype=torch.float32).copy_(tensor)
    raise KeyError(name)


def opened(path: Path) -> safe_open:
    """Open a safetensors file; FileNotFoundError if there is none, ValueError if it is damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return safe_open(str(path), framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error!s:.200})") from None


def equal_tensors(folder: str | Path, names: list[str]) -> bool:
    """Return whether tensors of a single file are equal, bit for bit; of several files, True."""
    for path in weight_files(folder):
        with opened(path) as file:
            here = [name for name in names if name in file.keys()]  # noqa: SIM118
            first, *others = map(file.get_tensor, here) if here else [None]
            if not all(torch.equal(first, other) for other in others):
                return False
    return True
