"""The two norms are swapped: nothing is missing, but weights trained elsewhere fail."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "norms changed places"


class wrong(EncoderLayer):
    def forward(self, x, mask=None):
        second, first = self.residuals
        x = first(x, lambda y: self.self_attention(y, y, mask))
        return second(x, self.feed_forward)
