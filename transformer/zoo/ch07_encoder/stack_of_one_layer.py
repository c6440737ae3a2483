"""`[layer] * n_layers` repeats one layer: six layers with the parameters of one."""

from torch import nn

from transformer.encoder import Encoder

CHECK = "check_encoder"
CAUGHT_BY = "layers share their parameters"


class wrong(Encoder):
    def __init__(self, n_layers, *args, **options):
        super().__init__(n_layers, *args, **options)
        self.layers = nn.ModuleList([self.layers[0]] * n_layers)
