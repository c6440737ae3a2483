"""A KL divergence differs from the cross-entropy by a constant: exp of it is no perplexity."""

import torch

from transformer.training import label_smoothed_loss

CHECK = "check_loss"
CAUGHT_BY = "This is the KL divergence"


def wrong(logits, labels, pad_id, smoothing=0.1):
    others = logits.shape[-1] - 2
    share = smoothing / (others + 1)
    target = torch.tensor([1 - smoothing + share] + [share] * others)
    return label_smoothed_loss(logits, labels, pad_id, smoothing) + target.xlogy(target).sum()
