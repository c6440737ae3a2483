"""The model ends in a softmax, and the loss applies another one."""

from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = "gives probabilities"


class wrong(Transformer):
    def decode(self, tgt, memory, src):
        return super().decode(tgt, memory, src).softmax(-1)
