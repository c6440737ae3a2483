"""Pairs of ids in files that are mapped into memory: as many as the disk holds.

A side is two files: the ids of all rows one after another, in 16 bits if the vocabulary allows it
and in 32 otherwise, and the offset of each row. They are written once, and kept in the cache under
a hash of all that they follow from.
"""

import json
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from transformer.files import atomic_folder

Ids = tuple[list[int], list[int]]
"""The ids of a source and of its target."""
FILES = ("src.ids", "src.offsets", "tgt.ids", "tgt.offsets", "about.json")


class Rows:
    """Rows of ids in two files."""

    def __init__(self, folder: Path, side: str, count: int, dtype: torch.dtype):
        offsets = str(folder / f"{side}.offsets")
        ids = folder / f"{side}.ids"
        self.offsets = torch.from_file(offsets, size=count + 1, dtype=torch.int64)
        size = ids.stat().st_size // dtype.itemsize
        self.ids = torch.from_file(str(ids), size=size, dtype=dtype)

    def __getitem__(self, i: int) -> list[int]:
        start, end = self.offsets[i : i + 2].tolist()
        return self.ids[start:end].tolist()

    def lengths(self) -> Tensor:
        """Return the length of every row."""
        return (self.offsets[1:] - self.offsets[:-1]).int()


class TokenisedPairs(Sequence[Ids]):
    """Pairs of ids in a folder of `write_tokenised`; each is read when it is asked for.

    `notes` are what was written with them.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        dtype = torch.uint16 if about["bits"] == 16 else torch.int32
        self.notes: dict = about["notes"]
        self.src = Rows(folder, "src", about["pairs"], dtype)
        self.tgt = Rows(folder, "tgt", about["pairs"], dtype)

    def __len__(self) -> int:
        return len(self.src.offsets) - 1

    def __getitem__(self, i):
        if not 0 <= i < len(self):
            raise IndexError(f"there is no pair {i} of {len(self)}")
        return self.src[i], self.tgt[i]


def is_written(folder: str | Path) -> bool:
    """Return whether a folder holds pairs; it holds all of them or none."""
    return (Path(folder) / "about.json").is_file()


def write_tokenised(
    folder: str | Path, pairs: Iterable[Ids], vocab_size: int, notes: dict | None = None
) -> None:
    """Write pairs of ids into a folder, which appears when it is complete.

    `notes` must be JSON, and may be filled while the pairs are read. Raises OSError if it cannot be
    written, ValueError if there is no pair.
    """
    kind = "H" if vocab_size <= 2**16 else "i"
    with atomic_folder(folder, FILES) as draft:
        offsets = [array("q", [0]), array("q", [0])]
        with (draft / "src.ids").open("wb") as src, (draft / "tgt.ids").open("wb") as tgt:
            for pair in pairs:
                for file, row, ends in zip((src, tgt), pair, offsets, strict=True):
                    append(file, row, kind, ends)
        if len(offsets[0]) == 1:
            raise ValueError("there is no pair to write")
        for side, ends in zip(("src", "tgt"), offsets, strict=True):
            (draft / f"{side}.offsets").write_bytes(ends.tobytes())
        bits = 8 * array(kind).itemsize
        about = {"pairs": len(offsets[0]) - 1, "bits": bits, "notes": notes or {}}
        (draft / "about.json").write_text(json.dumps(about), encoding="utf-8")


def append(file: BinaryIO, row: list[int], kind: str, ends: "array[int]") -> None:
    """Write a row at the end of a file, and note where it ends."""
    array(kind, row).tofile(file)
    ends.append(ends[-1] + len(row))
