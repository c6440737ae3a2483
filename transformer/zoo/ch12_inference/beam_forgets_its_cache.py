"""Hypotheses change places and the cache does not: each continues with another's past."""

from transformer.inference import IncrementalDecoder, beam_search

CHECK = "check_beam_search"
CAUGHT_BY = "the cache must move with them"


class forgetful(IncrementalDecoder):
    def reorder(self, rows):
        """Add hypotheses and drop sentences, but keep the order of hypotheses."""
        n = len(self.caches[0].target[0]) // len(self.src_mask)
        sentences = rows[:, :1] // n
        super().reorder(n * sentences + rows.new_tensor(range(rows.shape[1])) % n)


def wrong(model, src, beam_size=5, length_penalty=1.0, max_len=64):
    return beam_search(model, src, beam_size, length_penalty, max_len, forgetful)
