"""Dropout is applied to the sum: the residual path is cut at random."""

from transformer.residual_norm import PostNorm

CHECK = "check_residual"
CAUGHT_BY = "before the sum: x itself must come through"
OPTIONS = {"placement": "post"}


class wrong(PostNorm):
    def forward(self, x, sublayer):
        return self.norm(self.dropout(x + sublayer(x)))
