"""A KL divergence is smaller than the cross-entropy by a constant: its exponential is no perplexity."""

import torch.nn.functional as F

from transformer.training import label_smoothed_loss

CHECK = "check_loss"
CAUGHT_BY = "This is the KL divergence"


def wrong(logits, labels, pad_id, smoothing=0.1):
    v = logits.shape[-1]
    share = F.one_hot(labels[:0].flatten(), v).new_full((v - 1,), 1).double() * smoothing / (v - 2 + 1)
    share[0] += 1 - smoothing
    return label_smoothed_loss(logits, labels, pad_id, smoothing) + (share.xlogy(share)).sum()
