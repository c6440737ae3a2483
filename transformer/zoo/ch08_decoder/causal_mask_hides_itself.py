"""The diagonal is hidden too: the first position sees nothing."""

import torch

CHECK = "check_causal_mask"
CAUGHT_BY = "position q must see itself"


def wrong(t, device=None):
    return torch.ones(t, t, dtype=torch.bool, device=device).tril(-1)
