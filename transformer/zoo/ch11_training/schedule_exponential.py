"""After the warm-up the rate decays exponentially instead of by the inverse square root."""

CHECK = "check_schedule"
CAUGHT_BY = "inverse square root"


def wrong(step, warmup, peak):
    return peak * min(step / max(warmup, 1), 0.5 ** ((step - warmup) / max(warmup, 1)))
