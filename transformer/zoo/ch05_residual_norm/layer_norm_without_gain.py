"""Gain and bias are learned parameters that never get into the equation."""

import torch.nn.functional as F

CHECK = "check_layer_norm"
CAUGHT_BY = "Gain and bias are not applied"


def wrong(x, gain, bias, eps=1e-5):
    return F.layer_norm(x, gain.shape, eps=eps)
