"""Cross-attention lacks the source's padding mask: padding changes a translation."""

from transformer.decoder import DecoderLayer

CHECK = "check_decoder_layer"
CAUGHT_BY = "src_mask is not used"


class wrong(DecoderLayer):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        return super().forward(x, memory, tgt_mask)
