"""Among the top k every token is equally likely: the probabilities are ignored."""

import torch

from transformer.inference import IncrementalDecoder, generate

CHECK = "check_sample"
CAUGHT_BY = "All tokens that are left are equally likely|off by"


def wrong(model, src, temperature=1.0, top_k=None, max_len=64, generator=None):
    def choose(steps, logits):
        left = logits.isfinite().float()
        if top_k is not None:
            left = (logits >= logits.topk(top_k).values[:, -1:]).float()
        return torch.multinomial(left, 1, generator=generator).squeeze(-1)

    return generate(model, src, choose, max_len, IncrementalDecoder)
