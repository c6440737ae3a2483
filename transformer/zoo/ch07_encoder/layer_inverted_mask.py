"""PyTorch's key_padding_mask is True where padding is; ours is True where a word is."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "mask is inverted"


class wrong(EncoderLayer):
    def forward(self, x, mask=None):
        return super().forward(x, None if mask is None else ~mask)
