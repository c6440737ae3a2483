"""The model computes the paper's table of positions, in which sines and cosines alternate."""

from transformer.positional_encoding import sinusoidal_positions
from transformer.pretrained import PublishedTransformer

CHECK = "check_published_model"
CAUGHT_BY = "of the positions alternate"


class wrong(PublishedTransformer):
    def fill_buffers(self, positions=None):
        c = self.config
        super().fill_buffers(sinusoidal_positions(c.max_len, c.d_model))
