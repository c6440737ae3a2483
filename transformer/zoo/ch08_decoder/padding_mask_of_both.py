"""Padding is hidden along rows and columns: rows of padding are empty."""

from einops import rearrange

CHECK = "check_padding_mask"
CAUGHT_BY = "2×1×5×5"


def wrong(ids, pad_id):
    real = ids != pad_id
    return rearrange(real, "b t -> b 1 t 1") & rearrange(real, "b t -> b 1 1 t")
