"""Features are split as (d_head h): a head takes every n_heads-th, so other weights do not fit."""

from einops import rearrange

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = r"\(h d_head\), not \(d_head h\)"


class wrong(MultiHeadAttention):
    def split_heads(self, x):
        return rearrange(x, "b t (d_head h) -> b h t d_head", h=self.n_heads)

    def attend(self, x, k, v, mask=None):
        return self.w_o(
            rearrange(
                self.attention_fn(self.split_heads(self.w_q(x)), k, v, mask),
                "b h q d_head -> b q (d_head h)",
            )
        )
