"""A shard answers with its own number of tokens, so accumulated batches are weighed wrongly."""

from transformer.data import Batch
from transformer.distributed import Shard

CHECK = "check_shard"
CAUGHT_BY = "count the labels of the whole batch"


def wrong(batch, rank, world):
    rows = list(range(rank, len(batch.src), world)) or [0]
    mine = Batch(batch.src[rows], batch.tgt[rows])
    share = mine.n_tokens / batch.n_tokens if rank < len(batch.src) else 0.0
    return Shard(mine.src, mine.tgt, share, mine.n_tokens)
