"""reorder drops sentences and keeps the source masks of the first ones."""

from transformer.inference import IncrementalDecoder

CHECK = "check_incremental"
CAUGHT_BY = "mask of a sentence that left is still there"


class wrong(IncrementalDecoder):
    def reorder(self, rows):
        mask = self.src_mask
        super().reorder(rows)
        self.src_mask = mask[: len(rows)]
