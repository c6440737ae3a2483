"""Embeddings are multiplied by the root of d_model once more, after TokenEmbedding has done it."""

import math

from transformer.pretrained import PublishedTransformer

CHECK = "check_published_model"
CAUGHT_BY = "twice"


class wrong(PublishedTransformer):
    def __init__(self, config):
        super().__init__(config)
        if config.scale_embedding:
            for table in (self.embedding, getattr(self, "source_embedding", None)):
                if table is not None:
                    table.register_forward_hook(self.scaled)

    def scaled(self, table, ids, x):
        return x * math.sqrt(self.config.d_model)
