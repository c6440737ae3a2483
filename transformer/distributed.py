# %% [markdown]
r"""
# 14 · Data parallelism

**Two processes, each with half of every batch, learn what one learns from the whole.**

![The architecture; the loss is lit](../figures/architecture_14.svg)
"""

# %%
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from transformer.data import Batch
from transformer.model import Transformer


# %%
def my_share(n_rows: int, rank: int, world: int) -> list[int]:
    """Return the rows of a batch that process `rank` of `world` takes: every `world`-th.

    A process that would have none takes row 0, which then must count for nothing.
    """
    return list(range(rank, n_rows, world)) or [0]


# %%
@dataclass(frozen=True)
class Shard(Batch):
    """One process's rows of a batch.

    `share` is the part of the batch's labels that they hold, and `n_tokens` counts the labels of
    the whole batch, so a `Trainer` weighs a shard as it would the batch. `is_last` says whether it
    is the last batch of a step: gradients are exchanged after that one.
    """

    share: float
    whole: int
    is_last: bool = True

    @property
    def n_tokens(self) -> int:
        """The number of labels in the whole batch that are not padding."""
        return self.whole

    def to(self, device: torch.device | str) -> "Shard":
        """Return the shard on another device."""
        src = self.src.to(device)
        tgt = self.tgt.to(device)
        return Shard(src, tgt, self.share, self.whole, self.is_last)


# %%
def shard(batch: Batch, rank: int, world: int, is_last: bool = True) -> Shard:
    """Return what process `rank` of `world` takes of a batch."""
    rows = my_share(len(batch.src), rank, world)
    mine = Batch(batch.src[rows], batch.tgt[rows])
    share = mine.n_tokens / batch.n_tokens if rank < len(batch.src) else 0.0
    return Shard(mine.src, mine.tgt, share, batch.n_tokens, is_last)


# %%
def shards(steps: Iterable[Sequence[Batch]], rank: int, world: int) -> Iterator[tuple[Shard, ...]]:
    """Yield what process `rank` of `world` takes of the batches of each step."""
    for batches in steps:
        last = len(batches) - 1
        yield tuple(shard(batch, rank, world, i == last) for i, batch in enumerate(batches))


# %%
Loss = Callable[[Transformer, Batch, float], Tensor]


class LossModule(nn.Module):
    """A model's loss as a module: what DistributedDataParallel calls and listens to.

    It has the model's parameters and not its buffers, which are the same everywhere and need no
    exchange.
    """

    def __init__(self, model: Transformer, loss: Loss):
        super().__init__()
        self.weights = nn.ParameterList(model.parameters())
        self.compute = partial(loss, model)

    def forward(self, batch: Batch, smoothing: float) -> Float[Tensor, ""]:
        return self.compute(batch, smoothing)


# %%
class DistributedLoss:
    """The loss of whole batches, to which each process adds that of its shard.

    In every process the value is the mean over all tokens of the batch, and its gradient with
    respect to the parameters of `model` is that of the whole batch, so a `Trainer` with this loss
    takes the same steps in all of them. Source: Li et al. 2020, "PyTorch Distributed".
    """

    def __init__(self, model: Transformer, loss: Loss):
        self.model = model
        self.loss = loss
        self.parallel = DistributedDataParallel(LossModule(model, loss))

    def __call__(self, model: Transformer, batch: Batch, smoothing: float) -> Float[Tensor, ""]:
        if not isinstance(batch, Shard):
            raise TypeError("a distributed loss takes shards of batches, not whole batches")
        if model is self.model and torch.is_grad_enabled():
            with nullcontext() if batch.is_last else self.parallel.no_sync():
                mine = batch.share * self.parallel(batch, smoothing)
        else:
            mine = batch.share * self.loss(model, batch, smoothing)
        total = mine.detach().clone()
        dist.all_reduce(total)
        # DistributedDataParallel takes the mean of the gradients; the mean times `world` is the sum.
        return total + dist.get_world_size() * (mine - mine.detach())
