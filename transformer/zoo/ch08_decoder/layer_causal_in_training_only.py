"""The causal mask is dropped in eval(): validation sees the answer."""

from transformer.decoder import DecoderLayer

CHECK = "check_decoder_layer"
CAUGHT_BY = r"in eval\(\) moved an earlier output"


class wrong(DecoderLayer):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        return super().forward(x, memory, tgt_mask if self.training else None, src_mask)
