"""The largest few of many numbers, found by blocks.

A row is cut into blocks of about 200 numbers. One quick pass finds the largest number of each
block, and the k largest numbers of the row lie in the k blocks whose largest numbers are the
largest. Any other block has k numbers above all of its own. So only k blocks have to be searched.
"""

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer.cpu.tracing import TraceCache

BLOCK = 200

_traces = TraceCache()  # one for all: these traces contain no weights


@functools.cache
def num_blocks(v: int) -> int:
    """Return into how many blocks to cut v numbers: the divisor that makes them nearest to 200."""
    divisors = [n for n in range(1, v // 32 + 2) if v % n == 0]
    return min(divisors, key=lambda n: abs(v // n - BLOCK))


def blockwise_topk(
    x: Float[Tensor, "r vocab"], k: int, offsets: Float[Tensor, "b beam"] | None = None
) -> tuple[Float[Tensor, "b c"], Int[Tensor, "b c"]]:
    """Return values and indices of the k largest numbers of every row, faster than `x.topk(k)`.

    With `offsets`, one for each row, return for each n rows the k largest of their n · v sums. A
    row whose length cannot be divided is left to PyTorch.
    """
    if offsets is None:
        offsets = x.new_zeros(len(x), 1)
    n = offsets.shape[1]
    blocks = num_blocks(x.shape[1])
    if k >= n * blocks:
        sums = x.unflatten(0, offsets.shape) + offsets.unsqueeze(-1)
        values, indices = sums.flatten(1).topk(k)
        return values, indices

    def find(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        return topk_by_blocks(x, offsets, k, n, blocks)

    return _traces.run((x.shape[1], k, n), find, x, offsets)


def topk_by_blocks(
    x: Float[Tensor, "r vocab"], offsets: Float[Tensor, "b beam"], k: int, n: int, blocks: int
) -> tuple[Tensor, Tensor]:
    """Return the k largest of each n rows plus their offsets, and their indices among n · v sums.

    The offset of a row is added to the largest number of each of its blocks and to the k best
    blocks, and to nothing else.
    """
    size = x.shape[1] // blocks
    each = offsets.flatten().unsqueeze(1)
    cut = x.unflatten(1, (blocks, size))
    largest = (cut.amax(2) + each).flatten().unflatten(0, (-1, n * blocks))
    best = largest.topk(k).indices
    first = n * blocks * torch.arange(best.shape[0], device=x.device).unsqueeze(1)
    rows = (best + first).flatten()
    candidates = cut.flatten(0, 1).index_select(0, rows) + each.index_select(0, rows // blocks)
    values, found = candidates.flatten().unflatten(0, (-1, k * size)).topk(k)
    return values, best.gather(1, found // size) * size + found % size
