"""Raw logits are added as if they were log-probabilities."""

from functools import partial

from transformer.zoo.plain import plain_beam_search

CHECK = "check_beam_search"
CAUGHT_BY = "Raw logits are added"
wrong = partial(plain_beam_search, score=lambda logits, dim: logits)
