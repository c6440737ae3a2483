"""Padding is not ruled out: an untrained model writes it as a word."""

from unittest import mock

from transformer import inference

CHECK = "check_greedy"
CAUGHT_BY = "padding was written as a word|begin with <s>|the most probable is"


def wrong(model, src, max_len=64):
    with mock.patch.object(inference, "mask_special_tokens", lambda logits, config: logits):
        return inference.greedy_search(model, src, max_len)
