"""The cache is emptied at every step: each token sees only itself."""

from transformer.inference import IncrementalDecoder

CHECK = "check_incremental"
CAUGHT_BY = "tokens before are forgotten"


class wrong(IncrementalDecoder):
    def step(self, ids):
        for cache in self.caches:
            cache.target = ()
        return super().step(ids)
