"""reorder leaves keys and values in place when hypotheses change places."""

from transformer.inference import IncrementalDecoder

CHECK = "check_incremental"
CAUGHT_BY = "reorder left the cache in the old order"


class wrong(IncrementalDecoder):
    def reorder(self, rows):
        if rows.numel() != self.n_rows:
            super().reorder(rows)
