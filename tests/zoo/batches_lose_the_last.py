"""A batch is handed out when it is full: the last one never is, and the longest sentences are never seen."""

from transformer.data import batches_by_length

CHECK = "check_batches"
CAUGHT_BY = "the last group belongs to the batches too"


def wrong(pairs, max_tokens):
    return batches_by_length(pairs, max_tokens)[:-1]
