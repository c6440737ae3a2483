"""The heads are merged by view: the features of different positions are mixed up."""

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "heads are merged by view"


class wrong(MultiHeadAttention):
    def attend(self, x, k, v, mask=None):
        return self.w_o(
            self.attention_fn(self.split_heads(self.w_q(x)), k, v, mask).reshape(x.shape)
        )
