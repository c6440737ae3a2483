"""Xavier's initialisation for a table of many rows: even times √d_model the words are drowned by the positions."""

from torch import nn

from transformer.embeddings import TokenEmbedding

CHECK = "check_embedding"
CAUGHT_BY = "Xavier"


class wrong(TokenEmbedding):
    def __init__(self, vocab_size, d_model):
        super().__init__(vocab_size, d_model)
        nn.init.xavier_uniform_(self.weight)
