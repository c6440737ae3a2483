"""forward takes a mask and does not hand it on."""

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "mask is not handed on"


class wrong(MultiHeadAttention):
    def forward(self, x, memory, mask=None):
        return super().forward(x, memory)
