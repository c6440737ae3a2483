"""Search with PyTorch: packed weights and one-thread workers on a CPU, plain PyTorch on a GPU."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer.cpu.workers import parallel_map
from transformer.data import pad
from transformer.engines.protocol import Group, Hypothesis, Search, check_rows
from transformer.fast_decoding import PackedDecoder
from transformer.inference import (
    IncrementalDecoder,
    MakeDecoder,
    TokenDecoder,
    beam_hypotheses,
    greedy_search,
)
from transformer.model import Transformer

MIN_PART = 8
"""Sentences below which no group is cut: a step costs nearly as much for fewer."""


class PyTorchEngine:
    """Search with PyTorch, on the device that the model is on.

    On a CPU the weights are packed once, and as many groups as PyTorch has threads are searched at
    the same time, each by a worker with one thread. On a GPU groups are searched one by one.
    """

    def __init__(self, model: Transformer):
        on_cpu = model.bias.device.type == "cpu"
        self.model = model
        self.decoder = PackedDecoder(model) if on_cpu else IncrementalDecoder

    def __reduce__(self) -> tuple:
        """Rebuild a copy from its model; packed weights can be neither copied nor pickled."""
        return PyTorchEngine, (self.model,)

    def search_all(
        self, groups: Sequence[Group], search: Search = Search()
    ) -> Iterator[list[list[Hypothesis]]]:
        """Yield the hypotheses of each group; see `Engine.search_all`."""
        check_rows(groups, self.model.config)
        workers = torch.get_num_threads() if self.model.bias.device.type == "cpu" else 1
        split = split_groups(groups, workers)
        parts = [part for group in split for part in group]
        work = partial(search_group, self.model, search=search, decoder=self.decoder)
        found = parallel_map(work, parts, workers)
        for group in split:
            yield [hypotheses for _ in group for hypotheses in next(found)]


def search_group(
    model: Transformer, group: Group, search: Search, decoder: MakeDecoder
) -> list[list[Hypothesis]]:
    """Search for the translations of a group's rows with the searches of chapter 12."""
    rows, max_len = group
    if not rows:
        return []
    pad_id = model.config.pad_id
    src = pad(rows, pad_id).to(model.bias.device)
    if search.min_len:
        decoder = partial(EndLater, decoder, search.min_len)
    if search.beam_size == 1 and not search.scores:
        ids = greedy_search(model, src, max_len, decoder).tolist()
        return [[Hypothesis([i for i in row if i != pad_id], math.nan)] for row in ids]
    finished = beam_hypotheses(
        model, src, search.beam_size, search.length_penalty, max_len, decoder
    )
    return [best_first(hypotheses, search.n_best) for hypotheses in finished]


def best_first(finished: list[tuple], n_best: int) -> list[Hypothesis]:
    """Return the best of a sentence's finished hypotheses, best first."""
    ranked = sorted(finished, key=lambda hypothesis: -hypothesis[0])[:n_best]
    return [Hypothesis(ids.tolist(), rank) for rank, _, ids in ranked]


class EndLater(TokenDecoder):
    """Another decoder, in which </s> has no probability for the first `min_len` tokens."""

    def __init__(self, make: MakeDecoder, min_len: int, model: Transformer, src: Tensor):
        self.decoder = make(model, src)
        self.left = min_len
        self.eos_id = model.config.eos_id
        self.argmax = self.decoder.argmax
        self.best_extensions = self.decoder.best_extensions
        self.reorder = self.decoder.reorder

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        logits = self.decoder.step(ids)
        if self.left > 0:
            self.left -= 1
            logits[:, self.eos_id] = -math.inf
        return logits


def split_groups(groups: Sequence[Group], workers: int) -> list[list[Group]]:
    """Return each group as a list of parts of equal size, for workers that take one at a time.

    A group is cut if it is larger, by more than a quarter, than one worker's share of all
    sentences. So a few large groups give every worker something to do; when there are many groups,
    each is smaller than a share and stays whole.
    """
    share = max(MIN_PART, sum(len(rows) for rows, _ in groups) / workers)
    return [split_group(group, math.ceil(len(group[0]) / share - 1 / 4)) for group in groups]


def split_group(group: Group, count: int) -> list[Group]:
    """Return a group as `count` parts of equal size; the last one may be smaller."""
    rows, max_len = group
    size = math.ceil(len(rows) / max(count, 1))
    return [(rows[i : i + size], max_len) for i in range(0, len(rows), max(size, 1))]
