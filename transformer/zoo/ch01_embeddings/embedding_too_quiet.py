"""Rows from Xavier's initialisation are too small for a table this long: positions drown them."""

from torch import nn

from transformer.embeddings import TokenEmbedding

CHECK = "check_embedding"
CAUGHT_BY = "Xavier"


class wrong(TokenEmbedding):
    def __init__(self, vocab_size, d_model):
        super().__init__(vocab_size, d_model)
        nn.init.xavier_uniform_(self.weight)
