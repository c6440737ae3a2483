"""A post-norm stack ends with a second norm: the paper has none there."""

from transformer.residual_norm import LayerNorm, PostNorm

CHECK = "check_residual"
CAUGHT_BY = "post-norm layers ends with nothing more"
OPTIONS = {"placement": "post"}


class wrong(PostNorm):
    final = LayerNorm
