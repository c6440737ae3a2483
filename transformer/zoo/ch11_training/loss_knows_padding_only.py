"""Labels of -100, which PyTorch's own loss ignores, are taken for words."""

from transformer.training import label_smoothed_loss

CHECK = "check_loss"
CAUGHT_BY = "PyTorch's mark"


def wrong(logits, labels, pad_id, smoothing=0.1):
    return label_smoothed_loss(logits, labels % logits.shape[-1], pad_id, smoothing)
