"""What every corpus is: three lists of sentence pairs and a name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from transformer.corpora.large_files import LargePairs


@dataclass(frozen=True)
class Corpus:
    """Pairs of sentences in three splits that share none, and further test sets by name.

    `lowercase` says whether a vocabulary for this corpus should ignore case. A corpus that was read
    from files knows of each split the two `files` and the line of every pair, counted from 1, and
    has `notes` on what was left out, a sentence each. Training pairs of large files are not in
    memory, and can only be counted and read in order.
    """

    name: str
    train: list[tuple[str, str]] | LargePairs
    val: list[tuple[str, str]]
    test: list[tuple[str, str]] = field(default_factory=list)
    more: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    lowercase: bool = False
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    lines: dict[str, Sequence[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def texts(self) -> Iterator[str]:
        """Yield both sides of every training pair: the texts to learn a vocabulary from.

        Of large files, of a sample that is spread evenly.
        """
        train = self.train
        for pair in train.sample() if isinstance(train, LargePairs) else train:
            yield from pair

    def where(self, split: str, i: int) -> str:
        """Return where pair `i` of a split comes from, in words."""
        if split not in self.files:
            return f"pair {i + 1} of {split}"
        src, tgt = self.files[split]
        return f"line {self.lines[split][i]} of {src} and {tgt}"
