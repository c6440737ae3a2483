"""Search with PyTorch: packed weights and one-thread workers on a CPU, plain PyTorch on a GPU."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from transformer.cpu.workers import parallel_map
from transformer.data import pad
from transformer.engines.protocol import Group, check_search
from transformer.fast_decoding import PackedDecoder
from transformer.inference import IncrementalDecoder, beam_search, greedy_search
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
        self, groups: Sequence[Group], beam_size: int = 5, length_penalty: float = 1.0
    ) -> Iterator[list[list[int]]]:
        """Yield the translations of each group; see `Engine.search_all`."""
        check_search(groups, beam_size, self.model.config)
        workers = torch.get_num_threads() if self.model.bias.device.type == "cpu" else 1
        split = split_groups(groups, workers)
        parts = [part for group in split for part in group]
        search = partial(
            search_group,
            self.model,
            beam_size=beam_size,
            length_penalty=length_penalty,
            decoder=self.decoder,
        )
        found = parallel_map(search, parts, workers)
        for group in split:
            yield [ids for _ in group for ids in next(found)]


def search_group(
    model: Transformer, group: Group, beam_size: int, length_penalty: float, decoder: Callable
) -> list[list[int]]:
    """Search for the translations of a group's rows with the searches of chapter 12."""
    rows, max_len = group
    if not rows:
        return []
    pad_id = model.config.pad_id
    src = pad(rows, pad_id).to(model.bias.device)
    if beam_size == 1:
        ids = greedy_search(model, src, max_len, decoder)
    else:
        ids, _ = beam_search(model, src, beam_size, length_penalty, max_len, decoder)
    return [[i for i in row if i != pad_id] for row in ids.tolist()]


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
