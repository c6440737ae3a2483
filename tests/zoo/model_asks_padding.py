"""The encoder gets the source's padding mask, cross-attention does not."""

from transformer.decoder import causal_mask, padding_mask
from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = "decoder asks the padding of the source"


class wrong(Transformer):
    def states(self, tgt, memory, src):
        mask = causal_mask(tgt.shape[1], tgt.device) & padding_mask(tgt, self.config.pad_id)
        return self.decoder(self.embed(tgt), memory, mask)
