"""The sum is missing: the norm hides it, and a deep stack stops learning."""

from transformer.residual_norm import PostNorm

CHECK = "check_residual"
CAUGHT_BY = "x is not added"
OPTIONS = {"placement": "post"}


class wrong(PostNorm):
    def forward(self, x, sublayer):
        return self.norm(self.dropout(sublayer(x)))
