"""The schedule advances twice a step: the warm-up is half as long."""

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "is the rate set before the step"


class wrong(Trainer):
    def step(self, *batches):
        self.steps = 2 * self.steps + 1
        try:
            return super().step(*batches)
        finally:
            self.steps //= 2
