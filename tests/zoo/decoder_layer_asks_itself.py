"""Cross-attention takes keys and values from the target: the source is never read."""

from transformer.decoder import DecoderLayer

CHECK = "check_decoder_layer"
CAUGHT_BY = "Cross-attention asks the target itself"


class wrong(DecoderLayer):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        look_back, ask, think = self.residuals
        x = look_back(x, lambda y: self.self_attention(y, y, tgt_mask))
        x = ask(x, lambda y: self.cross_attention(y, y, tgt_mask))
        return think(x, self.feed_forward)
