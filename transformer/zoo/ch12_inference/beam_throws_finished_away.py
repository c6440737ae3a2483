"""Hypotheses that reach </s> are dropped: only the longest survive."""

from functools import partial

from transformer.zoo.plain import plain_beam_search

CHECK = "check_beam_search"
CAUGHT_BY = "Are hypotheses that ended early kept"
wrong = partial(plain_beam_search, keeps_finished=False)
