"""A mean over the sentence slips in: a word depends on the words around it and on padding."""

from transformer.feed_forward import FeedForward

CHECK = "check_feed_forward"
CAUGHT_BY = "treat every position alone"


class wrong(FeedForward):
    def forward(self, x):
        return super().forward(x - x.mean(1, keepdim=True))
