"""The mean of the last checkpoints' weights, as the paper has it, beside the moving average."""

from collections.abc import Iterable

import torch
from torch import Tensor

from transformer.training import Trainer

Weights = dict[str, Tensor]


class CheckpointMean(Trainer):
    """A trainer whose averaged model is the mean of the weights at the last validations.

    `snapshots` maps steps to weights, oldest first, `count` at most. Until there is one, the
    averaged model has the weights of the last step. Source: Vaswani et al. 2017, section 6.1.
    """

    def __init__(self, count: int, *args, **options):
        super().__init__(*args, **options)
        self.count = count
        self.snapshots: dict[int, Weights] = {}

    @torch.no_grad()
    def update_ema(self) -> None:
        """Take a snapshot if this step is followed by a validation, and average."""
        if self.steps % self.config.validate_every == 0:
            self.snapshots[self.steps] = copied(self.model.named_parameters())
            self.snapshots = dict(list(self.snapshots.items())[-self.count :])
        elif self.snapshots:
            return
        found = list(self.snapshots.values()) or [dict(self.model.named_parameters())]
        for name, average in self.ema_model.named_parameters():
            average.copy_(torch.stack([weights[name] for weights in found]).mean(0))

    def restore(self, snapshots: dict[int, Weights]) -> None:
        """Go on from the snapshots of a run that was stopped."""
        device = self.model.bias.device
        for step, weights in snapshots.items():
            self.snapshots[step] = {name: x.to(device) for name, x in weights.items()}


def copied(parameters: Iterable[tuple[str, Tensor]]) -> Weights:
    """Return copies of named parameters that do not change with them."""
    return {name: parameter.detach().clone() for name, parameter in parameters}
