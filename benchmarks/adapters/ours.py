"""This library, as its own command line trains and translates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.adapters.base import RATE, Setting, System, make_lively
from benchmarks.work import SMOOTHING
from transformer import Transformer
from transformer.data import Batch
from transformer.inference import TorchEngine
from transformer.training import Recipe, Trainer


class Ours(System):
    """`Trainer.step`, and the engine of `Translator`: packed weights, and on a CPU one-thread workers over batches."""

    name = "ours"

    def __init__(self, setting: Setting):
        torch.manual_seed(0)
        self.model = Transformer(setting.size.config()).to(setting.device)
        if setting.work == "train":
            recipe = Recipe(
                precision=setting.dtype, smoothing=SMOOTHING, averaging=0.0, peak_rate=RATE, warmup=1, steps=10**9
            )
            self.trainer = Trainer(self.model, recipe)
        else:
            make_lively(self.model.bias, last_gain(self.model))
            self.model.eval().to(torch.bfloat16 if setting.dtype == "bf16" else torch.float32)
            self.engine = TorchEngine(self.model)

    def train_step(self, batch: Batch) -> float:
        return self.trainer.step(batch)

    def greedy(self, batches: Sequence[Tensor], steps: int) -> list[Tensor]:
        return self.beam(batches, steps, beam_size=1)

    def beam(self, batches: Sequence[Tensor], steps: int, beam_size: int) -> list[Tensor]:
        groups = [(src.tolist(), steps) for src in reversed(batches)]  # longest first, as `Translator` has them
        return [torch.tensor(ids) for ids in self.engine.search_all(groups, beam_size)][::-1]

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def logits(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.model(src, tgt)


def last_gain(model: Transformer) -> Tensor:
    """Return the gain of the norm before the logits."""
    return model.decoder.layers[-1].residuals[-1].norm.gain
