"""The scores are divided by √d_model, though a head has d_model / n_heads features."""

import math

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "divided by √d_model"


class wrong(MultiHeadAttention):
    def attend(self, x, k, v, mask=None):
        return super().attend(x, k / math.sqrt(self.n_heads), v, mask)
