"""A pre-norm stack without a norm at the end: its output grows with every layer."""

from torch import nn

from transformer.residual_norm import PreNorm

CHECK = "check_residual"
CAUGHT_BY = "pre-norm layers ends with one more norm"
OPTIONS = {"placement": "pre"}


class wrong(PreNorm):
    final = nn.Identity
