"""eps is added to the standard deviation, not to the variance inside the root."""

CHECK = "check_layer_norm"
CAUGHT_BY = "eps is added to the standard deviation"


def wrong(x, gain, bias, eps=1e-5):
    return (x - x.mean(-1, keepdim=True)) / (
        x.std(-1, keepdim=True, correction=0) + eps
    ) * gain + bias
