"""Padding is a word like any other to an argmax: an untrained or unlucky model writes it."""

from unittest import mock

from transformer import inference

CHECK = "check_greedy"
CAUGHT_BY = "padding was written as a word|begin with <s>|likeliest is"


def wrong(model, src, max_len=64):
    with mock.patch.object(inference, "only_words", lambda logits, config: logits):
        return inference.greedy_search(model, src, max_len)
