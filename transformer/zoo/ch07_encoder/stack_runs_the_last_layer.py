"""Every layer reads the input, not the output of the one before: only the last counts."""

from transformer.encoder import Encoder

CHECK = "check_encoder"
CAUGHT_BY = r"no gradient reaches layers\.0"


class wrong(Encoder):
    def forward(self, x, mask=None):
        for layer in self.layers:
            out = layer(x, mask)
        return self.norm(out)
