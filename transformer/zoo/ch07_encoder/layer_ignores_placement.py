"""The argument for the norm placement is ignored: it is always post-norm."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "stand as in post-norm, but pre-norm was asked for"


class wrong(EncoderLayer):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, residual=None):
        super().__init__(d_model, n_heads, d_ff, dropout)
