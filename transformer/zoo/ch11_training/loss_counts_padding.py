"""Padding is learned like a word: the model learns mostly to write nothing."""

import torch

CHECK = "check_loss"
CAUGHT_BY = "Padding counts as a word"


def wrong(logits, labels, pad_id, smoothing=0.1):
    targets = torch.full_like(logits, smoothing / (logits.shape[-1] - 1))
    targets[..., pad_id] = 0
    targets.scatter_add_(-1, labels.unsqueeze(-1), torch.full_like(targets[..., :1], 1 - smoothing))
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()
