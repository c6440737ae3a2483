"""After the warm-up the rate falls linearly to 0."""

CHECK = "check_schedule"
CAUGHT_BY = "four times the steps, half the rate"


def wrong(step, warmup, peak):
    return peak * min(step / max(warmup, 1), max(0.0, (10_000 - step) / (10_000 - warmup)))
