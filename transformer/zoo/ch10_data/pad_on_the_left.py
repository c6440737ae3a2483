"""Padding on the left, a habit from decoder-only models: every position is shifted."""

import torch

CHECK = "check_pad"
CAUGHT_BY = "padding stands on the left"


def wrong(rows, pad_id=0):
    width = max(map(len, rows))
    return torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows])
