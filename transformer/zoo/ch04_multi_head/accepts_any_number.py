"""Heads that do not fit are accepted silently: 12 features with 5 heads lose two."""

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "d_model=12 with n_heads=5 was accepted"


class wrong(MultiHeadAttention):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads if d_model % n_heads == 0 else 1)
