"""Tokens by sentencepiece, or by a tokenizer.json that was made of it: Marian, M2M100 and NLLB.

The ids of Marian and M2M100 are those of a vocab.json, not those of sentencepiece.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from transformer.published.families import read_settings
from transformer.published.hub import extra
from transformer.published.vocabularies import (
    SPECIAL,
    UNKNOWN,
    PublishedTokenizer,
    load_vocabulary,
    size_of,
)

TAG = re.compile(r">>[^<>]*<<")


def load_pieces(path: Path) -> Any:
    """Read a sentencepiece model; ValueError if it is damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return extra("sentencepiece").SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path} is not a sentencepiece model ({error!s:.200})") from None


# --- Marian ---------------------------------------------------------------------------------------


class MarianTokenizer(PublishedTokenizer):
    """Tokens of Helsinki-NLP/opus-mt-*: pieces by sentencepiece, ids by vocab.json.

    A sentence may begin with a language tag, >>ita<<, which is one token.
    """

    def __init__(self, folder: Path):
        self.source = load_pieces(folder / "source.spm")
        self.target = load_pieces(folder / "target.spm")
        self.vocabulary = load_vocabulary(folder / "vocab.json")
        target = folder / "target_vocab.json"
        self.target_vocabulary = load_vocabulary(target) if target.is_file() else self.vocabulary
        self.separate = target.is_file()
        self.tokens = {i: token for token, i in self.target_vocabulary.items()}
        self.sizes = (size_of(self.vocabulary), size_of(self.target_vocabulary))
        self.unknown = self.vocabulary[UNKNOWN]
        self.eos_id = self.vocabulary["</s>"]
        self.pad_id = self.vocabulary.get("<pad>")

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        return [[*self.source_ids(text), self.eos_id] for text in texts]

    def source_ids(self, text: str) -> list[int]:
        """Return the ids of a source: its tag, if it has one, and its pieces."""
        tag = TAG.match(text)
        tags = [tag.group()] if tag else []
        pieces = self.source.encode(text[tag.end() :] if tag else text, out_type=str)
        return [self.vocabulary.get(piece, self.unknown) for piece in [*tags, *pieces]]

    def encode_targets(self, texts: Iterable[str]) -> list[list[int]]:
        vocabulary = self.target_vocabulary
        unknown = vocabulary[UNKNOWN]
        rows = self.target.encode(list(texts), out_type=str)
        ends = vocabulary["</s>"]
        return [[*(vocabulary.get(piece, unknown) for piece in row), ends] for row in rows]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        pieces = self.target if self.separate else self.source  # as `transformers` does
        special = {"</s>", "<pad>", UNKNOWN}
        texts = []
        for row in rows:
            tokens = [self.tokens.get(i, UNKNOWN) for i in row]
            text = pieces.decode_pieces([token for token in tokens if token not in special])
            texts.append(text.replace("▁", " ").strip())
        return texts

    def without_content(self) -> set[int]:
        tags = {i for token, i in self.vocabulary.items() if TAG.fullmatch(token)}
        return {self.unknown, self.eos_id, self.vocabulary.get("▁", self.unknown)} | tags


# --- M2M100 and NLLB ------------------------------------------------------------------------------


class M2M100Tokenizer(PublishedTokenizer):
    """Tokens of facebook/m2m100_*: a language, pieces by sentencepiece, ids by vocab.json."""

    def __init__(self, folder: Path, languages: Sequence[str] | None):
        self.pieces = load_pieces(folder / "sentencepiece.bpe.model")
        self.vocabulary = load_vocabulary(folder / "vocab.json")
        self.tokens = {i: token for token, i in self.vocabulary.items()}
        self.codes = language_ids(folder, len(self.vocabulary))
        self.unknown = self.vocabulary[UNKNOWN]
        self.eos_id = self.vocabulary["</s>"]
        self.pad_id = self.vocabulary.get("<pad>")
        names = {code.strip("_"): i for code, i in self.codes.items()}
        self.src_id, self.first_id = chosen(languages, names, folder)
        most = max(size_of(self.vocabulary), *(i + 1 for i in self.codes.values()))
        self.sizes = (most, most)

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        return [[self.src_id, *self.ids(text), self.eos_id] for text in texts]

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text's pieces."""
        pieces = self.pieces.encode(text, out_type=str)
        return [self.vocabulary.get(piece, self.unknown) for piece in pieces]

    def encode_targets(self, texts: Iterable[str]) -> list[list[int]]:
        return [[self.first_id, *self.ids(text), self.eos_id] for text in texts]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        special = {self.vocabulary[token] for token in SPECIAL if token in self.vocabulary}
        skip = special | set(self.codes.values())
        kept = [[self.tokens.get(i, UNKNOWN) for i in row if i not in skip] for row in rows]
        return [self.pieces.decode_pieces(tokens).strip() for tokens in kept]

    def without_content(self) -> set[int]:
        space = self.vocabulary.get("▁", self.unknown)
        return {self.unknown, self.eos_id, space, *self.codes.values()}


class NllbTokenizer(PublishedTokenizer):
    """Tokens of facebook/nllb-*: a language, and the pieces of a tokenizer.json."""

    def __init__(self, folder: Path, languages: Sequence[str] | None):
        path = folder / "tokenizer.json"
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{path} is not a tokenizer ({error!s:.200})") from None
        added = self.tokenizer.get_added_tokens_decoder()
        names = {token.content: i for i, token in added.items()}
        self.codes = {name: i for name, i in names.items() if name not in SPECIAL}
        self.tokenizer.encode_special_tokens = True  # a </s> that somebody types is text
        self.unknown = self.tokenizer.token_to_id(UNKNOWN)
        self.eos_id = self.tokenizer.token_to_id("</s>")
        self.pad_id = self.tokenizer.token_to_id("<pad>")
        self.src_id, self.first_id = chosen(languages, self.codes, folder)
        most = 1 + max(self.tokenizer.get_vocab().values())
        self.sizes = (most, most)

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        return [[self.src_id, *ids, self.eos_id] for ids in self.ids(texts)]

    def ids(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the ids of each text's pieces."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_targets(self, texts: Iterable[str]) -> list[list[int]]:
        return [[self.first_id, *ids, self.eos_id] for ids in self.ids(texts)]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        return self.tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True)

    def without_content(self) -> set[int]:
        space = self.tokenizer.token_to_id("▁")
        return {self.unknown, self.eos_id, *self.codes.values()} | ({space} - {None})


def language_ids(folder: Path, first: int) -> dict[str, int]:
    """Return the ids of the language tokens, such as __it__, which follow the vocabulary.

    They are listed in order in tokenizer_config.json or special_tokens_map.json.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        settings = read_settings(path) if path.is_file() else {}
        added = settings.get("added_tokens_decoder") or {}
        numbered = {token["content"]: int(i) for i, token in added.items() if int(i) >= first}
        if numbered:
            return numbered
        for key in ("extra_special_tokens", "additional_special_tokens"):
            listed = settings.get(key) or []
            codes = [code for code in listed if re.fullmatch(r"__\w+__", str(code))]
            if codes:
                return {code: first + i for i, code in enumerate(codes)}
    raise ValueError(f"{folder} lists no languages: tokenizer_config.json is missing or another's")


def chosen(languages: Sequence[str] | None, known: dict[str, int], folder: Path) -> tuple[int, int]:
    """Return the ids of the source and target language; ValueError if they are not known."""
    if languages is None:
        raise ValueError(
            f"{folder} translates between {len(known)} languages: name the source and the target, "
            f"such as languages=({', '.join(map(repr, sorted(known)[:2]))})"
        )
    for language in languages:
        if language not in known:
            some = ", ".join(sorted(known)[:8])
            raise ValueError(f"{folder} has no language {language!r}; it has {some}, …")
    src, tgt = languages
    return known[src], known[tgt]
