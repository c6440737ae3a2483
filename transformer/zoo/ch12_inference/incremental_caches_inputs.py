"""Nothing is cached but ids and memory: all keys are computed again at every step."""

from transformer.inference import RecomputingDecoder

CHECK = "check_incremental"
CAUGHT_BY = "must be keys and values, not the inputs"
wrong = RecomputingDecoder
