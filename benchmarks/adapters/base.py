"""The interface of a system, and what all peers in PyTorch share: loss, optimiser, precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.work import SMOOTHING, Data, Size
from transformer.data import BOS, EOS, PAD, Batch

RATE = 3e-4
SPECIAL = [PAD, BOS, EOS]  # not allowed in a translation here, so that all have the same length


def make_lively(output_bias: Tensor, last_gain: Tensor) -> None:
    """Make an untrained model write to the end, and let its output depend on its input.

    With a tied table an untrained model repeats its last token, and a wrong cache would not be
    noticed. A random gain of the last norm changes that.
    """
    with torch.no_grad():
        output_bias[..., SPECIAL] = -1e9
        last_gain.normal_()


@dataclass(frozen=True)
class Setting:
    """The work that a system is built for."""

    work: str
    size: Size
    dtype: str
    device: str
    data: Data


class System:
    """A library behind the same three calls.

    `works` and `dtypes` name what it can do. For `slow_works` it is so slow that one sample is
    enough.
    """

    name: str
    works: Sequence[str] = ("train", "greedy", "beam5", "one")
    dtypes: Sequence[str] = ("fp32", "bf16")
    slow_works: Sequence[str] = ()
    # How far below the best logit a chosen token may lie when decoding is checked.
    tolerance: ClassVar = {"fp32": 2e-3, "bf16": 0.3}

    def __init__(self, setting: Setting):
        raise NotImplementedError

    def train_step(self, batch: Batch) -> Tensor | float:
        """Learn from one batch and return its loss: forward, backward, Adam."""
        raise NotImplementedError

    def greedy(self, batches: Sequence[Tensor], steps: int) -> list[Tensor]:
        """Return `steps` tokens by greedy search for every source of every batch."""
        raise NotImplementedError

    def beam(self, batches: Sequence[Tensor], steps: int, beam_size: int) -> list[Tensor]:
        """Return `steps` tokens by beam search for every source of every batch."""
        raise NotImplementedError

    def parameters(self) -> int:
        """Return the number of parameters of the model."""
        raise NotImplementedError

    def logits(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Return the logits of all target positions in one pass, without a cache (for checks)."""
        raise NotImplementedError


class Peer(System):
    """A model in PyTorch with the training loop that its users write."""

    def __init__(self, setting: Setting):
        torch.manual_seed(0)
        self.device = setting.device
        self.half = setting.dtype == "bf16"
        self.model = self.build(setting.size).to(setting.device)
        if setting.work == "train":
            self.optimizer = torch.optim.Adam(
                self.model.parameters(), lr=RATE, betas=(0.9, 0.98), eps=1e-9, fused=True
            )
            self.model.train()
        else:
            make_lively(self.output_bias(), self.last_gain())
            self.model.eval().to(torch.bfloat16 if self.half else torch.float32)

    def build(self, size: Size) -> nn.Module:
        """Return the model."""
        raise NotImplementedError

    def output_bias(self) -> Tensor:
        """Return the bias of the logits."""
        raise NotImplementedError

    def last_gain(self) -> Tensor:
        """Return the gain of the norm before the logits."""
        raise NotImplementedError

    def train_step(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            logits = self.logits(batch.src, batch.decoder_input).flatten(0, 1).float()
            loss = F.cross_entropy(
                logits, batch.labels.flatten(), ignore_index=PAD, label_smoothing=SMOOTHING
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)
