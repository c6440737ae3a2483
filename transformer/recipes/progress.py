"""How far a run has come, and a loss that changes on the way."""

from dataclasses import dataclass

from torch import Tensor

from transformer.data import Batch
from transformer.fast_training import Loss
from transformer.model import Transformer


@dataclass
class Progress:
    """The steps that a run has made, and the share of it that is done, from 0 to 1.

    The share is for the run to say, because its length may be one in minutes.
    """

    steps: int = 0
    share: float = 0.0


def from_step(start: int, loss: Loss, before: Loss, progress: Progress) -> Loss:
    """Return a loss that is `before` in the first `start` steps, and `loss` from then on."""

    def in_turn(model: Transformer, batch: Batch, smoothing: float) -> Tensor:
        now = loss if progress.steps >= start else before
        return now(model, batch, smoothing)

    return in_turn
