"""The decoder hides padding from itself, but its own first token is padding."""

from transformer.decoder import causal_mask, padding_mask
from transformer.pretrained import PublishedTransformer

CHECK = "check_published_model"
CAUGHT_BY = "The first token is hidden"


class wrong(PublishedTransformer):
    def target_mask(self, tgt):
        pad_id = self.config.pad_id
        return causal_mask(tgt.shape[1], tgt.device) & padding_mask(tgt, pad_id)
