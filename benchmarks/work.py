"""The work that every system is given: model sizes, training batches, sentences to translate, and their arithmetic."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from transformer import Config
from transformer.data import Batch, batches_by_length, collate, encode, multi30k, pad, to_ids

VOCABULARY = 10_000
DROPOUT, SMOOTHING = 0.1, 0.1
PLACES = 2_048  # in a training batch, padding counted, on either side
STEPS = 20  # tokens that every translation has
BEAM_SIZE = 5
WORKS = ("train", "greedy", "beam5", "one")
DTYPES = ("fp32", "bf16")


@dataclass(frozen=True)
class Size:
    """How large the model is, and how much of the work it is given so that a sample takes seconds."""

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
        """Return the sizes as this library's model takes them."""
        sizes = dict(d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads, d_ff=self.d_ff)
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
    """Write the captions of Multi30k, as ids of a vocabulary that both languages share, where the processes find them.

    `folder` (or $MULTI30K) holds a local copy; OSError or ValueError says what is missing.
    """
    corpus = multi30k(folder=folder)
    tokenizer = corpus.tokenizer(VOCABULARY)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the vocabulary has {tokenizer.get_vocab_size()} subwords, wanted {VOCABULARY}")
    ids = {"train": to_ids(tokenizer, corpus.train), "test": encode(tokenizer, [src for src, _ in corpus.test])}
    (where / "ids.json").write_text(json.dumps(ids))
    tokenizer.save(str(where / "tokenizer.json"))


@dataclass(frozen=True)
class Data:
    """What `prepare` has written."""

    folder: Path

    @cached_property
    def ids(self) -> dict:
        return json.loads((self.folder / "ids.json").read_text())

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def training(self, batches: int) -> list[Batch]:
        """Return training batches by length, spread evenly over all lengths."""
        groups = batches_by_length(self.ids["train"], PLACES)
        return [collate(group) for group in evenly(groups, batches)]

    def sources(self, sentences: int, batch: int) -> list[Tensor]:
        """Return test sentences spread evenly over all lengths, shortest first, in batches of like length."""
        rows = evenly(sorted(self.ids["test"], key=len), sentences)
        return [pad(rows[i : i + batch]) for i in range(0, len(rows), batch)]

    def decoding(self, work: str, size: Size) -> list[Tensor]:
        """Return the sources of one of the decoding works."""
        batch = {"greedy": 64, "beam5": 32, "one": 1}[work]
        return self.sources(getattr(size, work), batch)


def evenly(items: Sequence, count: int) -> list:
    """Return `count` items from the middles of as many equal parts."""
    count = min(count, len(items))
    return [items[int((i + 0.5) * len(items) / count)] for i in range(count)]


def target_tokens(batches: Sequence[Batch]) -> int:
    """Return how many target tokens training learns from: padding does not count."""
    return sum(int((batch.labels != 0).sum()) for batch in batches)


def training_multiply_adds(size: Size, batches: Sequence[Batch]) -> float:
    """Return the multiply-adds of the matrix products of one pass: forward, and twice that backward."""
    total = 0.0
    for batch in batches:
        (b, k), t = batch.src.shape, batch.labels.shape[1]
        decoder = b * t * (per_target(size, k) + 2 * size.d_model * t)
        total += 3 * (b * k * per_source(size, k) + size.n_layers * decoder + b * t * size.d_model * size.vocabulary)
    return total


def decoding_multiply_adds(size: Size, batches: Sequence[Tensor], beam_size: int = 1) -> float:
    """Return the multiply-adds of translating into STEPS tokens with keys and values kept: none is made twice."""
    total = 0.0
    for src in batches:
        b, k = src.shape
        token = size.n_layers * (per_target(size, k) + size.d_model * (STEPS + 1)) + size.d_model * size.vocabulary
        total += b * k * per_source(size, k) + beam_size * b * STEPS * token
    return total


def per_source(size: Size, k: int) -> float:
    """Return the multiply-adds for one of k source places: the encoder, and keys and values for the decoder."""
    d = size.d_model
    return size.n_layers * (6 * d * d + 2 * d * size.d_ff + 2 * d * k)


def per_target(size: Size, k: int) -> float:
    """Return the multiply-adds of a decoder layer for one target place, without its look at the target itself."""
    d = size.d_model
    return 6 * d * d + 2 * d * size.d_ff + 2 * d * k
