"""The dropout of the config is not handed to the residuals."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "dropout is never applied"


class wrong(EncoderLayer):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, residual=None):
        super().__init__(d_model, n_heads, d_ff, 0.0, residual)
