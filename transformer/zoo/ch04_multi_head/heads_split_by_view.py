"""The heads are split by view where the axis must move: right shape, wrong content."""

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "heads are split by view"


class wrong(MultiHeadAttention):
    def split_heads(self, x):
        return x.reshape(len(x), self.n_heads, x.shape[1], -1)
