"""All hypotheses start as the same one and stay so: the beam is greedy search."""

from transformer.inference import greedy_search, inference_context
from transformer.zoo.plain import log_prob_of

CHECK = "check_beam_search"
CAUGHT_BY = "did all hypotheses start as the same one"


def wrong(model, src, beam_size=5, length_penalty=1.0, max_len=64):
    copies = greedy_search(model, src.repeat_interleave(beam_size, dim=0), max_len)
    ids = copies[::beam_size].clone()
    with inference_context(model):
        return ids, log_prob_of(model, src, ids)
