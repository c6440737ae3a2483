"""Cross-attention is in no table, so its matrices keep the random numbers they started with."""

from transformer.pretrained import layer_names

CHECK = "check_layer_names"
CAUGHT_BY = "has no cross_attention"


def wrong(stack):
    names = layer_names(stack)
    return {ours: theirs for ours, theirs in names.items() if "cross" not in ours}
