"""A cache of layer inputs called a KV cache: the keys of all tokens are computed again at every step."""

from transformer.model import Transformer

CHECK = "check_incremental"
CAUGHT_BY = "must be keys and values, not the inputs"


class wrong:
    def __init__(self, model: Transformer, src):
        import torch

        self.model, self.src, self.memory = model, src, model.encode(src)
        self.ids = torch.empty(0, 0, dtype=src.dtype, device=src.device)

    def step(self, ids):
        import torch

        self.ids = torch.cat([self.ids.reshape(len(ids), -1), ids.unsqueeze(-1)], dim=1)
        n = len(ids) // len(self.src)
        memory, src = (x.repeat_interleave(n, dim=0) for x in (self.memory, self.src))
        return self.model.decode(self.ids, memory, src)[:, -1]

    def select(self, rows):
        self.ids = self.ids[rows]
