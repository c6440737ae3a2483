"""The translations begin with <s>, which is only what decoding starts from."""

import torch

from transformer.inference import greedy_search

CHECK = "check_greedy"
CAUGHT_BY = "begin with <s>"


def wrong(model, src, max_len=64):
    return torch.cat([torch.ones_like(src[:, :1]), greedy_search(model, src, max_len)], dim=1)
