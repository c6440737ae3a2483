"""Sources and targets are sorted by length separately: translations are mixed up."""

from transformer.data import batches_by_length

CHECK = "check_batches"
CAUGHT_BY = "sort pairs, not sides"


def wrong(pairs, max_tokens):
    sources, targets = (sorted(side, key=len) for side in zip(*pairs, strict=True))
    return batches_by_length(list(zip(sources, targets, strict=True)), max_tokens)
