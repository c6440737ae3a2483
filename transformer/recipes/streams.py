"""The batches of a run: both directions first if wanted, and subwords that are split anew."""

from collections.abc import Iterator, Sequence
from itertools import islice

from tokenizers import Tokenizer

from transformer.data import BOS, EOS, PAD, UNK, Batch, Pair, batches_by_length, pad
from transformer.recipes.techniques import Techniques
from transformer.training import TrainingConfig, training_batches

Batches = tuple[Batch, ...]
"""What a step learns from."""


def batch_stream(
    pairs: Sequence[Pair],
    config: TrainingConfig,
    techniques: Techniques,
    tokenizer: Tokenizer,
    max_len: int,
    start: int = 0,
) -> Iterator[Batches]:
    """Yield the batches of every step from step `start` on, as the techniques want them.

    A row has at most `max_len` tokens, also after BPE-dropout.
    """
    batches = both_then_one(pairs, config, techniques.both_directions, start)
    if not techniques.bpe_dropout:
        return batches
    split = BPEDropout(tokenizer, techniques.bpe_dropout, max_len)
    return (tuple(map(split, group)) for group in batches)


# --- both directions ------------------------------------------------------------------------------


def both_then_one(
    pairs: Sequence[Pair], config: TrainingConfig, steps: int, start: int = 0
) -> Iterator[Batches]:
    """Yield `training_batches` of both directions for the first `steps`, then of one.

    A batch of the first kind has pairs of both directions; nothing tells the model which is which
    but the language of the source. Source: Ding et al. 2021.
    """
    if start < steps:
        both = both_directions(pairs)
        yield from islice(training_batches(both, config, start), steps - start)
    yield from training_batches(pairs, config, max(start - steps, 0))


def both_directions(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs and, after them, each pair turned around."""
    return [*pairs, *(reverse(pair) for pair in pairs)]


def reverse(pair: Pair) -> Pair:
    """Return a pair of ids in the other direction: only the target has <s>."""
    src, tgt = pair
    return tgt[1:], [BOS, *src]


def epoch_of(
    steps: int, pairs: Sequence[Pair], config: TrainingConfig, techniques: Techniques
) -> int:
    """Return which epoch, counted from 0, the last batch belonged to.

    An epoch of the steps in both directions reads every pair twice.
    """
    first = min(steps, techniques.both_directions)
    epochs = 0
    if first:
        epochs = (first * config.accumulate - 1) // count(both_directions(pairs), config)
    if steps == first:
        return epochs
    begun = epochs + 1 if first else 0
    return begun + ((steps - first) * config.accumulate - 1) // count(pairs, config)


def count(pairs: Sequence[Pair], config: TrainingConfig) -> int:
    """Return the number of batches in an epoch."""
    return len(batches_by_length(pairs, config.max_tokens))


# --- BPE-dropout ----------------------------------------------------------------------------------


class BPEDropout:
    """Split the words of a batch anew, leaving out each merge of subwords with probability `p`.

    So a model sees a word in many spellings. A row that has an unknown character, or would have
    more than `max_len` tokens, stays as it is. The draws are those of the package tokenizers, which
    takes no seed: a run with BPE-dropout cannot be repeated to the bit. The batch has as many
    tokens more as the splits make. Source: Provilkov et al. 2020.
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
        return Batch(pad(sources), pad(targets))

    def split(self, rows: list[list[int]], start: list[int]) -> list[list[int]]:
        """Return the rows with other splits; each begins with `start` and ends with </s>."""
        plain = [[i for i in row if i != PAD] for row in rows]
        texts = self.tokenizer.decode_batch(plain)  # it leaves out <s> and </s>
        found = [[*start, *e.ids, EOS] for e in self.tokenizer.encode_batch(texts)]
        return [
            row if UNK in row or len(new) > self.max_len else new
            for row, new in zip(plain, found, strict=True)
        ]
