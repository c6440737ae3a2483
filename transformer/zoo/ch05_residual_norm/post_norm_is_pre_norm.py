"""The text says post-norm, the code is pre-norm."""

from transformer.residual_norm import PreNorm

CHECK = "check_residual"
CAUGHT_BY = r"This is pre-norm"
OPTIONS = {"placement": "post"}
wrong = PreNorm
