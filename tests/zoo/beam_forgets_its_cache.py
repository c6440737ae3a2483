"""Hypotheses change places, what the decoder remembers does not: each goes on with another's past."""

from unittest import mock

from transformer import inference

CHECK = "check_beam_search"
CAUGHT_BY = "what the decoder remembers must change with them"


select = inference.IncrementalDecoder.select


def grow(decoder, rows):
    """Make room for more hypotheses, and no more than that."""
    if len(rows) > len(decoder.caches[0].target[0]):
        select(decoder, rows)


def wrong(model, src, beam_size=5, length_penalty=1.0, max_len=64):
    with mock.patch.object(inference.IncrementalDecoder, "select", grow):
        return inference.beam_search(model, src, beam_size, length_penalty, max_len)
