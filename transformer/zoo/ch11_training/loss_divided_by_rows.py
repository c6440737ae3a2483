"""`batchmean` divides by all rows, padding too, so the loss looks smaller than it is."""

from transformer.training import label_smoothed_loss

CHECK = "check_loss"
CAUGHT_BY = "divided by all tokens, padding too"


def wrong(logits, labels, pad_id, smoothing=0.1):
    return (
        label_smoothed_loss(logits, labels, pad_id, smoothing) * (labels != pad_id).float().mean()
    )
