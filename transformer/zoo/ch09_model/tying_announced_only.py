"""The tables should be tied, but the logits have a matrix of their own."""

from torch import nn

from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = "with E the embedding's table, tied"


class wrong(Transformer):
    def __init__(self, config):
        super().__init__(config)
        self.output = nn.Linear(config.d_model, config.vocab_size)

    def logits(self, x):
        return self.output(x) + self.bias
