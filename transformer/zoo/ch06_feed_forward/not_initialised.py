"""The linear layers keep nn.Linear's own initial weights, which are smaller than Xavier's."""

from torch import nn

from transformer.feed_forward import FeedForward

CHECK = "check_feed_forward"
CAUGHT_BY = "Xavier's is"


class wrong(FeedForward):
    def __init__(self, d_model, d_ff, **options):
        super().__init__(d_model, d_ff, **options)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
