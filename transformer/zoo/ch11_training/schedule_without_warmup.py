"""`warmup=0` raises an error in the paper's own formula: 0 ** -1.5."""

CHECK = "check_schedule"
CAUGHT_BY = r"0 \*\* -1.5"


def wrong(step, warmup, peak):
    return peak * warmup**0.5 * min(step**-0.5, step * warmup**-1.5)
