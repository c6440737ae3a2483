"""The mask holds 0 and -∞, to be added: `~mask` fails on it."""

import torch

CHECK = "check_causal_mask"
CAUGHT_BY = "must be boolean"


def wrong(t, device=None):
    return torch.full((t, t), -torch.inf, device=device).triu(1)
