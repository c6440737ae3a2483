"""True where PyTorch's modules hide: the convention of `nn.Transformer`, not ours."""

import torch

CHECK = "check_causal_mask"
CAUGHT_BY = "it is inverted"


def wrong(t, device=None):
    return torch.ones(t, t, dtype=torch.bool, device=device).triu(1)
