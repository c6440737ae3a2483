"""The logits are multiplied by the temperature: a low one gives random samples."""

from transformer.inference import sample

CHECK = "check_sample"
CAUGHT_BY = "multiplied by the temperature"


def wrong(model, src, temperature=1.0, top_k=None, max_len=64, generator=None):
    return sample(model, src, 1 / temperature if temperature else 0.0, top_k, max_len, generator)
