"""One-thread workers, for work whose operators are too small to be shared by two threads."""

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
_thread = threading.local()


def parallel_map(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None
) -> Iterator[Result]:
    """Yield work(item) for each item, in order, by one-thread workers.

    There are as many workers as PyTorch has threads, unless another number is given. PyTorch's
    number of threads is 1 meanwhile, and is restored afterwards.
    """
    threads = torch.get_num_threads()
    workers = workers or threads
    if min(workers, len(items)) < 2 or hasattr(_thread, "is_worker"):
        yield from map(work, items)
        return
    torch.set_num_threads(1)
    pool = worker_pool(workers, os.getpid())
    futures = [pool.submit(work, item) for item in items]
    try:
        yield from (future.result() for future in futures)
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
        torch.set_num_threads(threads)


@functools.cache
def worker_pool(workers: int, process: int) -> ThreadPoolExecutor:
    """Return one-thread workers that live as long as the process.

    New threads begin with cold memory, whose pages the system maps one by one; kept ones use theirs
    again. A forked child has another `process` id, and gets workers of its own.
    """
    return ThreadPoolExecutor(workers, initializer=become_worker)


def become_worker() -> None:
    """Set up a worker: one thread, and what it shares out it does itself."""
    torch.set_num_threads(1)
    _thread.is_worker = True
