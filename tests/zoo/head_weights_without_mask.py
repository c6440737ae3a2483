"""A plotting path that forgets the mask that the model used: the picture shows what the model never saw."""

from transformer.multi_head import head_weights

CHECK = "check_head_weights"
CAUGHT_BY = "picture forgets the mask"


def wrong(module, x, memory, mask=None):
    return head_weights(module, x, memory)
