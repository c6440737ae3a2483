"""Padding is taken to be id 0, whatever the vocabulary says."""

from einops import rearrange

CHECK = "check_padding_mask"
CAUGHT_BY = "hides id 0"


def wrong(ids, pad_id):
    return rearrange(ids != 0, "b t -> b 1 1 t")
