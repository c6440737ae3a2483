"""What every tokenizer of a published checkpoint has, and the vocabulary that they read."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from transformer.published.families import read_settings

UNKNOWN = "<unk>"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


class PublishedTokenizer:
    """Turn sentences into the ids of a checkpoint, and ids into sentences.

    `sizes` are the numbers of ids that source and target need; `unknown` is the source id of what
    no piece covers. `first_id` is the target language, if that is the forced first token.
    """

    sizes: tuple[int, int]
    unknown: int
    eos_id: int
    pad_id: int | None
    first_id: int | None = None

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the ids of each source, with what a source begins and ends with."""
        raise NotImplementedError

    def encode_targets(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the ids of each target, ended by </s>, as they are predicted in training."""
        raise NotImplementedError

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """Return the text of each row of target ids; special tokens are left out."""
        raise NotImplementedError

    def knows(self, row: Sequence[int]) -> bool:
        """Return whether a source has any piece that the vocabulary knows."""
        return bool(set(row) - self.without_content())

    def without_content(self) -> set[int]:
        """Return the ids of sources that say nothing: unknown, </s> and languages."""
        return {self.unknown, self.eos_id}


def load_vocabulary(path: Path) -> dict[str, int]:
    """Read a vocab.json; ValueError if it is not an object of tokens and ids."""
    vocabulary = read_settings(path)
    wrong = [token for token, i in vocabulary.items() if type(i) is not int or i < 0]
    if wrong or UNKNOWN not in vocabulary:
        what = f"{wrong[0]!r} has no id" if wrong else f"it has no {UNKNOWN}"
        raise ValueError(f"{path} is not a vocabulary: {what}")
    return vocabulary


def size_of(vocabulary: dict[str, int]) -> int:
    """Return the number of ids that a vocabulary needs."""
    return max(vocabulary.values()) + 1
