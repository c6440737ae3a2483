"""The mask holds numbers, 0 and 1 or 0 and -∞: `&` and `~` fail on it."""

import torch

CHECK = "check_causal_mask"
CAUGHT_BY = "must be boolean"


def wrong(t, device=None):
    return torch.full((t, t), -torch.inf, device=device).triu(1)
