"""Keys and values of the source are computed at every step, though it does not change."""

from transformer.inference import IncrementalDecoder

CHECK = "check_incremental"
CAUGHT_BY = "compute its keys and values before the first step"


class wrong(IncrementalDecoder):
    def __init__(self, model, src):
        super().__init__(model, src)
        self.memory = model.encode(src)

    def reorder(self, rows):
        sentences = rows[:, 0] // (len(self.caches[0].target[0]) // len(self.src_mask))
        self.memory = self.memory[sentences]
        super().reorder(rows)

    def step(self, ids):
        for layer, cache in zip(self.model.decoder.layers, self.caches, strict=True):
            cache.source = layer.cross_attention.project_kv(self.memory)
        return super().step(ids)
