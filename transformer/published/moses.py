"""Tokens of FSMT (facebook/wmt19-*): words as Moses has them, split by byte-pair encoding."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from transformer.published.families import read_settings
from transformer.published.hub import extra
from transformer.published.vocabularies import (
    SPECIAL,
    UNKNOWN,
    PublishedTokenizer,
    load_vocabulary,
    size_of,
)

END = "</w>"
"""What the last piece of a word ends with."""
FULL_STOP = re.compile(r"[。．]\s*")
PUNCTUATION = str.maketrans(
    {
        **dict(zip("，、∶：？！；（）～％━〈〉【】’", ",,::?!;()~%-<>[]'", strict=True)),
        **dict.fromkeys("”“《》」「", '"'),
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        "…": "...",
    }
)
"""Moses' list of characters of East Asian and typographic texts, and what stands for them."""


def plain_punctuation(text: str) -> str:
    """Return a text with the punctuation and digits that Moses expects."""
    return FULL_STOP.sub(". ", text).translate(PUNCTUATION)


def printable(text: str) -> str:
    """Return a text without control, format and unassigned characters."""
    return "".join(c for c in text if not unicodedata.category(c).startswith("C"))


class Moses:
    """One language: text to words, and words to text."""

    def __init__(self, language: str):
        moses = extra("sacremoses")
        self.punctuation = moses.MosesPunctNormalizer(lang=language)
        self.tokenizer = moses.MosesTokenizer(lang=language)
        self.detokenizer = moses.MosesDetokenizer(lang=language)

    def words(self, text: str) -> list[str]:
        """Return the words and the punctuation of a text."""
        text = printable(self.punctuation.normalize(plain_punctuation(text)))
        return self.tokenizer.tokenize(
            text, aggressive_dash_splits=True, return_str=False, escape=True
        )

    def text(self, words: list[str]) -> str:
        """Return the text of words."""
        return self.detokenizer.detokenize(words)


class FSMTTokenizer(PublishedTokenizer):
    """Tokens of facebook/wmt19-*: Moses words, byte-pair encoding, a vocabulary for each side."""

    def __init__(self, folder: Path):
        settings = read_settings(folder / "tokenizer_config.json")
        languages = settings.get("langs")
        if not (isinstance(languages, list) and len(languages) == 2):
            raise ValueError(f"{folder / 'tokenizer_config.json'} has no pair of langs")
        self.lowercase = bool(settings.get("do_lower_case"))
        self.sides = [Moses(language) for language in languages]
        self.vocabularies = [load_vocabulary(folder / f"vocab-{s}.json") for s in ("src", "tgt")]
        self.tokens = {i: token for token, i in self.vocabularies[1].items()}
        self.ranks = read_merges(folder / "merges.txt")
        self.pieces: dict[str, tuple[str, ...]] = {}
        self.sizes = (size_of(self.vocabularies[0]), size_of(self.vocabularies[1]))
        self.unknown = self.vocabularies[0][UNKNOWN]
        self.eos_id = self.vocabularies[0]["</s>"]
        self.pad_id = self.vocabularies[0].get("<pad>")

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.ids(text, 0) for text in texts]

    def encode_targets(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.ids(text, 1) for text in texts]

    def ids(self, text: str, side: int) -> list[int]:
        """Return the ids of a text's pieces on one side, 0 or 1, ended by </s>."""
        vocabulary = self.vocabularies[side]
        words = self.sides[side].words(text.lower() if self.lowercase else text)
        pieces = [piece for word in words for piece in self.split(word)]
        known = [vocabulary.get(piece, vocabulary[UNKNOWN]) for piece in pieces]
        return [*known, vocabulary["</s>"]]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        texts = []
        for row in rows:
            tokens = [self.tokens.get(i, UNKNOWN) for i in row]
            joined = "".join(token for token in tokens if token not in SPECIAL)
            texts.append(self.sides[1].text(joined.replace(END, " ").split()))
        return texts

    def split(self, word: str) -> tuple[str, ...]:
        """Return the pieces of a word, which are kept."""
        if word not in self.pieces:
            self.pieces[word] = self.split_anew(word)
        return self.pieces[word]

    def split_anew(self, word: str) -> tuple[str, ...]:
        """Return the pieces of a word: of all neighbours, the earliest merge goes first."""
        parts = [*word[:-1], word[-1] + END]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self.ranks.get(pair, math.inf))
            if best not in self.ranks:
                break
            parts = merged(parts, best)
        return tuple(parts)


def merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the parts with each occurrence of a pair as one part, from the left."""
    found: list[str] = []
    for part in parts:
        if found and (found[-1], part) == pair:
            found[-1] += part
        else:
            found.append(part)
    return found


def read_merges(path: Path) -> dict[tuple[str, str], int]:
    """Return the rank of each merge; ValueError if the file is not a list of them."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    lines = path.read_text(encoding="utf-8").split("\n")
    pairs = [line.split() for line in lines if line.strip()]
    wrong = [pair for pair in pairs if len(pair) < 2]
    if wrong:
        raise ValueError(f"{path} is not a list of merges: {wrong[0][0]!r} is no pair")
    return {(pair[0], pair[1]): rank for rank, pair in enumerate(pairs)}
