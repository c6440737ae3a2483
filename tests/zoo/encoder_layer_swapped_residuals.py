"""The two norms change places: nothing is missing, but weights trained elsewhere give nonsense."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "norms changed places"


class wrong(EncoderLayer):
    def forward(self, x, mask=None):
        think, attend = self.residuals
        x = attend(x, lambda y: self.self_attention(y, y, mask))
        return think(x, self.feed_forward)
