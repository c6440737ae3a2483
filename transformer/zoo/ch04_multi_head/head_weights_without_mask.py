"""The plot is made without the mask that the model used."""

from transformer.multi_head import head_weights

CHECK = "check_head_weights"
CAUGHT_BY = "plot forgets the mask"


def wrong(module, x, memory, mask=None):
    return head_weights(module, x, memory)
