"""Positions beyond the table are clamped silently: the last words share one position."""

import torch

from transformer.positional_encoding import PositionalEncoding

CHECK = "check_positional_encoding"
CAUGHT_BY = "of a table of 20 was accepted"


class wrong(PositionalEncoding):
    def forward(self, x, start=0):
        places = torch.arange(start, start + x.shape[1]).clamp(max=len(self.table) - 1)
        return x + self.table[places]
