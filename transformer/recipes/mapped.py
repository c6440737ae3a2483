"""Batches of tokenised pairs, the same as chapter 11's, without having all pairs in memory."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from transformer.corpora.tokenised import TokenisedPairs
from transformer.data import Batch, Pair, batches_by_length, collate
from transformer.distributed import Shard, my_share, shard, shards
from transformer.ranks import Ranks
from transformer.training import TrainingConfig, training_batches


def parts(batches: Iterable[Batch], ranks: Ranks) -> Iterator[Batch]:
    """Yield this process's part of each batch."""
    for batch in batches:
        yield batch if ranks.world == 1 else shard(batch, ranks.rank, ranks.world)


class Feed:
    """The batches that a process learns from, step by step.

    Of pairs in a list they are those of `training_batches`. Tokenised pairs give the same batches,
    and a process reads only its own rows.
    """

    def __init__(self, pairs: Sequence[Pair], config: TrainingConfig, ranks: Ranks):
        self.pairs = pairs
        self.config = config
        self.ranks = ranks

    def steps(self, start: int) -> Iterator[tuple[Batch, ...]]:
        """Yield this process's part of the batches of every step from `start` on, for ever."""
        config = self.config
        if isinstance(self.pairs, TokenisedPairs):
            batches = self.batches(self.pairs, *divmod(start * config.accumulate, self.per_epoch))
            return zip(*[batches] * config.accumulate, strict=False)
        steps = training_batches(self.pairs, config, start)
        if self.ranks.world == 1:
            return steps
        return shards(steps, self.ranks.rank, self.ranks.world)

    def epoch_of(self, step: int) -> int:
        """Return which epoch, counted from 0, the last batch of a step belongs to."""
        return (step * self.config.accumulate - 1) // self.per_epoch

    @cached_property
    def per_epoch(self) -> int:
        """The number of batches in an epoch; it does not depend on the order of the pairs."""
        if isinstance(self.pairs, TokenisedPairs):
            return len(self.bounds) - 1
        return len(batches_by_length(self.pairs, self.config.max_tokens))

    @cached_property
    def lengths(self) -> tuple[Tensor, Tensor]:
        """The lengths of all sources and of all targets."""
        assert isinstance(self.pairs, TokenisedPairs)
        return self.pairs.src.lengths(), self.pairs.tgt.lengths()

    @cached_property
    def bounds(self) -> list[int]:
        """Where batches begin and end among the pairs sorted by length, as `batches_by_length`."""
        src, tgt = self.lengths
        longer = torch.maximum(src, tgt)[self.by_length(torch.arange(len(src)))]
        most = self.config.max_tokens
        bounds = [0]
        while bounds[-1] < len(longer):
            rest = longer[bounds[-1] :]
            widths = rest[: max(1, most // int(rest[0]))].cummax(0).values
            fitting = widths * torch.arange(1, len(widths) + 1) <= most
            bounds.append(bounds[-1] + max(1, int(fitting.sum())))
        return bounds

    def by_length(self, order: Tensor) -> Tensor:
        """Return the pairs of `order` sorted by the target's length, then by the source's."""
        src, tgt = self.lengths
        key = tgt[order].long() * 2**20 + src[order]
        return order[key.sort(stable=True).indices]

    def batches(self, pairs: TokenisedPairs, number: int, skip: int) -> Iterator[Batch]:
        """Yield this process's part of every batch from the `skip`-th of epoch `number` on."""
        done = 0
        while True:
            generator = torch.Generator().manual_seed(self.config.seed + number)
            order = self.by_length(torch.randperm(len(pairs), generator=generator))
            for i in torch.randperm(self.per_epoch, generator=generator).tolist()[skip:]:
                rows = order[self.bounds[i] : self.bounds[i + 1]].tolist()
                done += 1
                yield self.part(pairs, rows, done % self.config.accumulate == 0)
            number += 1
            skip = 0

    def part(self, pairs: TokenisedPairs, rows: list[int], is_last: bool) -> Batch:
        """Return this process's part of the batch of some rows."""
        rank = self.ranks.rank
        mine = my_share(len(rows), rank, self.ranks.world)
        batch = collate([pairs[rows[i]] for i in mine])
        if self.ranks.world == 1:
            return batch
        whole = int((self.lengths[1][rows] - 1).sum())
        share = batch.n_tokens / whole if rank < len(rows) else 0.0
        return Shard(batch.src, batch.tgt, share, whole, is_last)
