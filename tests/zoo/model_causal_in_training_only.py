"""The causal mask is made in training only: changing the last target token moves the first position's logits."""

from transformer.decoder import padding_mask
from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = r"in eval\(\) moved an earlier output"


class wrong(Transformer):
    def states(self, tgt, memory, src):
        if self.training:
            return super().states(tgt, memory, src)
        masks = (padding_mask(ids, self.config.pad_id) for ids in (tgt, src))
        return self.decoder(self.embed(tgt), memory, *masks)
