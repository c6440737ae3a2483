"""eval() is called for one translation and train() never again: dropout stays off."""

from transformer.inference import greedy_search

CHECK = "check_greedy"
CAUGHT_BY = "left in eval mode"


def wrong(model, src, max_len=64):
    return greedy_search(model.eval(), src, max_len)
