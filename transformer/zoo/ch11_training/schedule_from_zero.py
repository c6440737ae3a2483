"""Steps are counted from 0: the first batch is trained on with the rate 0."""

CHECK = "check_schedule"
CAUGHT_BY = "Steps count from 1"


def wrong(step, warmup, peak):
    return peak * min((step - 1) / max(warmup, 1), (max(warmup, 1) / max(step - 1, 1)) ** 0.5)
