"""The mask is not handed on: words look at padding, and a translation depends on its neighbours in the batch."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "padding is looked at"


class wrong(EncoderLayer):
    def forward(self, x, mask=None):
        return super().forward(x)
