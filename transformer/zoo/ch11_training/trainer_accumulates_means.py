"""Accumulated batches are divided by their number: a short batch counts as much as a full one."""

from transformer.training import Trainer, learning_rate

CHECK = "check_trainer"
CAUGHT_BY = "It is the mean of the batches' means"


class wrong(Trainer):
    def step(self, *batches):
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps, self.config.warmup, self.config.peak_lr)
        self.optimizer.zero_grad()
        total = 0.0
        for batch in batches:
            loss = self.loss(self.model, batch, self.config.label_smoothing) / len(batches)
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        return total
