"""A corpus of the reader's own: two text files for each split, aligned line by line."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformer.corpora.corpus import Corpus
from transformer.corpora.large_files import LargePairs, is_large, scanned
from transformer.texts import read_lines

Paths = Sequence[str | Path]
"""The paths of a source and of its target."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of sentences from two files: their lines, counted from 1, and how many were empty."""

    files: tuple[str, str]
    pairs: list[tuple[str, str]]
    lines: list[int]
    empty: list[int]

    def take(self, indices: Sequence[int]) -> "Pairs":
        """Return some of the pairs."""
        pairs = [self.pairs[i] for i in indices]
        return Pairs(self.files, pairs, [self.lines[i] for i in indices], self.empty)

    def note(self) -> str:
        """Return a sentence on the pairs that were left out; "" if there were none."""
        if not self.empty:
            return ""
        src, tgt = self.files
        first = f"the first is line {self.empty[0]} of {src} and {tgt}"
        if len(self.empty) == 1:
            return f"a pair with an empty side is left out: line {self.empty[0]} of {src} and {tgt}"
        return f"{len(self.empty)} pairs with an empty side are left out; {first}"


def text_files(train: Paths, val: Paths | None = None, test: Paths | None = None) -> Corpus:
    """Read a corpus from text files: for each split the path of the source and of the target.

    Pairs that occur twice are kept once in training. Without `val`, one training pair in twenty, at
    most 1,000 and spread evenly, is set aside for validation. Large training files are not read
    into memory (`large_files`); the pairs are the same.
    Raises the errors of `read_pairs`, and ValueError if nothing can be set aside for validation.
    """
    if is_large(train):
        return large_text_files(train, val, test)
    found = read_aligned(*train)
    first_of = {pair: i for i, pair in reversed(list(enumerate(found.pairs)))}
    found = found.take(sorted(first_of.values()))
    splits = {"train": found}
    if val:
        splits["val"] = read_aligned(*val)
    else:
        splits |= set_aside(found)
    if test:
        splits["test"] = read_aligned(*test)
    return corpus_of(splits)


def large_text_files(train: Paths, val: Paths | None, test: Paths | None) -> Corpus:
    """Read a corpus as `text_files` does, without the training pairs."""
    files = (str(train[0]), str(train[1]))
    found = scanned(*files)
    lines = found.lines
    splits = {}
    if val:
        splits["val"] = read_aligned(*val)
    else:
        kept, aside = indices_set_aside(len(lines), files[0])
        set_apart = LargePairs(files, array("i", (lines[i] for i in aside)), found.fingerprint)
        splits["val"] = Pairs(files, list(set_apart), list(set_apart.lines), [])
        lines = array("i", (lines[i] for i in kept))
    if test:
        splits["test"] = read_aligned(*test)
    first = [found.first_empty] * found.n_empty
    note = Pairs(files, [], [], first).note()
    rest = corpus_of(splits)
    return replace(
        rest,
        train=LargePairs(files, lines, f"{found.fingerprint}/{len(lines)}"),
        files=rest.files | {"train": files},
        lines={**rest.lines, "train": lines},
        notes=tuple(dict.fromkeys((note,) * bool(note) + rest.notes)),
    )


def set_aside(found: Pairs) -> dict[str, Pairs]:
    """Return the splits "train" and "val" of what was read for training."""
    kept, aside = indices_set_aside(len(found.pairs), found.files[0])
    return {"train": found.take(kept), "val": found.take(aside)}


def indices_set_aside(count: int, name: str) -> tuple[list[int], range]:
    """Return which of some pairs are for training, and which are set aside for validation."""
    stride = max(20, count // 1_000)
    kept = [i for i in range(count) if i % stride]
    if not kept:
        raise ValueError(f"{name} has {count} pairs: too few to keep one for validation")
    return kept, range(0, count, stride)


def corpus_of(splits: dict[str, Pairs]) -> Corpus:
    """Return a corpus of these splits, which remembers where each pair comes from."""
    notes = dict.fromkeys(split.note() for split in splits.values())
    nothing = Pairs(("", ""), [], [], [])
    train, val, test = (splits.get(name, nothing).pairs for name in ("train", "val", "test"))
    return Corpus(
        "text",
        train,
        val,
        test,
        files={name: split.files for name, split in splits.items()},
        lines={name: split.lines for name, split in splits.items()},
        notes=tuple(note for note in notes if note),
    )


def read_pairs(src: str | Path, tgt: str | Path) -> list[tuple[str, str]]:
    """Read two aligned text files, line by line; pairs with an empty side are left out.

    Raises the errors of `read_lines`, and ValueError if the files differ in their number of lines
    or hold no pair.
    """
    return read_aligned(src, tgt).pairs


def read_aligned(src: str | Path, tgt: str | Path) -> Pairs:
    """Read two aligned text files as `read_pairs` does, with the line of each pair."""
    sources = read_lines(src)
    targets = read_lines(tgt)
    if len(sources) != len(targets):
        counts = f"{src} has {len(sources)} lines and {tgt} has {len(targets)}"
        raise ValueError(f"{counts}: they must be aligned")
    aligned = list(enumerate(zip(sources, targets, strict=True), start=1))
    kept = [(number, pair) for number, pair in aligned if all(pair)]
    if not kept:
        raise ValueError(f"{src} and {tgt} hold no pair of sentences")
    empty = [number for number, pair in aligned if not all(pair)]
    return Pairs((str(src), str(tgt)), [pair for _, pair in kept], [n for n, _ in kept], empty)
