"""The causal mask is made in training only: evaluation sees future tokens."""

from transformer.decoder import padding_mask
from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = r"in eval\(\) moved an earlier output"


class wrong(Transformer):
    def target_mask(self, tgt):
        if self.training:
            return super().target_mask(tgt)
        return padding_mask(tgt, self.config.pad_id)
