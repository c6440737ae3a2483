"""The interface of every engine: groups of source rows in, rows of target ids out."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from transformer.model import Config

Group = tuple[Sequence[Sequence[int]], int]
"""Rows of source ids, and `max_len`: the most tokens that a translation may have."""


@runtime_checkable
class Engine(Protocol):
    """Searches for translations of rows of token ids.

    An engine can be copied and pickled. Its weights are those of the model when it was made: after
    more training, make a new one.
    """

    def search_all(
        self, groups: Sequence[Group], beam_size: int = 5, length_penalty: float = 1.0
    ) -> Iterator[list[list[int]]]:
        """Yield for each group, in order, one row of target ids for each row of source ids.

        Source rows end with </s> and are not padded. Target rows have no <s> and no padding, and
        end with </s> unless they were cut off after `max_len` tokens. A `beam_size` of 1 is greedy
        search. Raises ValueError for rows that the model cannot read.
        """
        ...


def check_search(groups: Sequence[Group], beam_size: int, config: Config) -> None:
    """Raise a ValueError for an empty beam, an id outside the vocabulary, or a row over max_len.

    The model itself does not look at the values of its input, because that would stall a GPU.
    """
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, not {beam_size}")
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
