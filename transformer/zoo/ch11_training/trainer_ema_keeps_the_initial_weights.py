"""The average is never updated: what is translated with is the untrained model."""

import copy

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "ema_model still has the initial weights"


class wrong(Trainer):
    def step(self, *batches):
        initial = copy.deepcopy(self.ema_model.state_dict())
        loss = super().step(*batches)
        self.ema_model.load_state_dict(initial)
        return loss
