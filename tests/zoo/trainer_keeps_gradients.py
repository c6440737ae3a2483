"""Gradients are never set to zero: each step goes on in the direction of all the steps before."""

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "Are gradients set to zero"


class wrong(Trainer):
    def __init__(self, model, recipe):
        super().__init__(model, recipe)
        self.optimizer.zero_grad = lambda: None
