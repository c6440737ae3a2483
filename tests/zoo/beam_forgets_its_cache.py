"""Hypotheses change places, what the decoder remembers does not: each goes on with another's past."""

from unittest import mock

from transformer import inference

CHECK = "check_beam_search"
CAUGHT_BY = "what the decoder remembers must change with them"


def wrong(model, src, beam_size=5, length_penalty=1.0, max_len=64):
    with mock.patch.object(inference.IncrementalDecoder, "select", lambda decoder, rows: None):
        return inference.beam_search(model, src, beam_size, length_penalty, max_len)
