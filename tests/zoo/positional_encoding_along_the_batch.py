"""PyTorch's tutorial puts time first, `pe[:x.size(0)]`: with the batch first every sentence gets one position."""

from transformer.positional_encoding import PositionalEncoding

CHECK = "check_positional_encoding"
CAUGHT_BY = "read along the batch"


class wrong(PositionalEncoding):
    def forward(self, x, start=0):
        return x + self.table[: len(x)].unsqueeze(1)
