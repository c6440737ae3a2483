"""Validation runs without eval(): dropout makes the loss worse than it is."""

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "validation runs in train mode"


class wrong(Trainer):
    def validate(self, batches):
        self.ema_model.train()
        return super().validate(batches)
