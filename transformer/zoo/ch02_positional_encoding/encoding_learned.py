"""The table is an nn.Parameter, so the optimizer changes what should be fixed."""

from torch import nn

from transformer.positional_encoding import PositionalEncoding

CHECK = "check_positional_encoding"
CAUGHT_BY = "table is a parameter"


class wrong(PositionalEncoding):
    def __init__(self, d_model, max_len):
        super().__init__(d_model, max_len)
        table = self.table
        del self.table
        self.table = nn.Parameter(table)
