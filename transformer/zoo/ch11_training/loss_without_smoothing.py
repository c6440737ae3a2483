"""The argument `smoothing` is ignored."""

from transformer.training import label_smoothed_loss

CHECK = "check_loss"
CAUGHT_BY = "Smoothing is not applied"


def wrong(logits, labels, pad_id, smoothing=0.1):
    return label_smoothed_loss(logits, labels, pad_id, 0.0)
