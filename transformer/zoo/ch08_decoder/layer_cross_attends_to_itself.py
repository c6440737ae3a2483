"""Cross-attention takes keys and values from the target: the source is never read."""

from transformer.decoder import DecoderLayer

CHECK = "check_decoder_layer"
CAUGHT_BY = "Cross-attention reads the target"


class wrong(DecoderLayer):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        first, second, third = self.residuals
        x = first(x, lambda y: self.self_attention(y, y, tgt_mask))
        x = second(x, lambda y: self.cross_attention(y, y, tgt_mask))
        return third(x, self.feed_forward)
