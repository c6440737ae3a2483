"""Only attention has a residual: the feed-forward block replaces its input."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "feed-forward block has no residual"


class wrong(EncoderLayer):
    def forward(self, x, mask=None):
        first, second = self.residuals
        x = first(x, lambda y: self.self_attention(y, y, mask))
        return second.norm(second.dropout(self.feed_forward(x)))
