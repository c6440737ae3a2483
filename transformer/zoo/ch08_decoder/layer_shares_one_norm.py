"""`[residual] * 3` repeats one residual: the three sublayers share one gain and one bias."""

from torch import nn

from transformer.decoder import DecoderLayer

CHECK = "check_decoder_layer"
CAUGHT_BY = "share their parameters"


class wrong(DecoderLayer):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.residuals = nn.ModuleList([self.residuals[0]] * 3)
