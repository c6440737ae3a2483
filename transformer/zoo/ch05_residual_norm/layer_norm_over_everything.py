"""Mean and variance of the whole tensor: a sentence depends on the others in its batch."""

CHECK = "check_layer_norm"
CAUGHT_BY = "over the whole tensor"


def wrong(x, gain, bias, eps=1e-5):
    return (x - x.mean()) / (x.var(correction=0) + eps).sqrt() * gain + bias
