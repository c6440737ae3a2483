"""Smoothing gives padding its share too: the model learns to expect it in mid-sentence."""

import torch.nn.functional as F

CHECK = "check_loss"
CAUGHT_BY = "Smoothing puts mass on padding"


def wrong(logits, labels, pad_id, smoothing=0.1):
    flat = logits.float().flatten(0, -2)
    return F.cross_entropy(flat, labels.flatten(), ignore_index=pad_id, label_smoothing=smoothing)
