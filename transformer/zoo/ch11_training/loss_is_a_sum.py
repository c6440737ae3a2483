"""The loss is the sum over tokens: long batches take large steps."""

from transformer.training import label_smoothed_loss

CHECK = "check_loss"
CAUGHT_BY = "It is the sum"


def wrong(logits, labels, pad_id, smoothing=0.1):
    return label_smoothed_loss(logits, labels, pad_id, smoothing) * (labels != pad_id).sum()
