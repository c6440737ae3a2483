"""Keys and values come from x: right in self-attention, wrong in cross-attention."""

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "Keys and values come from x"


class wrong(MultiHeadAttention):
    def forward(self, x, memory, mask=None):
        return self.attend(x, *self.project_kv(x), mask)
