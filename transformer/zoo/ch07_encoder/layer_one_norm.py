"""One norm serves both sublayers: the second one's gain and bias are never learned."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = r"no gradient reaches residuals\.1"


class wrong(EncoderLayer):
    def forward(self, x, mask=None):
        x = self.residuals[0](x, lambda y: self.self_attention(y, y, mask))
        return self.residuals[0](x, self.feed_forward)
