"""The logits are divided by √d_model in training and not in translation."""

import math

from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = "logits are divided by √d_model"


class wrong(Transformer):
    def forward(self, src, tgt):
        return super().forward(src, tgt) / math.sqrt(self.config.d_model)
