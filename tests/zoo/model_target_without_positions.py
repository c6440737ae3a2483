"""Positions are added to the source and forgotten on the target's side."""

from transformer.decoder import causal_mask, padding_mask
from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = "target gets no positions"


class wrong(Transformer):
    def states(self, tgt, memory, src):
        mask = causal_mask(tgt.shape[1], tgt.device) & padding_mask(tgt, self.config.pad_id)
        x = self.dropout(self.embedding(tgt))
        return self.decoder(x, memory, mask, padding_mask(src, self.config.pad_id))
