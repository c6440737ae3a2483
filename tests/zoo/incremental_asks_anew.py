"""Keys and values of the source are computed at every step, though the source does not change."""

from transformer.inference import IncrementalDecoder

CHECK = "check_incremental"
CAUGHT_BY = "compute its keys and values before the first step"


class wrong(IncrementalDecoder):
    def __init__(self, model, src):
        super().__init__(model, src)
        self.memory = model.encode(src)

    def step(self, ids):
        for cache in self.caches:
            cache.source = cache.layer.cross_attention.keys_values(self.memory)
        return super().step(ids)
