"""`[residual] * 2` repeats one residual: the two sublayers share one gain and one bias."""

from torch import nn

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "share their parameters"


class wrong(EncoderLayer):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.residuals = nn.ModuleList([self.residuals[0]] * 2)
