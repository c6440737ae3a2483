"""The linear layers keep nn.Linear's own initial weights, which are smaller than Xavier's."""

from torch import nn

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "Xavier's is"


class wrong(MultiHeadAttention):
    def __init__(self, d_model, n_heads, **options):
        super().__init__(d_model, n_heads, **options)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
