"""Rows from N(0, 1), as `nn.Embedding` draws them, times √512 drown the positions."""

import torch
from torch import nn

from transformer.embeddings import TokenEmbedding

CHECK = "check_embedding"
CAUGHT_BY = r"Rows from N\(0, 1\)"


class wrong(TokenEmbedding):
    def __init__(self, vocab_size, d_model):
        super().__init__(vocab_size, d_model)
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model))
