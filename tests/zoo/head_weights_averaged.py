"""The mean over heads, as `nn.MultiheadAttention` returns it by default: eight opinions look like one."""

from transformer.multi_head import head_weights

CHECK = "check_head_weights"
CAUGHT_BY = "result is 2×5×7"


def wrong(module, x, memory, mask=None):
    return head_weights(module, x, memory, mask).mean(1)
