"""triu in place of tril: every position sees the future and nothing of the past."""

import torch

CHECK = "check_causal_mask"
CAUGHT_BY = "triu where tril is wanted"


def wrong(t, device=None):
    return torch.ones(t, t, dtype=torch.bool, device=device).triu()
