"""The schedule advances with every micro-batch, the optimiser with every second: the warm-up is half as long."""

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "is the rate set before the step"


class wrong(Trainer):
    def step(self, batch):
        self.steps = 2 * self.steps + 1
        try:
            return super().step(batch)
        finally:
            self.steps //= 2
