"""The output projection is made and never used: heads are concatenated and no more."""

from einops import rearrange

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "not passed through w_o"


class wrong(MultiHeadAttention):
    def attend(self, x, k, v, mask=None):
        return rearrange(
            self.attention_fn(self.split_heads(self.w_q(x)), k, v, mask),
            "b h q d_head -> b q (h d_head)",
        )
