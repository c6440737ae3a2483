"""The factor √d_model of section 3.4 is missing."""

import torch.nn.functional as F

from transformer.embeddings import TokenEmbedding

CHECK = "check_embedding"
CAUGHT_BY = "multiply them by √d_model"


class wrong(TokenEmbedding):
    def forward(self, ids):
        return F.embedding(ids, self.weight)
