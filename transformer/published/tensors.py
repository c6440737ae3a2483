"""The weights of a checkpoint: safetensors, in one file or several, read with little memory."""

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt")
PART = 2**22
"""Numbers that are read at once."""
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
    """Return one tensor in float32, in memory of its own."""
    tensor = torch.empty(tensor_shapes(folder)[name])
    read_into(tensor, folder, name)
    return tensor


def read_into(target: Tensor, folder: str | Path, name: str) -> None:
    """Copy one tensor of a checkpoint into a tensor of that many numbers, a part at a time.

    The file is opened for each part, because its pages count as memory as long as it is open.
    """
    (path,) = [path for path in weight_files(folder) if name in shapes_in(path)]
    rows, *rest = shapes_in(path)[name] or (1,)
    step = max(1, PART // max(1, math.prod(rest)))
    flat = target.detach().flatten().unflatten(0, (rows, *rest))
    for start in range(0, rows, step):
        with opened(path) as file:
            flat[start : start + step].copy_(file.get_slice(name)[start : start + step])


@lru_cache(maxsize=64)
def shapes_of_version(path: Path, changed: int, size: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes in a file, as it was at that time."""
    with opened(path) as file:
        names = list(file.keys())
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors in a file."""
    about = path.stat()
    return shapes_of_version(path, about.st_mtime_ns, about.st_size)


class Unfilled(TorchFunctionMode):
    """Make modules without first weights: what would draw them leaves memory as it is.

    So a model costs no time, no random numbers, and no memory until its weights are read.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Leave out what draws random numbers, and call every other function."""
        if func in (Tensor.uniform_, Tensor.normal_):
            return args[0]
        if func in (init.kaiming_uniform_, init.uniform_, init.normal_):
            return kwargs["tensor"]  # they call themselves by keyword, out of reach of the mode
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))


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
    if len(names) < 2:
        return True
    for path in weight_files(folder):
        with opened(path) as file:
            here = [name for name in names if name in file.keys()]  # noqa: SIM118
            tensors = [file.get_tensor(name) for name in here]
            if not all(torch.equal(tensors[0], other) for other in tensors[1:]):
                return False
    return True
