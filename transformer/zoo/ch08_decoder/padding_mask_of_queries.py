"""Padding is hidden along the rows: its queries see nothing, and it is still seen."""

from einops import rearrange

CHECK = "check_padding_mask"
CAUGHT_BY = "hides queries"


def wrong(ids, pad_id):
    return rearrange(ids != pad_id, "b t -> b 1 t 1")
