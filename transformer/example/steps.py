"""What each chapter makes of the two sentences, computed by the stored model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from transformer.attention import attention
from transformer.data import Batch, collate, decode, encode_pairs, load_tokenizer
from transformer.decoder import padding_mask
from transformer.encoder import EncoderLayer
from transformer.inference import greedy_search
from transformer.model import Transformer, load_model
from transformer.training import translation_loss

FOLDER = Path(__file__).resolve().parent
SENTENCES = (
    ("there is a cat on the mat", "c'è un gatto sul tappeto"),
    ("i love you very much", "ti amo molto"),
)


def example_tokenizer() -> Tokenizer:
    """Return the tokenizer of the example: the course's 588 subwords."""
    return load_tokenizer(FOLDER / "tokenizer.json")


def example_model() -> Transformer:
    """Return a fresh copy of the small trained model, in eval mode and without gradients."""
    return load_model(FOLDER).requires_grad_(False)


def example_batch() -> Batch:
    """Return the two pairs as a batch: `src` is 2 × 8 ids and `tgt` 2 × 9, padded with 0."""
    return collate(encode_pairs(example_tokenizer(), SENTENCES))


def tokens(ids: Int[Tensor, "b t"]) -> list[list[str]]:
    """Return the token of every id, without the ▁ that marks the beginning of a word."""
    tokenizer = example_tokenizer()
    named = {i: token.strip("▁") for token, i in tokenizer.get_vocab().items()}
    return [[named[i] for i in row] for row in ids.tolist()]


def weights(part: str) -> dict[str, Tensor]:
    """Return the weights of a part of the model, such as "embedding" or "encoder.layers.0".

    A module of the same kind and size takes them with `load_state_dict`. Raises ValueError for a
    part that the model does not have.
    """
    model = example_model()
    try:
        return model.get_submodule(part).state_dict()
    except AttributeError:
        known = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"the model has no part {part!r}; its parts begin with {known}") from None


def head_projections(head: int = 2) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """Return the layers that make queries, keys and values of one head, 24 features to 6 each.

    The head is one of the four of the encoder's first layer; head 2, chapter 3's, attends to nouns.
    Raises ValueError for another number.
    """
    module = first_layer(example_model()).self_attention
    if head not in range(module.n_heads):
        raise ValueError(f"head must be from 0 to {module.n_heads - 1}, not {head!r}")
    q, k, v = (
        part_of(whole, head, module.n_heads) for whole in (module.w_q, module.w_k, module.w_v)
    )
    return q, k, v


def part_of(whole: nn.Linear, head: int, n_heads: int) -> nn.Linear:
    """Return the rows of a linear layer that belong to one head, as a layer."""
    part = nn.Linear(whole.in_features, whole.out_features // n_heads, device="meta")
    part.weight = nn.Parameter(whole.weight.chunk(n_heads)[head].clone(), requires_grad=False)
    part.bias = nn.Parameter(whole.bias.chunk(n_heads)[head].clone(), requires_grad=False)
    return part


def first_layer(model: Transformer) -> EncoderLayer:
    """Return the encoder layer that chapters 3 to 6 build."""
    layer = model.encoder.layers[0]
    assert isinstance(layer, EncoderLayer)
    return layer


def after(chapter: int) -> Any:
    """Return what the chapters 1 to `chapter` made of the two sentences; 0 gives their ids.

    A tensor, except that chapter 10 makes a `Batch` and chapter 12 a list of translations. Raises
    ValueError for a chapter that is not from 0 to 12.
    """
    if chapter not in STEPS:
        raise ValueError(f"chapter must be from 0 to {max(STEPS)}, not {chapter!r}")
    with torch.no_grad():
        return STEPS[chapter](example_model(), example_batch())


def one_head(model: Transformer, batch: Batch) -> Float[Tensor, "b t d_head"]:
    """Return the result of head 2 in the encoder's first layer."""
    x = model.embed(batch.src)
    q, k, v = (project(x) for project in head_projections())
    return attention(q, k, v, (batch.src != model.config.pad_id)[:, None])


def all_heads(model: Transformer, batch: Batch) -> Float[Tensor, "b t d_model"]:
    """Return the result of multi-head attention in the encoder's first layer."""
    x = model.embed(batch.src)
    return first_layer(model).self_attention(x, x, padding_mask(batch.src, model.config.pad_id))


def added_and_normed(model: Transformer, batch: Batch) -> Float[Tensor, "b t d_model"]:
    """Return the norm of the first layer's input plus the result of its attention."""
    residual = first_layer(model).residuals[0]
    return residual(model.embed(batch.src), lambda _: all_heads(model, batch))


def one_layer(model: Transformer, batch: Batch) -> Float[Tensor, "b t d_model"]:
    """Return the result of the encoder's first layer."""
    return first_layer(model)(model.embed(batch.src), padding_mask(batch.src, model.config.pad_id))


def decoder_states(model: Transformer, batch: Batch) -> Float[Tensor, "b t d_model"]:
    """Return the decoder's output for the right translations, shifted by one token."""
    return model.decoder_states(batch.decoder_input, model.encode(batch.src), batch.src)


def translations(model: Transformer, batch: Batch) -> list[str]:
    """Return what greedy search writes."""
    return decode(example_tokenizer(), greedy_search(model, batch.src).tolist())


STEPS: dict[int, Callable[[Transformer, Batch], Any]] = {
    0: lambda model, batch: batch.src,
    1: lambda model, batch: model.embedding(batch.src),
    2: lambda model, batch: model.embed(batch.src),
    3: one_head,
    4: all_heads,
    5: added_and_normed,
    6: one_layer,
    7: lambda model, batch: model.encode(batch.src),
    8: decoder_states,
    9: lambda model, batch: model(batch.src, batch.decoder_input),
    10: lambda model, batch: batch,
    11: lambda model, batch: translation_loss(model, batch, smoothing=0.0),
    12: translations,
}
