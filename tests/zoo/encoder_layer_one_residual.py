"""Only attention has a residual: the feed-forward block replaces what it was to refine."""

from transformer.encoder import EncoderLayer

CHECK = "check_encoder_layer"
CAUGHT_BY = "feed-forward block has no residual"


class wrong(EncoderLayer):
    def forward(self, x, mask=None):
        attend, think = self.residuals
        x = attend(x, lambda y: self.self_attention(y, y, mask))
        return think.norm(think.dropout(self.feed_forward(x)))
