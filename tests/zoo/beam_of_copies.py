"""All hypotheses start as the same one and stay so: a beam of n copies is greedy search, n times as slow."""

from transformer.checks import log_probs_of
from transformer.inference import decoding, greedy_search

CHECK = "check_beam_search"
CAUGHT_BY = "did all hypotheses start as the same one"


def wrong(model, src, beam_size=5, length_penalty=1.0, max_len=64):
    copies = greedy_search(model, src.repeat_interleave(beam_size, dim=0), max_len)
    ids = copies[::beam_size].clone()
    with decoding(model):
        return ids, log_probs_of(model, src, ids)[0].clone()
