"""Decoding runs without eval(): dropout changes every translation."""

from contextlib import contextmanager
from unittest import mock

import torch

from transformer import inference

CHECK = "check_greedy"
CAUGHT_BY = "Is dropout off"


@contextmanager
def no_eval(model):
    with torch.no_grad():
        yield model


def wrong(model, src, max_len=64):
    with mock.patch.object(inference, "inference_context", no_eval):
        return inference.greedy_search(model, src, max_len)
