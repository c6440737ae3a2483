"""Word dropout: a model that may not rely on any single token of what it reads.

In training, some tokens of the source and of the translation so far are replaced by <unk>, so the
model has to guess from the others what stood there. This costs no time, and a sentence looks
different in every epoch. <unk> learns its meaning as well: a token that is not known.

Source: Gal and Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent
Neural Networks"; Sennrich and Zhang 2019, for translation from little data.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from transformer.data import UNK, Batch
from transformer.fast_training import Loss
from transformer.model import Transformer


@dataclass(frozen=True)
class PartlyUnknown(Batch):
    """A batch whose decoder reads other tokens than those that come before its labels."""

    read: Int[Tensor, "b t-1"]

    @property
    def decoder_input(self) -> Int[Tensor, "b t"]:
        """What the decoder reads."""
        return self.read


def with_word_dropout(loss: Loss, p: float) -> Loss:
    """Return a loss that makes a share `p` of the tokens unknown, except in eval mode."""

    def of_partly_unknown(model: Transformer, batch: Batch, smoothing: float) -> Tensor:
        batch = drop_words(batch, p) if model.training else batch
        return loss(model, batch, smoothing)

    return of_partly_unknown


def drop_words(batch: Batch, p: float) -> Batch:
    """Return the batch with a share `p` of what is read, on both sides, replaced by <unk>.

    The labels stay as they are.
    """
    read = partly_unknown(batch.decoder_input, p)
    return PartlyUnknown(partly_unknown(batch.src, p), batch.tgt, read)


def partly_unknown(ids: Int[Tensor, "b t"], p: float) -> Int[Tensor, "b t"]:
    """Return the ids with a share `p` of them, drawn at random, replaced by <unk>.

    <s>, </s> and padding stay: they say where a sentence begins and ends.
    """
    drawn = torch.rand(ids.shape, device=ids.device) < p
    return ids.masked_fill(drawn & (ids > UNK), UNK)
