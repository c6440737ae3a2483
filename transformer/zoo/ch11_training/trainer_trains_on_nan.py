"""A loss of NaN is trained on: all weights are NaN from then on."""

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "a loss of NaN was trained on"


class wrong(Trainer):
    def step(self, *batches):
        try:
            return super().step(*batches)
        except FloatingPointError:
            self.optimizer.step()
            self.update_ema()
            return float("nan")
