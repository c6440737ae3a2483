"""Every feature has the exponent i / d_model: sine and cosine no longer form a pair."""

import torch

CHECK = "check_positions"
CAUGHT_BY = "another frequency than its sine"


def wrong(n_positions, d_model):
    feature = torch.arange(d_model)
    angle = torch.arange(n_positions).unsqueeze(-1) / 10_000 ** (feature / d_model)
    return torch.where(feature % 2 == 0, angle.sin(), angle.cos())
