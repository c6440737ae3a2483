"""A pre-norm stack without the norm at its end."""

from transformer.decoder import Decoder

CHECK = "check_decoder"
CAUGHT_BY = r"no gradient reaches norm|final norm is missing"


class wrong(Decoder):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        for layer in self.layers:
            x = layer(x, memory, tgt_mask, src_mask)
        return x
