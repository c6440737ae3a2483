"""The logits are x Eᵀ alone; final_logits_bias is read and never added."""

from torch.nn import functional as F

from transformer.pretrained import PublishedTransformer

CHECK = "check_published_model"
CAUGHT_BY = "final_logits_bias, is left out"


class wrong(PublishedTransformer):
    def logits(self, x):
        return F.linear(x, self.embedding.weight)
