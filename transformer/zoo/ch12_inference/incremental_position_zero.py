"""Decoding feeds one token at a time, and each of them gets position 0."""

from transformer.inference import IncrementalDecoder

CHECK = "check_incremental"
CAUGHT_BY = "Every token got position 0"


class wrong(IncrementalDecoder):
    def step(self, ids):
        self.position = 0
        return super().step(ids)
