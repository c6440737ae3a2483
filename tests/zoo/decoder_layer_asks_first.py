"""The source is asked before looking back: the order of the paper's figure is the other one."""

from transformer.decoder import DecoderLayer

CHECK = "check_decoder_layer"
CAUGHT_BY = "source is asked before looking back"


class wrong(DecoderLayer):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        look_back, ask, think = self.residuals
        x = ask(x, lambda y: self.cross_attention(y, memory, src_mask))
        x = look_back(x, lambda y: self.self_attention(y, y, tgt_mask))
        return think(x, self.feed_forward)
