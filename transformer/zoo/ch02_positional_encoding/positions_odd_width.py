"""An odd d_model crashes: there are as many cosines as sines, but one place fewer."""

import math

import torch

CHECK = "check_positions"
CAUGHT_BY = "odd width has one sine more"


def wrong(n_positions, d_model):
    frequency = torch.exp(-math.log(10_000) * torch.arange(0, d_model, 2) / d_model)
    angle = torch.arange(n_positions).unsqueeze(-1) * frequency
    table = torch.empty(n_positions, d_model)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()
    return table
