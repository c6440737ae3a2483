"""The encoder gets the source's padding mask, cross-attention does not."""

from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = "Cross-attention sees the source's padding"


class wrong(Transformer):
    def decoder_states(self, tgt, memory, src):
        return self.decoder(self.embed(tgt), memory, self.target_mask(tgt))
