"""reorder leaves keys and values in place when hypotheses change places."""

from transformer.inference import IncrementalDecoder

CHECK = "check_incremental"
CAUGHT_BY = "reorder left the cache in the old order"


class wrong(IncrementalDecoder):
    def reorder(self, rows):
        if rows.numel() != len(self.caches[0].target[0]):
            super().reorder(rows)
