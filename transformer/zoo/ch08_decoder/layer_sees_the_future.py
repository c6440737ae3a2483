"""The causal mask is not handed on: training is easy, translation fails."""

from transformer.decoder import DecoderLayer

CHECK = "check_decoder_layer"
CAUGHT_BY = r"in train\(\) moved an earlier output .* future leaks in"


class wrong(DecoderLayer):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        return super().forward(x, memory, None, src_mask)
