"""Rows are split by (n b), not (b n), so a hypothesis reads the source of another sentence."""

from einops import rearrange

CHECK = "check_decode_position"
CAUGHT_BY = "3 hypotheses"


def wrong(layer, x, cache, src_mask):
    n = len(x) // len(cache.source[0])

    def self_attention(y):
        k, v = cache.append(*layer.self_attention.project_kv(y))
        return layer.self_attention.attend(y, k, v)

    def cross_attention(y):
        queries = rearrange(y, "(n b) 1 d -> b n d", n=n)
        mixed = layer.cross_attention.attend(queries, *cache.source, mask=src_mask)
        return rearrange(mixed, "b n d -> (n b) 1 d")

    first, second, third = layer.residuals
    x = second(first(x, self_attention), cross_attention)
    return third(x, layer.feed_forward)
