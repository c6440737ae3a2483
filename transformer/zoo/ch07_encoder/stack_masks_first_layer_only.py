"""The first layer gets the mask, the others don't."""

from transformer.encoder import Encoder

CHECK = "check_encoder"
CAUGHT_BY = "Only the first layer gets the mask"


class wrong(Encoder):
    def forward(self, x, mask=None):
        for layer in self.layers:
            x = layer(x, mask)
            mask = None
        return self.norm(x)
