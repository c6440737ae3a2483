"""With time first PyTorch's `pe[:x.size(0)]` is right; with the batch first it is not."""

from transformer.positional_encoding import PositionalEncoding

CHECK = "check_positional_encoding"
CAUGHT_BY = "read along the batch"


class wrong(PositionalEncoding):
    def forward(self, x, start=0):
        return x + self.table[: len(x)].unsqueeze(1)
