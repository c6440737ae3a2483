"""Search as a published checkpoint wants to be searched."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import torch

from transformer.cpu.workers import parallel_map
from transformer.data import pad
from transformer.engines.protocol import Group, Hypothesis, Search
from transformer.engines.pytorch import EndLater, split_groups
from transformer.inference import IncrementalDecoder
from transformer.pretrained import PublishedTransformer
from transformer.published import SearchRules, search_rows


class RulesEngine:
    """Search with PyTorch by the rules of a checkpoint, so that the result is that of `generate`.

    Beam and length penalty are those of the `Search`; how a sentence ends, banned and forced tokens
    are the checkpoint's. On a CPU as many groups as PyTorch has threads are searched at once.
    """

    def __init__(self, model: PublishedTransformer, rules: SearchRules):
        self.model = model
        self.rules = rules

    def search_all(
        self, groups: Sequence[Group], search: Search = Search()
    ) -> Iterator[list[list[Hypothesis]]]:
        """Yield the hypotheses of each group; see `Engine.search_all`."""
        check_source_rows(groups, self.model)
        workers = torch.get_num_threads() if self.model.bias.device.type == "cpu" else 1
        split = split_groups(groups, workers)
        work = partial(search_group, self.model, self.rules, search)
        found = parallel_map(work, [part for group in split for part in group], workers)
        for group in split:
            yield list(chain.from_iterable(next(found) for _ in group))


def search_group(
    model: PublishedTransformer, rules: SearchRules, search: Search, group: Group
) -> list[list[Hypothesis]]:
    """Search for the translations of a group's rows."""
    rows, max_len = group
    if not rows:
        return []
    rules = replace(
        rules,
        beam_size=search.beam_size,
        length_penalty=search.length_penalty,
        max_len=min(max_len, rules.max_len),
    )
    src = pad(rows, model.config.pad_id).to(model.bias.device)
    decoder = partial(EndLater, IncrementalDecoder, search.min_len)
    decoder = decoder if search.min_len else IncrementalDecoder
    found = search_rows(model, src, rules, decoder, search.scores)
    return [
        [Hypothesis(list(ids), score) for ids, score in best[: search.n_best]] for best in found
    ]


def check_source_rows(groups: Sequence[Group], model: PublishedTransformer) -> None:
    """Raise a ValueError for an id outside the source vocabulary, or a row over max_len."""
    config = model.config
    for number, row in enumerate((row for rows, _ in groups for row in rows), start=1):
        if len(row) > config.max_len:
            limit = f"the model's max_len is {config.max_len}: split it"
            raise ValueError(f"row {number} has {len(row)} tokens, {limit}")
        if not 0 <= min(row, default=0) <= max(row, default=0) < config.source_vocab_size:
            last = config.source_vocab_size - 1
            raise ValueError(f"row {number} has ids outside the vocabulary, which ends at {last}")
