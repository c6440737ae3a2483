"""Pre-norm without the norm at the end: the sum of all layers goes on as large as it has grown."""

from torch import nn

from transformer.residual_norm import PreNorm

CHECK = "check_residual"
CAUGHT_BY = "pre-norm layers ends with one more norm"
OPTIONS = {"placement": "pre"}


class wrong(PreNorm):
    final = nn.Identity
