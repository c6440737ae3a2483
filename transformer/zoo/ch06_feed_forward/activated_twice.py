"""An activation follows the second matrix too: the block can add, but not subtract."""

import torch.nn.functional as F

from transformer.feed_forward import FeedForward

CHECK = "check_feed_forward"
CAUGHT_BY = "follows the second matrix"


class wrong(FeedForward):
    def forward(self, x):
        return F.relu(super().forward(x))
