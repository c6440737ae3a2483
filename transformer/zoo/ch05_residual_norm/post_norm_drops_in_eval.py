"""`F.dropout` is on unless it is told otherwise: eval() does not switch it off."""

import torch.nn.functional as F

from transformer.residual_norm import PostNorm

CHECK = "check_residual"
CAUGHT_BY = "Dropout stays on in eval mode"
OPTIONS = {"placement": "post"}


class wrong(PostNorm):
    def forward(self, x, sublayer):
        return self.norm(x + F.dropout(sublayer(x), self.dropout.p))
