"""keep lets the sentences go, and leaves the source masks of the first ones."""

from transformer.inference import IncrementalDecoder

CHECK = "check_incremental"
CAUGHT_BY = "mask of a sentence that left is still there"


class wrong(IncrementalDecoder):
    def keep(self, sentences):
        mask = self.src_mask
        super().keep(sentences)
        self.src_mask = mask[: len(sentences)]
