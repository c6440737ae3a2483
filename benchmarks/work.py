"""The work that every system is given: model sizes, training batches, sentences to translate.

Also how many multiply-adds each piece of work has.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from transformer import Config
from transformer.corpora import multi30k
from transformer.data import (
    Batch,
    batches_by_length,
    collate,
    encode,
    encode_pairs,
    pad,
    train_tokenizer,
)

VOCABULARY = 10_000
DROPOUT = 0.1
SMOOTHING = 0.1
MAX_TOKENS = 2_048  # in a training batch, on either side, padding included
STEPS = 20  # tokens in every translation
BEAM_SIZE = 5
WORKS = ("train", "greedy", "beam5", "one")
DTYPES = ("fp32", "bf16")


@dataclass(frozen=True)
class Size:
    """The size of a model, and how much work it is given so that a sample takes seconds."""

    name: str
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    vocabulary: int = VOCABULARY
    max_len: int = 256
    rounds: int = 5
    batches: int = 3
    greedy: int = 1_000
    beam5: int = 100
    one: int = 50

    def config(self) -> Config:
        """Return the config of this library's model."""
        sizes = dict(
            d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads, d_ff=self.d_ff
        )
        return Config(self.vocabulary, dropout=DROPOUT, max_len=self.max_len, **sizes)


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 128, 4, 4, 256),
        Size("small", 256, 3, 8, 512),
        Size("base", 512, 6, 8, 2_048, rounds=3, batches=1, greedy=100, one=10),
    )
}


def prepare(where: Path, folder: str | None = None) -> None:
    """Write into `where` the captions of Multi30k as ids of a shared vocabulary, and its tokenizer.

    `folder` (or $MULTI30K) holds a local copy. Raises OSError or ValueError if a file is missing.
    """
    corpus = multi30k(folder=folder)
    tokenizer = train_tokenizer(corpus.texts(), VOCABULARY, corpus.lowercase)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(
            f"the vocabulary has {tokenizer.get_vocab_size()} subwords, wanted {VOCABULARY}"
        )
    ids = {
        "train": encode_pairs(tokenizer, corpus.train),
        "test": encode(tokenizer, [src for src, _ in corpus.test]),
    }
    (where / "ids.json").write_text(json.dumps(ids))
    tokenizer.save(str(where / "tokenizer.json"))


@dataclass(frozen=True)
class Data:
    """The files that `prepare` has written."""

    folder: Path

    @cached_property
    def ids(self) -> dict:
        return json.loads((self.folder / "ids.json").read_text())

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def training(self, batches: int) -> list[Batch]:
        """Return training batches by length, spread evenly over all lengths."""
        groups = batches_by_length(self.ids["train"], MAX_TOKENS)
        return [collate(group) for group in evenly(groups, batches)]

    def sources(self, sentences: int, batch: int) -> list[Tensor]:
        """Return batches of test sentences, spread evenly over all lengths, the shortest first."""
        rows = evenly(sorted(self.ids["test"], key=len), sentences)
        return [pad(rows[i : i + batch]) for i in range(0, len(rows), batch)]

    def sources_of(self, work: str, size: Size) -> list[Tensor]:
        """Return the sources of a work other than training."""
        batch = {"greedy": 64, "beam5": 32, "one": 1}[work]
        return self.sources(getattr(size, work), batch)


def evenly(items: Sequence, count: int) -> list:
    """Return the items in the middle of `count` equal parts."""
    count = min(count, len(items))
    return [items[int((i + 0.5) * len(items) / count)] for i in range(count)]


def target_tokens(batches: Sequence[Batch]) -> int:
    """Return the number of target tokens without padding."""
    return sum(batch.n_tokens for batch in batches)


def training_multiply_adds(size: Size, batches: Sequence[Batch]) -> float:
    """Return the multiply-adds of one pass of training: forward, and twice as many backward."""
    total = 0.0
    for batch in batches:
        b, k = batch.src.shape
        t = batch.labels.shape[1]
        decoder = b * t * (per_target(size, k) + 2 * size.d_model * t)
        total += 3 * (
            b * k * per_source(size, k)
            + size.n_layers * decoder
            + b * t * size.d_model * size.vocabulary
        )
    return total


def decoding_multiply_adds(size: Size, batches: Sequence[Tensor], beam_size: int = 1) -> float:
    """Return the multiply-adds of translating into STEPS tokens with a cache of keys and values."""
    total = 0.0
    for src in batches:
        b, k = src.shape
        token = (
            size.n_layers * (per_target(size, k) + size.d_model * (STEPS + 1))
            + size.d_model * size.vocabulary
        )
        total += b * k * per_source(size, k) + beam_size * b * STEPS * token
    return total


def per_source(size: Size, k: int) -> float:
    """Return the multiply-adds for one of k source tokens, padding included.

    They are those of the encoder, and of the decoder's keys and values for the source.
    """
    d = size.d_model
    return size.n_layers * (6 * d * d + 2 * d * size.d_ff + 2 * d * k)


def per_target(size: Size, k: int) -> float:
    """Return the multiply-adds of a decoder layer for one target token, padding included.

    The scores of self-attention, and the mixing of its values, are not counted here.
    """
    d = size.d_model
    return 6 * d * d + 2 * d * size.d_ff + 2 * d * k
