"""The first hypothesis that reaches </s> is returned: better ones that are longer never get there."""

from functools import partial

from zoo.plain import plain_beam_search

CHECK = "check_beam_search"
CAUGHT_BY = "go on after the first </s>"
wrong = partial(plain_beam_search, enough=1)
