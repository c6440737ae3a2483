"""The processes of one run: which of them this is, and what they tell each other.

`torchrun` starts several processes, numbers them from 0 (the **rank**), and lets them find each
other. A process that was started alone has rank 0 of 1, and nothing here costs it anything.
Messages are JSON or tensors; nothing is unpickled.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = timedelta(days=7)
"""How long a process waits for another that lives, such as one that waits for standard input."""
LEFT_GROUPS: list[Any] = []
"""Process groups that were left, kept so that no DistributedDataParallel is the last to hold one.

It would free the group with the global interpreter lock held and wait for the group's threads. One
of them may wait for that lock, and then neither goes on
(https://github.com/pytorch/pytorch/issues/56297).
"""
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|socket", re.IGNORECASE)
"""What PyTorch says when another process is gone; there is no exception of its own for gloo."""


@dataclass(frozen=True)
class Ranks:
    """This process's rank, counted from 0, and the number of processes.

    `store` is a table that all processes can write to, and that outlives each of them.
    """

    rank: int = 0
    world: int = 1
    store: dist.Store | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks to the user."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.world > 1:
            dist.all_reduce(torch.zeros(1))

    def largest(self, *numbers: float | int) -> list[float]:
        """Return the largest of each number over all processes."""
        if self.world == 1:
            return [float(number) for number in numbers]
        found = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.tolist()

    def from_first(self, value: Any) -> Any:
        """Return the value of rank 0, which must be JSON; those of the others do not matter."""
        if self.world == 1:
            return value
        content = encoded(value) if self.is_first else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor(len(content))
        dist.broadcast(size, src=0)
        if not self.is_first:
            content = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, src=0)
        return decoded(content)

    def from_all(self, value: Any) -> list[Any]:
        """Return the values of all processes by rank; each must be JSON."""
        if self.world == 1:
            return [value]
        content = encoded(value)
        sizes = torch.zeros(self.world, dtype=torch.int64)
        sizes[self.rank] = len(content)
        dist.all_reduce(sizes)
        padded = torch.zeros(int(sizes.max()), dtype=torch.uint8)
        padded[: len(content)] = content
        found = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(found, padded)
        return [decoded(x[:size]) for x, size in zip(found, sizes.tolist(), strict=True)]

    def may_say(self, sentence: str, only_if_silent: bool = False) -> bool:
        """Return whether this process should print a sentence that others may have, too.

        It should if none has said it, or, with `only_if_silent`, if none has said anything.
        """
        if self.store is None:
            return True
        try:
            if only_if_silent and self.store.add("anything", 0):
                return False
            self.store.add("anything", 1)
            return self.store.add(sentence, 1) == 1
        except RuntimeError:  # rank 0 of an older torchrun held the table, and is gone
            return True


def encoded(value: Any) -> torch.Tensor:
    """Return a value as the bytes of its JSON."""
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def decoded(content: torch.Tensor) -> Any:
    """Return the value of JSON in bytes."""
    return json.loads(bytes(content.tolist()))


def current() -> Ranks:
    """Return this process's rank in the run that it belongs to; 0 of 1 if it runs alone."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun has started, if it has, and leave them at the end.

    Tensors on a CPU go by gloo, those on a GPU by NCCL. Each process takes the GPU of its number on
    its machine.
    """
    if not are_several():
        yield Ranks()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    store, rank, world = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"attempt {attempt(world)}", store)
    group_store = dist.PrefixStore("group", store)
    dist.init_process_group(
        backend, store=group_store, rank=rank, world_size=world, timeout=PATIENCE
    )
    try:
        yield Ranks(rank, world, dist.PrefixStore("said", store))
    finally:
        LEFT_GROUPS.append(dist.group.WORLD)
        dist.destroy_process_group()


def are_several() -> bool:
    """Return whether torchrun, or a launcher like it, has started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Return the number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarts() -> int:
    """Return how often torchrun has started this run again after a process was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def attempt(world: int) -> int:
    """Return a number under which processes find each other, and not those that are gone.

    On one machine torchrun keeps its table when it starts the processes again. Several machines
    count restarts each for itself; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes a new table.
    """
    return restarts() if int(os.environ.get("LOCAL_WORLD_SIZE", world)) == world else 0


def is_lost(error: BaseException) -> bool:
    """Return whether an error says that another process of the run is gone."""
    return isinstance(error, RuntimeError) and bool(LOST.search(str(error)))
