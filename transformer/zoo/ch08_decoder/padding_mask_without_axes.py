"""A mask b t broadcasts over queries and keys as if the batch were the queries."""

CHECK = "check_padding_mask"
CAUGHT_BY = "wanted 2×1×1×5"


def wrong(ids, pad_id):
    return ids != pad_id
