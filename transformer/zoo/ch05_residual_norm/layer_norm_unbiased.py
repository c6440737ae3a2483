"""torch.std divides by d_model - 1 unless told otherwise: 13 % off at d_model = 4."""

CHECK = "check_layer_norm"
CAUGHT_BY = "divides by d_model - 1"


def wrong(x, gain, bias, eps=1e-5):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps) * gain + bias
