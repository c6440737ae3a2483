"""An output layer over the tokens that translations contain.

In a vocabulary that two languages share, many tokens are of the source only: of 10,000 subwords for
Multi30k, 2,837 are in no German sentence. The softmax computes their logits all the same. It also
pushes their embeddings away from the decoder's states, though the encoder reads the same table. So
they get a bias that is too low for them to be written, and the loss leaves them out.

Source: Jean et al. 2015, "On Using Very Large Target Vocabulary for Neural Machine Translation",
section 3, where each part of the data has its own list of target words.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transformer.data import Batch, Pair
from transformer.fast_training import chunked_cross_entropy
from transformer.model import Transformer

LOW_BIAS = -20.0
"""The bias of a token that is not to be written; finite, so another loss can still raise it."""


def keep_targets(model: Transformer, pairs: Iterable[Pair], min_count: int) -> None:
    """Lower the bias of the tokens that are a label fewer than `min_count` times, but for padding.

    No loss has padding as a label, so it needs no low bias.
    """
    counts = Counter(token for _, tgt in pairs for token in tgt[1:])
    counts[model.config.pad_id] = min_count
    rare = [token for token in range(len(model.bias)) if counts[token] < min_count]
    with torch.no_grad():
        model.bias[rare] = LOW_BIAS


class Outputs(NamedTuple):
    """A part of the output layer, and the labels of a batch as rows of that part.

    A label that is not in it is padding there, and so is -100.
    """

    weight: Float[Tensor, "vocab d_model"]
    bias: Float[Tensor, " vocab"]
    labels: Int[Tensor, " t"]
    pad_id: int

    @staticmethod
    def of(
        model: Transformer,
        batch: Batch,
        kept: Bool[Tensor, " vocab"],
        added: Float[Tensor, " vocab"] | None = None,
    ) -> "Outputs":
        """Return the part with the tokens that are `kept`; `added` is added to the bias."""
        pad_id = model.config.pad_id
        kept = kept.index_fill(0, batch.labels.new_tensor([pad_id]), True)
        new_ids = kept.cumsum(0) - 1
        new_ids = new_ids.where(kept, new_ids[pad_id])
        labels = rearrange(batch.labels, "b t -> (b t)")
        labels = labels.masked_fill(labels == -100, pad_id)
        bias = model.bias if added is None else model.bias + added
        return Outputs(
            model.embedding.weight[kept], bias[kept], new_ids[labels], int(new_ids[pad_id])
        )


OutputsOf = Callable[[Transformer, Batch], Outputs]
"""What chooses the part of the output layer for a batch."""


def may_be_written(model: Transformer) -> Bool[Tensor, " vocab"]:
    """Return which tokens have no low bias.

    A low bias stays where it is, as it gets no gradient.
    """
    return model.bias.detach() > LOW_BIAS


def kept_outputs(model: Transformer, batch: Batch) -> Outputs:
    """Return the output layer without the tokens whose bias is low."""
    return Outputs.of(model, batch, may_be_written(model))


def target_loss(model: Transformer, batch: Batch, smoothing: float) -> Tensor:
    """Return `chunked_loss` over the tokens that may be written; other labels are left out."""
    return chunked_cross_entropy(states_of(model, batch), *kept_outputs(model, batch), smoothing)


def states_of(model: Transformer, batch: Batch) -> Float[Tensor, "t d_model"]:
    """Return the decoder's output for all the labels of a batch, row after row."""
    memory = model.encode(batch.src)
    states = model.decoder_states(batch.decoder_input, memory, batch.src)
    return rearrange(states, "b t d_model -> (b t) d_model")
