"""The first hypothesis that reaches </s> is returned, though a longer one may be better."""

from functools import partial

from transformer.zoo.plain import plain_beam_search

CHECK = "check_beam_search"
CAUGHT_BY = "go on after the first </s>"
wrong = partial(plain_beam_search, enough=1)
