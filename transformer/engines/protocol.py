"""The interface of every engine: groups of source rows in, hypotheses for each row out."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from transformer.model import Config

Group = tuple[Sequence[Sequence[int]], int]
"""Rows of source ids, and `max_len`: the most tokens that a translation may have."""


class Hypothesis(NamedTuple):
    """Target ids, and their log-probability / length ** length_penalty; nan if not asked for."""

    ids: list[int]
    score: float


@dataclass(frozen=True)
class Search:
    """How to search.

    A `beam_size` of 1 is greedy search. `n_best` hypotheses are returned for each row, at most
    `beam_size`. A translation has at least `min_len` tokens before </s>. Greedy search computes no
    `scores` unless asked. Raises ValueError for what cannot be searched.
    """

    beam_size: int = 5
    length_penalty: float = 1.0
    n_best: int = 1
    min_len: int = 0
    scores: bool = False

    def __post_init__(self):
        if self.beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, not {self.beam_size}")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty must be a number, not {self.length_penalty}")
        if not 1 <= self.n_best <= self.beam_size:
            limits = f"from 1 to beam_size={self.beam_size}"
            raise ValueError(f"n_best must be {limits}, not {self.n_best}")
        if self.min_len < 0:
            raise ValueError(f"min_len must be at least 0, not {self.min_len}")


@runtime_checkable
class Engine(Protocol):
    """Searches for translations of rows of token ids.

    An engine can be copied and pickled. Its weights are those of the model when it was made: after
    more training, make a new one.
    """

    def search_all(
        self, groups: Sequence[Group], search: Search = Search()
    ) -> Iterator[list[list[Hypothesis]]]:
        """Yield for each group, in order, the best hypotheses of each row, best first.

        Source rows end with </s> and are not padded. Target rows have no <s> and no padding, and
        end with </s> unless they were cut off after `max_len` tokens. Raises ValueError for rows
        that the model cannot read.
        """
        ...


def check_rows(groups: Sequence[Group], config: Config) -> None:
    """Raise a ValueError for an id outside the vocabulary, or a row over the model's max_len.

    The model itself does not look at the values of its input, because that would stall a GPU.
    """
    rows = [row for rows, _ in groups for row in rows]
    ids = {i for row in rows for i in row}
    if ids and not 0 <= min(ids) <= max(ids) < config.vocab_size:
        last = config.vocab_size - 1
        raise ValueError(
            f"rows has ids from {min(ids)} to {max(ids)}, but the vocabulary ends at {last}"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) > config.max_len:
            raise ValueError(
                f"row {number} has {len(row)} tokens, the model's max_len is {config.max_len}: "
                "split it"
            )


def check_process(made_in: int, now: int, name: str) -> None:
    """Raise a RuntimeError in a forked child, where the engine's threads are missing."""
    if made_in != now:
        raise RuntimeError(
            f"this {name} engine was loaded before a fork and has no threads here: load the "
            "translator in the child process"
        )
