"""Keys and values come from x: self-attention is right, and the decoder never hears the source."""

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "Keys and values come from x"


class wrong(MultiHeadAttention):
    def forward(self, x, memory, mask=None):
        return self.attend(x, *self.keys_values(x), mask)
