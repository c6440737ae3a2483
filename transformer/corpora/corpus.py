"""What every corpus is: three lists of sentence pairs and a name."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Corpus:
    """Pairs of sentences in three splits that share none, and further test sets by name.

    `lowercase` says whether a vocabulary for this corpus should ignore case.
    """

    name: str
    train: list[tuple[str, str]]
    val: list[tuple[str, str]]
    test: list[tuple[str, str]] = field(default_factory=list)
    more: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    lowercase: bool = False

    def texts(self) -> Iterator[str]:
        """Yield both sides of every training pair: the texts to learn a vocabulary from."""
        for pair in self.train:
            yield from pair
