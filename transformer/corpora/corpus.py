"""What every corpus is: three lists of sentence pairs and a name."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Corpus:
    """Pairs of sentences in three splits that share none, and further test sets by name.

    `lowercase` says whether a vocabulary for this corpus should ignore case. A corpus that was read
    from files knows of each split the two `files` and the line of every pair, counted from 1, and
    has `notes` on what was left out, a sentence each.
    """

    name: str
    train: list[tuple[str, str]]
    val: list[tuple[str, str]]
    test: list[tuple[str, str]] = field(default_factory=list)
    more: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    lowercase: bool = False
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def texts(self) -> Iterator[str]:
        """Yield both sides of every training pair: the texts to learn a vocabulary from."""
        for pair in self.train:
            yield from pair

    def where(self, split: str, i: int) -> str:
        """Return where pair `i` of a split comes from, in words."""
        if split not in self.files:
            return f"pair {i + 1} of {split}"
        src, tgt = self.files[split]
        return f"line {self.lines[split][i]} of {src} and {tgt}"
