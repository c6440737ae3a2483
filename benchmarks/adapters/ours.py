"""This library, as its own command line trains and translates."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.adapters.base import RATE, Setting, System, make_lively
from benchmarks.work import SMOOTHING
from transformer import Transformer
from transformer.data import Batch
from transformer.fast import PackedDecoder
from transformer.inference import beam_search, greedy_search, spread
from transformer.training import Recipe, Trainer


class Ours(System):
    """`Trainer.step`; and both searches on packed weights, by one-thread workers over batches on a CPU."""

    name = "ours"

    def __init__(self, setting: Setting):
        torch.manual_seed(0)
        self.model = Transformer(setting.size.config()).to(setting.device)
        self.workers = None if setting.device == "cpu" else 1
        if setting.work == "train":
            recipe = Recipe(
                precision=setting.dtype, smoothing=SMOOTHING, averaging=0.0, peak_rate=RATE, warmup=1, steps=10**9
            )
            self.trainer = Trainer(self.model, recipe)
        else:
            make_lively(self.model.bias, last_gain(self.model))
            self.model.eval().to(torch.bfloat16 if setting.dtype == "bf16" else torch.float32)
            self.decoder = PackedDecoder(self.model)

    def train_step(self, batch: Batch) -> float:
        return self.trainer.step(batch)

    def greedy(self, batches: Sequence[Tensor], steps: int) -> list[Tensor]:
        return self.spread(lambda src: greedy_search(self.model, src, steps, decoder=self.decoder), batches)

    def beam(self, batches: Sequence[Tensor], steps: int, beam_size: int) -> list[Tensor]:
        def search(src: Tensor) -> Tensor:
            return beam_search(self.model, src, beam_size, max_len=steps, decoder=self.decoder)[0]

        return self.spread(search, batches)

    def spread(self, search: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> list[Tensor]:
        """Translate all batches, and return their results in order."""
        return list(spread(search, batches, self.workers))

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def logits(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.model(src, tgt)


def last_gain(model: Transformer) -> Tensor:
    """Return the gain of the norm before the logits."""
    return model.decoder.layers[-1].residuals[-1].norm.gain
