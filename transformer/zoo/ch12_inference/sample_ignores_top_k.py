"""The argument `top_k` is ignored."""

from transformer.inference import sample

CHECK = "check_sample"
CAUGHT_BY = "top_k is ignored"


def wrong(model, src, temperature=1.0, top_k=None, max_len=64, generator=None):
    return sample(model, src, temperature, None, max_len, generator)
