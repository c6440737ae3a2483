"""Tokens of published checkpoints: which files a family has, and what reads them."""

from collections.abc import Sequence
from pathlib import Path

from transformer.published.moses import FSMTTokenizer
from transformer.published.pieces import M2M100Tokenizer, MarianTokenizer, NllbTokenizer
from transformer.published.vocabularies import PublishedTokenizer

__all__ = ["PublishedTokenizer", "read_tokenizer"]


def read_tokenizer(
    folder: str | Path, family: str, languages: Sequence[str] | None = None
) -> PublishedTokenizer:
    """Read the tokenizer of a checkpoint.

    `languages` are the codes of source and target, for M2M100 and NLLB. Raises FileNotFoundError
    if a file is missing, ValueError if one is damaged, a package is missing or a language unknown.
    """
    folder = Path(folder)
    if languages is not None and len(languages) != 2:
        raise ValueError(f"languages must be two, source and target, not {languages!r}")
    if family == "m2m_100":
        kind = M2M100Tokenizer if (folder / "vocab.json").is_file() else NllbTokenizer
        return kind(folder, languages)
    if languages is not None:
        raise ValueError(f"{folder} is of one pair of languages; it takes no languages")
    return FSMTTokenizer(folder) if family == "fsmt" else MarianTokenizer(folder)
