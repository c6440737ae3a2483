"""True where padding is, as in PyTorch's key_padding_mask."""

from einops import rearrange

CHECK = "check_padding_mask"
CAUGHT_BY = "inverted: True must mean a real token"


def wrong(ids, pad_id):
    return rearrange(ids == pad_id, "b t -> b 1 1 t")
