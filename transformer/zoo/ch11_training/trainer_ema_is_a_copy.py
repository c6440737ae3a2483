"""The running average is a copy of the last weights."""

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "ema_model is a copy of the last weights"


class wrong(Trainer):
    def step(self, *batches):
        loss = super().step(*batches)
        self.ema_model.load_state_dict(self.model.state_dict())
        return loss
