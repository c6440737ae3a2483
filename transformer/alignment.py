"""Which source tokens a translation attends to: for the analysis of errors."""

import copy
from collections.abc import Iterator, Sequence
from itertools import chain

from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from transformer.attention import attention_weights
from transformer.data import Batch, collate, encode_pairs
from transformer.model import Transformer, inference_context


def cross_attention_weights(
    model: Transformer, src: Int[Tensor, "b k"], tgt: Int[Tensor, "b t"]
) -> list[Float[Tensor, "b h t k"]]:
    """Return the weights of cross-attention in each layer, when the decoder reads `tgt`.

    The model is left as it is.
    """
    found: list[Tensor] = []

    def remember(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        found.append(attention_weights(q, k, mask))
        return found[-1] @ v

    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    watched = copy.deepcopy(model, shared)  # copies the modules; these tensors count as copied
    for layer in watched.decoder.layers:
        setattr(layer.cross_attention, "attention_fn", remember)  # noqa: B010 (pyright)
    with inference_context(watched):
        watched(src, tgt)
    return found


def attention_rows(
    model: Transformer, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]
) -> Iterator[dict]:
    """Yield for each pair its tokens, and the weights of each layer, the mean over heads.

    A row has `source` and `target`, lists of tokens, and `weights`, one matrix a layer, with a row
    for each target token, the weights with which it was predicted. They are empty for a pair with a
    side that is blank, unknown, or longer than the model's max_len.
    """
    for pair in pairs:
        batch = readable(tokenizer, pair, model.config.max_len)
        if batch is None:
            yield {"source": [], "target": [], "weights": []}
            continue
        batch = batch.to(model.bias.device)
        layers = cross_attention_weights(model, batch.src, batch.decoder_input)
        yield {
            "source": [tokenizer.id_to_token(i) for i in batch.src[0].tolist()],
            "target": [tokenizer.id_to_token(i) for i in batch.labels[0].tolist()],
            "weights": [rounded(weights[0].float().mean(0)) for weights in layers],
        }


def readable(tokenizer: Tokenizer, pair: tuple[str, str], max_len: int) -> Batch | None:
    """Return a pair as a batch of one, or None if the model cannot read it."""
    try:
        batch = collate(encode_pairs(tokenizer, [pair]))
    except ValueError:
        return None
    return batch if max(batch.src.shape[1], batch.labels.shape[1]) <= max_len else None


def rounded(weights: Float[Tensor, "t k"]) -> list[list[float]]:
    """Return a matrix as lists of numbers with three digits."""
    return [[round(value, 3) for value in row] for row in weights.tolist()]
