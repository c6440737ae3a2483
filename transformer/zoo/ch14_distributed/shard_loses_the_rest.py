"""The batch is cut into equal parts, and the rows that do not fill one more are never learned."""

from transformer.data import Batch
from transformer.distributed import Shard

CHECK = "check_shard"
CAUGHT_BY = "not each taken once"


def wrong(batch, rank, world):
    size = max(1, len(batch.src) // world)
    rows = slice(rank * size, (rank + 1) * size)
    mine = Batch(batch.src[rows], batch.tgt[rows])
    return Shard(mine.src, mine.tgt, mine.n_tokens / batch.n_tokens, batch.n_tokens)
