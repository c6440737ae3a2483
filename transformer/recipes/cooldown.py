"""A learning rate that falls to zero at the end of a run."""

from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer


@dataclass
class Cooldown:
    """Let the learning rate fall linearly to 0 in the last `share` of a run.

    Large steps keep moving the weights about; small ones at the end let them settle. How much of
    the run is done, `progress` from 0 to 1, is for the run to say, because its length may be one in
    minutes. It is a hook that an optimizer calls before each step, after chapter 11's schedule has
    set the rate; a share of 0 leaves that as it is. Source: Hägele et al. 2024, "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations".
    """

    share: float
    progress: float = 0.0

    def __call__(self, optimizer: Optimizer, *_: Any) -> None:
        left = max(1 - self.progress, 0)
        if left < self.share:
            for group in optimizer.param_groups:
                group["lr"] *= left / self.share
