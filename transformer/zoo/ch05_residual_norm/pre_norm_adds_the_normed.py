"""The normed x is added instead of x: no residual path is left."""

from transformer.residual_norm import PreNorm

CHECK = "check_residual"
CAUGHT_BY = "normed x is added"
OPTIONS = {"placement": "pre"}


class wrong(PreNorm):
    def forward(self, x, sublayer):
        x = self.norm(x)
        return x + self.dropout(sublayer(x))
