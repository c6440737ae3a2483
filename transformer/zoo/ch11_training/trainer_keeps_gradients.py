"""Gradients are never set to zero: each step repeats the directions of all steps before."""

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "Are gradients set to zero"


class wrong(Trainer):
    def __init__(self, model, config):
        super().__init__(model, config)
        self.optimizer.zero_grad = lambda: None
