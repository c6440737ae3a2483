"""eval() for one sample translation during training, and never train() again: dropout is off from then on."""

from transformer.inference import greedy_search

CHECK = "check_greedy"
CAUGHT_BY = "left in eval mode"


def wrong(model, src, max_len=64):
    return greedy_search(model.eval(), src, max_len)
