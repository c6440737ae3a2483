"""The source's padding mask is missing when decoding token by token."""

import torch

from transformer.inference import IncrementalDecoder

CHECK = "check_incremental"
CAUGHT_BY = "Cross-attention sees the source's padding"


class wrong(IncrementalDecoder):
    def __init__(self, model, src):
        super().__init__(model, src)
        self.src_mask = torch.ones_like(self.src_mask)
