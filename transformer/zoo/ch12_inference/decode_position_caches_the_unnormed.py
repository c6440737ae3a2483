"""Keys and values are made from x, and not from what the residual hands on, which may be normed."""

from einops import rearrange

CHECK = "check_decode_position"
CAUGHT_BY = "pre-norm, position 0"


def wrong(layer, x, cache, src_mask):
    n = len(x) // len(cache.source[0])
    cached = cache.append(*layer.self_attention.project_kv(x))

    def self_attention(y):
        return layer.self_attention.attend(y, *cached)

    def cross_attention(y):
        queries = rearrange(y, "(b n) 1 d -> b n d", n=n)
        mixed = layer.cross_attention.attend(queries, *cache.source, mask=src_mask)
        return rearrange(mixed, "b n d -> (b n) 1 d")

    first, second, third = layer.residuals
    x = second(first(x, self_attention), cross_attention)
    return third(x, layer.feed_forward)
