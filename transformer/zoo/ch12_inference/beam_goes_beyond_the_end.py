"""Hypotheses are extended beyond </s> as if it were a word."""

from functools import partial

from transformer.zoo.plain import plain_beam_search

CHECK = "check_beam_search"
CAUGHT_BY = "tokens follow </s>"
wrong = partial(plain_beam_search, stops=False)
