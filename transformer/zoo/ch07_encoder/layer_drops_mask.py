"""The mask is not handed on: words attend to padding."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "padding is attended to"


class wrong(EncoderLayer):
    def forward(self, x, mask=None):
        return super().forward(x)
