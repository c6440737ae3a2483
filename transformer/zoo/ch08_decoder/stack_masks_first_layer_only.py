"""The first layer gets the source's padding mask, the others don't."""

from transformer.decoder import Decoder

CHECK = "check_decoder"
CAUGHT_BY = "Only the first layer gets src_mask"


class wrong(Decoder):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        for layer in self.layers:
            x = layer(x, memory, tgt_mask, src_mask)
            src_mask = None
        return self.norm(x)
