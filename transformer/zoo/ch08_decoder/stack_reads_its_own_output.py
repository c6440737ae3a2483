"""After the first layer its output is handed on as the memory: the source is lost."""

from transformer.decoder import Decoder

CHECK = "check_decoder"
CAUGHT_BY = "future leaks in|raised"


class wrong(Decoder):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        for layer in self.layers:
            x = memory = layer(x, memory, tgt_mask, src_mask)
            src_mask = None
        return self.norm(x)
