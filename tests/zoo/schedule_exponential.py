"""After the warm-up an exponential decay, because the text called the inverse square root one."""

CHECK = "check_schedule"
CAUGHT_BY = "inverse square root"


def wrong(step, warmup, peak):
    return peak * min(step / max(warmup, 1), 0.5 ** ((step - warmup) / max(warmup, 1)))
