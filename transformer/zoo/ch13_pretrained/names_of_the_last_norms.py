"""The decoder's final_layer_norm is put after cross-attention, where the encoder's layer ends."""

from transformer.pretrained import layer_names

CHECK = "check_layer_names"
CAUGHT_BY = "last two norms are exchanged"


def wrong(stack):
    names = layer_names(stack)
    if stack == "decoder":
        names["residuals.1.norm"] = "final_layer_norm"
        names["residuals.2.norm"] = "encoder_attn_layer_norm"
    return names
