"""The feed-forward layers have the paper's ReLU, where the config names another activation."""

from torch.nn import functional as F

from transformer.feed_forward import FeedForward
from transformer.pretrained import PublishedTransformer

CHECK = "check_published_model"
CAUGHT_BY = "The activation is not the config's"


class wrong(PublishedTransformer):
    def __init__(self, config):
        super().__init__(config)
        for block in self.modules():
            if isinstance(block, FeedForward):
                block.activation = F.relu
