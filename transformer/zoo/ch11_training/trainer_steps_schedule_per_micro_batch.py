"""The schedule advances with every accumulated batch: the warm-up is over too soon."""

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "The schedule advances once a step, however many batches are accumulated"


class wrong(Trainer):
    def step(self, *batches):
        self.steps += len(batches) - 1
        return super().step(*batches)
