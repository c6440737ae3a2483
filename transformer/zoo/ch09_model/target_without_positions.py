"""Positions are added to the source and not to the target."""

from transformer.decoder import padding_mask
from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = "target gets no positions"


class wrong(Transformer):
    def decoder_states(self, tgt, memory, src):
        x = self.dropout(self.embedding(tgt))
        src_mask = padding_mask(src, self.config.pad_id)
        return self.decoder(x, memory, self.target_mask(tgt), src_mask)
