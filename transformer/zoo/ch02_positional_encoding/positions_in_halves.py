"""All sines, then all cosines: common, but weights trained elsewhere do not fit."""

import torch

from transformer.positional_encoding import sinusoidal_positions

CHECK = "check_positions"
CAUGHT_BY = "Sines fill the first half"


def wrong(n_positions, d_model):
    table = sinusoidal_positions(n_positions, d_model)
    return torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)
