"""A loss of NaN is trained on: all weights are NaN from then on, and nobody says when it began."""

from transformer.training import Trainer, learning_rate

CHECK = "check_trainer"
CAUGHT_BY = "a loss of NaN was trained on"


class wrong(Trainer):
    def step(self, batch):
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps, self.recipe.warmup, self.recipe.peak_rate)
        self.optimizer.zero_grad()
        loss = self.loss(self.model.train(), batch, self.recipe.smoothing)
        loss.backward()
        self.optimizer.step()
        return loss.item()
