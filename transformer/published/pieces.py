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
M2M100_LANGUAGES = (
    "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu "
    "ha he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms "
    "my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur "
    "uz vi wo xh yi yo zh zu"
).split()


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
        self.src_id, self.tgt_id = chosen(languages, self.codes, folder)
        self.first_id = self.tgt_id
        most = max(size_of(self.vocabulary), *(i + 1 for i in self.codes.values()))
        self.sizes = (most, most)

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        return [[self.src_id, *self.ids(text), self.eos_id] for text in texts]

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text's pieces."""
        pieces = self.pieces.encode(text, out_type=str)
        return [self.vocabulary.get(piece, self.unknown) for piece in pieces]

    def encode_targets(self, texts: Iterable[str]) -> list[list[int]]:
        return [[self.tgt_id, *self.ids(text), self.eos_id] for text in texts]

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
        vocabulary = self.tokenizer.get_vocab()
        if not {UNKNOWN, "</s>"} <= vocabulary.keys():
            raise ValueError(f"{path} has no {UNKNOWN} and no </s>")
        self.unknown = vocabulary[UNKNOWN]
        self.eos_id = vocabulary["</s>"]
        self.pad_id = self.tokenizer.token_to_id("<pad>")
        self.src_id, self.tgt_id = chosen(languages, self.codes, folder)
        self.first_id = self.tgt_id
        most = size_of(vocabulary)
        self.sizes = (most, most)

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        return [[self.src_id, *ids, self.eos_id] for ids in self.ids(texts)]

    def ids(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the ids of each text's pieces."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_targets(self, texts: Iterable[str]) -> list[list[int]]:
        return [[self.tgt_id, *ids, self.eos_id] for ids in self.ids(texts)]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        return self.tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True)

    def without_content(self) -> set[int]:
        space = self.tokenizer.get_vocab().get("▁", self.unknown)
        return {self.unknown, self.eos_id, space, *self.codes.values()}


def language_ids(folder: Path, first: int) -> dict[str, int]:
    """Return the ids of M2M100's languages, which follow the vocabulary in alphabetical order.

    The files do not list them. ValueError for the languages of another model.
    """
    path = folder / "tokenizer_config.json"
    kind = read_settings(path).get("language_codes", "m2m100") if path.is_file() else "m2m100"
    if kind != "m2m100":
        raise ValueError(f"{path} has language_codes {kind!r}, and only m2m100 is supported")
    return {code: first + i for i, code in enumerate(M2M100_LANGUAGES)}


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
