"""The batches of a run: both directions first if wanted, and subwords that are split anew."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

from tokenizers import Tokenizer

from transformer.corpora.tokenised import TokenisedPairs
from transformer.data import BOS, EOS, PAD, UNK, Batch, Pair, pad
from transformer.ranks import Ranks, current
from transformer.recipes.mapped import Feed
from transformer.recipes.presets import Preset
from transformer.training import TrainingConfig

Batches = tuple[Batch, ...]
"""What a step learns from."""


@dataclass
class Stream:
    """The batches of a run, step by step, as its techniques want them.

    For the first steps, `both_directions` of them, a batch has pairs of both directions; nothing
    tells the model which is which but the language of the source (Ding et al. 2021). After that it
    has those of one. `split` changes each batch.
    """

    pairs: Sequence[Pair]
    config: TrainingConfig
    both_directions: int = 0
    split: Callable[[Batch], Batch] | None = None
    ranks: Ranks = field(default_factory=current)

    def steps(self, start: int = 0) -> Iterator[Batches]:
        """Yield this process's part of the batches of every step from `start` on, for ever."""
        if self.split is None:
            return self.plain(start)
        split = self.split
        return (tuple(map(split, group)) for group in self.plain(start))

    def plain(self, start: int) -> Iterator[Batches]:
        """Yield the batches before `split` changes them."""
        first = self.both_directions
        if start < first:
            yield from islice(self.both.steps(start), first - start)
        yield from self.one.steps(max(start - first, 0))

    def epoch_of(self, step: int) -> int:
        """Return which epoch, counted from 0, the last batch of a step belongs to.

        An epoch of the steps in both directions reads every pair twice.
        """
        first = min(step, self.both_directions)
        begun = self.both.epoch_of(first) + 1 if first else 0
        if step == first:
            return max(begun - 1, 0)
        return begun + self.one.epoch_of(step - first)

    @cached_property
    def one(self) -> Feed:
        """The batches of one direction."""
        return Feed(self.pairs, self.config, self.ranks)

    @cached_property
    def both(self) -> Feed:
        """The batches of both directions."""
        return Feed(both_directions(self.pairs), self.config, self.ranks)


def stream_of(pairs: Sequence[Pair], preset: Preset, tokenizer: Tokenizer, max_len: int) -> Stream:
    """Return the batches of a run with a preset; a row has at most `max_len` tokens.

    Raises ValueError for both directions of pairs that are mapped into memory.
    """
    techniques = preset.techniques
    if techniques.both_directions and isinstance(pairs, TokenisedPairs):
        raise ValueError("both directions are for training files that fit into memory")
    split = None
    if techniques.bpe_dropout:
        split = BPEDropout(tokenizer, techniques.bpe_dropout, max_len)
    return Stream(pairs, preset.training, techniques.both_directions, split)


# --- both directions ------------------------------------------------------------------------------


def both_directions(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs and, after them, each pair turned around."""
    return [*pairs, *(reverse(pair) for pair in pairs)]


def reverse(pair: Pair) -> Pair:
    """Return a pair of ids in the other direction: only the target has <s>."""
    src, tgt = pair
    return tgt[1:], [BOS, *src]


# --- BPE-dropout ----------------------------------------------------------------------------------


class BPEDropout:
    """Split the words of a batch anew, leaving out each merge of subwords with probability `p`.

    So a model sees a word in many spellings. A row that has an unknown character, or would have
    more than `max_len` tokens, stays as it is. The draws are those of the package tokenizers, which
    takes no seed: a run with BPE-dropout cannot be repeated to the bit. The batch has as many
    tokens more as the splits make. One of several processes splits its own rows, whose share in the
    step stays what it was. Source: Provilkov et al. 2020.
    """

    def __init__(self, tokenizer: Tokenizer, p: float, max_len: int):
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.encode_special_tokens = True  # the text does not keep this setting
        self.tokenizer.model.dropout = p
        self.max_len = max_len

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with other splits of the same sentences."""
        sources = self.split(batch.src.tolist(), [])
        targets = self.split(batch.tgt.tolist(), [BOS])
        return replace(batch, src=pad(sources), tgt=pad(targets))

    def split(self, rows: list[list[int]], start: list[int]) -> list[list[int]]:
        """Return the rows with other splits; each begins with `start` and ends with </s>."""
        plain = [[i for i in row if i != PAD] for row in rows]
        texts = self.tokenizer.decode_batch(plain)  # it leaves out <s> and </s>
        found = [[*start, *e.ids, EOS] for e in self.tokenizer.encode_batch(texts)]
        return [
            row if UNK in row or len(new) > self.max_len else new
            for row, new in zip(plain, found, strict=True)
        ]
