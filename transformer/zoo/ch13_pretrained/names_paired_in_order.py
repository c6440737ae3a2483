"""Two lists of tensors are paired in order, but theirs has keys first, values, then queries."""

from transformer.pretrained import layer_names

CHECK = "check_layer_names"
CAUGHT_BY = "paired in their order"


def wrong(stack):
    names = layer_names(stack)
    for attention in ("self_attention", "cross_attention"):
        parts = [f"{attention}.{part}" for part in ("w_q", "w_k", "w_v")]
        if parts[0] in names:
            q, k, v = (names[part] for part in parts)
            names |= dict(zip(parts, (k, v, q), strict=True))
    return names
