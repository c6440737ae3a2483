"""Cross-attention comes before self-attention: the paper has them the other way."""

from transformer.decoder import DecoderLayer

CHECK = "check_decoder_layer"
CAUGHT_BY = "Cross-attention comes before self-attention"


class wrong(DecoderLayer):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        first, second, third = self.residuals
        x = second(x, lambda y: self.cross_attention(y, memory, src_mask))
        x = first(x, lambda y: self.self_attention(y, y, tgt_mask))
        return third(x, self.feed_forward)
