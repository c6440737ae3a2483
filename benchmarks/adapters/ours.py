"""This library, as its own command line trains and translates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.adapters.base import RATE, Setting, System, make_lively
from benchmarks.work import SMOOTHING
from transformer import Transformer
from transformer.data import Batch
from transformer.engines import PyTorchEngine
from transformer.recipes import fast_trainer
from transformer.training import TrainingConfig


class Ours(System):
    """`Trainer.step` of a `fast_trainer`, and the engine of `Translator`.

    On a CPU the engine has packed weights, and one-thread workers that share the batches.
    """

    name = "ours"

    def __init__(self, setting: Setting):
        torch.manual_seed(0)
        self.model = Transformer(setting.size.config()).to(setting.device)
        if setting.work == "train":
            config = TrainingConfig(
                steps=10**9, peak_lr=RATE, warmup=1, label_smoothing=SMOOTHING, ema_decay=0.0
            )
            self.trainer = fast_trainer(self.model, config, setting.dtype)
        else:
            make_lively(self.model.bias, last_gain(self.model))
            self.model.eval().to(torch.bfloat16 if setting.dtype == "bf16" else torch.float32)
            self.engine = PyTorchEngine(self.model)

    def train_step(self, batch: Batch) -> float:
        return self.trainer.step(batch)

    def greedy(self, batches: Sequence[Tensor], steps: int) -> list[Tensor]:
        return self.beam(batches, steps, beam_size=1)

    def beam(self, batches: Sequence[Tensor], steps: int, beam_size: int) -> list[Tensor]:
        # The longest first, as `Translator` passes them.
        groups = [(src.tolist(), steps) for src in reversed(batches)]
        return [torch.tensor(ids) for ids in self.engine.search_all(groups, beam_size)][::-1]

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def logits(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.model(src, tgt)


def last_gain(model: Transformer) -> Tensor:
    """Return the gain of the norm before the logits."""
    return model.decoder.layers[-1].residuals[-1].norm.gain
