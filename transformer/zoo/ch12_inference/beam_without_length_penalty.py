"""Log-probabilities of different lengths are compared as they are: the shortest wins."""

from transformer.inference import beam_search

CHECK = "check_beam_search"
CAUGHT_BY = r"divided by length \*\* length_penalty"


def wrong(model, src, beam_size=5, length_penalty=1.0, max_len=64):
    return beam_search(model, src, beam_size, 0.0, max_len)
