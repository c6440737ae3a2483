"""The returned score is the one used for ranking, not the log-probability."""

from transformer.inference import beam_search

CHECK = "check_beam_search"
CAUGHT_BY = "divided by a length"


def wrong(model, src, beam_size=5, length_penalty=1.0, max_len=64):
    ids, log_probs = beam_search(model, src, beam_size, length_penalty, max_len)
    return ids, log_probs / (ids != model.config.pad_id).sum(-1)
