"""A learning rate that falls to zero at the end of a run."""

from dataclasses import dataclass

from transformer.training import learning_rate


@dataclass
class Cooldown:
    """Chapter 11's learning rate, which in the last `share` of a run also falls linearly to 0.

    Large steps keep moving the weights about; small ones at the end let them settle. How much of a
    run is done, `progress` from 0 to 1, is for the run to say, because its length may be one in
    minutes. A share of 0 leaves the learning rate as it is. Source: Hägele et al. 2024, "Scaling
    Laws and Compute-Optimal Training Beyond Fixed Training Durations".
    """

    share: float
    progress: float = 0.0

    def __call__(self, step: int, warmup: int, peak: float) -> float:
        rate = learning_rate(step, warmup, peak)
        left = max(1 - self.progress, 0)
        return rate * left / self.share if left < self.share else rate
