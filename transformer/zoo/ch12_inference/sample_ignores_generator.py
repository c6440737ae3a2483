"""Random numbers come from the global generator, not from the given one."""

from transformer.inference import sample

CHECK = "check_sample"
CAUGHT_BY = "Draw from the generator that was given"


def wrong(model, src, temperature=1.0, top_k=None, max_len=64, generator=None):
    return sample(model, src, temperature, top_k, max_len)
