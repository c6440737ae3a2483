"""The activation is missing: two matrices in a row are only one."""

from transformer.feed_forward import FeedForward

CHECK = "check_feed_forward"
CAUGHT_BY = "no activation"


class wrong(FeedForward):
    def forward(self, x):
        return self.w_2(self.w_1(x))
