"""Every process has the same share, so a token of a short shard counts more than the others."""

from transformer.data import Batch
from transformer.distributed import Shard

CHECK = "check_shard"
CAUGHT_BY = "a mean of means"


def wrong(batch, rank, world):
    rows = list(range(rank, len(batch.src), world)) or [0]
    share = 1 / world if rank < len(batch.src) else 0.0
    mine = Batch(batch.src[rows], batch.tgt[rows])
    return Shard(mine.src, mine.tgt, share, batch.n_tokens)
