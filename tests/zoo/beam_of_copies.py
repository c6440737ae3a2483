"""All hypotheses start as the same one and stay so: a beam of n copies is greedy search, n times as slow."""

import torch
from einops import repeat

from transformer.inference import greedy_search

CHECK = "check_beam_search"
CAUGHT_BY = "did all hypotheses start as the same one"


def wrong(model, src, beam_size=5, length_penalty=1.0, max_len=64):
    from transformer.checks import log_probs_of

    training = model.training
    ids = greedy_search(model, repeat(src, "b k -> (b n) k", n=beam_size), max_len)[::beam_size]
    log_probs, _ = log_probs_of(model, src, ids)
    model.train(training)
    return ids, log_probs.where(torch.tensor(True), 0.0)
