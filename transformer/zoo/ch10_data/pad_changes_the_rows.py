"""The caller's lists are extended in place: in the next epoch padding counts as text."""

import torch

CHECK = "check_pad"
CAUGHT_BY = "caller's rows were changed"


def wrong(rows, pad_id=0):
    width = max(map(len, rows))
    for row in rows:
        row += [pad_id] * (width - len(row))
    return torch.tensor(rows)
