"""Aligned text files too large for memory: read line by line, again for each use.

What is kept in memory is the number of each line that is used: 4 bytes a pair.
"""

import gzip
import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import chain, zip_longest
from pathlib import Path

import torch

from transformer.files import atomic_folder, cache_dir
from transformer.ranks import current, local_rank
from transformer.texts import decode_line, lines_of

LARGE = 2**26
"""Bytes of two files from which on they are not read into memory."""
LONGEST_LINE = 2**20
"""Bytes of a line that are looked at; a longer one is no sentence."""
SAMPLE = 500_000
"""Pairs from which a vocabulary is learned, at most."""
SCAN_FILES = ("lines", "about.json")


@dataclass(frozen=True)
class LargePairs:
    """Pairs of sentences in two files; `lines` has the number of each, from 1, ascending.

    `fingerprint` is a hash of both files and of the choice of lines.
    """

    files: tuple[str, str]
    lines: "array[int]"
    fingerprint: str

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        with open_bytes(self.files[0]) as src, open_bytes(self.files[1]) as tgt:
            at = 0
            for number in self.lines:
                for _ in range(number - at - 1):
                    src.readline()
                    tgt.readline()
                at = number
                yield (
                    decode_line(src.readline(), number, self.files[0]),
                    decode_line(tgt.readline(), number, self.files[1]),
                )

    def sample(self) -> "LargePairs":
        """Return at most SAMPLE of the pairs, spread evenly."""
        stride = -(-len(self) // SAMPLE)
        return LargePairs(self.files, self.lines[::stride], f"{self.fingerprint}/{stride}")


@dataclass(frozen=True)
class Scan:
    """What is in two aligned files: the lines to use, and those with an empty side."""

    lines: "array[int]"
    first_empty: int
    n_empty: int
    fingerprint: str


def is_large(paths: Sequence[str | Path]) -> bool:
    """Return whether two files are too large for memory; pipes are not, they are read once."""
    found = [Path(path) for path in paths]
    return all(path.is_file() for path in found) and sum(p.stat().st_size for p in found) > LARGE


def open_bytes(path: str | Path) -> BufferedIOBase:
    """Open a file that may be gzipped."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path) if packed else open(path, "rb")


def scanned(src: str | Path, tgt: str | Path) -> Scan:
    """Return what is in two aligned files, from the cache if they have been read before.

    Of the processes on a machine one reads. Raises the errors of `lines_of`, and ValueError if the
    files differ in their number of lines.
    """
    fingerprint = files_hash(src, tgt)
    folder = cache_dir() / "tokenised" / f"scan-{fingerprint}"
    if local_rank() == 0 and not (folder / "about.json").exists():
        found = scan(src, tgt, fingerprint)
        with atomic_folder(folder, SCAN_FILES) as draft:
            (draft / "lines").write_bytes(found.lines.tobytes())
            about = {"first_empty": found.first_empty, "n_empty": found.n_empty}
            (draft / "about.json").write_text(json.dumps(about), encoding="utf-8")
    current().wait()
    lines = array("i")
    lines.frombytes((folder / "lines").read_bytes())
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return Scan(lines, about["first_empty"], about["n_empty"], fingerprint)


def scan(src: str | Path, tgt: str | Path, fingerprint: str) -> Scan:
    """Read two aligned files and return which lines to use: not empty, and not there before.

    Pairs are compared by a hash of 64 bits: of ten million, with a probability of 3 in a million
    one is taken for another.
    """
    hashes = array("q")
    lines = array("i")
    empty = array("i")
    with open_bytes(src) as sources, open_bytes(tgt) as targets:
        sides = (
            lines_of(sources, str(src), LONGEST_LINE),
            lines_of(targets, str(tgt), LONGEST_LINE),
        )
        for number, pair in enumerate(zip_longest(*sides), start=1):
            if None in pair:
                longer = number + sum(1 for _ in chain(*sides))
                raise ValueError(not_aligned((src, tgt), pair, number - 1, longer))
            if all(pair):
                lines.append(number)
                hashes.append(hash_of("\n".join(pair)))
            else:
                empty.append(number)
    kept = array("i", (lines[i] for i in first_of_each(hashes)))
    return Scan(kept, empty[0] if empty else 0, len(empty), fingerprint)


def not_aligned(
    paths: Sequence[str | Path], last: Sequence[str | None], shorter: int, longer: int
) -> str:
    """Return a sentence on two files that differ in their number of lines."""
    counts = [shorter if line is None else longer for line in last]
    told = " and ".join(f"{path} has {n} lines" for path, n in zip(paths, counts, strict=True))
    return f"{told}: they must be aligned"


def hash_of(text: str) -> int:
    """Return a hash of 64 bits, with a sign."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def first_of_each(hashes: "array[int]") -> list[int]:
    """Return the index of the first of equal hashes, ascending."""
    if not hashes:
        return []
    values, order = torch.frombuffer(hashes, dtype=torch.int64).sort(stable=True)
    new = torch.ones(len(values), dtype=torch.bool)
    new[1:] = values[1:] != values[:-1]
    return order[new].sort().values.tolist()


def files_hash(*paths: str | Path) -> str:
    """Return a hash of the content of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{os.path.getsize(path)} ".encode())
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()[:16]
