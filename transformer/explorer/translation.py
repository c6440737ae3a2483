"""What the page shows of one translation, as JSON."""

import base64
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from transformer.data import decode
from transformer.explorer.beam_tree import Node, beam_tree, best_path
from transformer.explorer.recording import Extensions, Look, RecordingDecoder, Watcher, watched
from transformer.inference import IncrementalDecoder, beam_hypotheses
from transformer.model import Transformer, inference_context
from transformer.reader import read_texts, refuse
from transformer.texts import clean, most_characters
from transformer.translator import round_up

LEVELS = 255
"""A weight is stored as a byte, so it is exact to 1 / 510."""
DIGITS = 4
"""Decimals of probabilities."""
CANDIDATES = 8
"""Next tokens that are shown with their probabilities at each step."""


def record_translation(
    model: Transformer,
    tokenizer: Tokenizer,
    text: str,
    beam_size: int = 5,
    length_penalty: float = 1.0,
) -> dict[str, Any]:
    """Translate a text by beam search, and return all that the page shows, ready for JSON.

    The limit of the length is that of `Translator.translate`. Raises ValueError for a text that is
    blank, unknown or too long, and for a beam below 1.
    """
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, not {beam_size}")
    config = model.config
    model, watcher = watched(model)
    longest = most_characters(tokenizer.get_vocab(), config.max_len)
    (row,) = read_texts(tokenizer, [text], config.max_len, longest, refuse)
    src = torch.tensor([row])
    max_len = min(2 * round_up(len(row), 16), config.max_len)

    record: list[Extensions] = []
    make = partial(RecordingDecoder, record)
    beam_hypotheses(model, src, beam_size, length_penalty, max_len, make)
    watcher.take()
    tree = beam_tree(record, config, beam_size, max_len)
    path = best_path(tree, length_penalty)
    ids = [tree[t][i].token for t, i in enumerate(path)]

    with inference_context(model):
        decoder = IncrementalDecoder(model, src)
        encoder = watcher.take()
        film = [
            one_step(decoder, watcher, token, tokenizer) for token in [config.bos_id, *ids[:-1]]
        ]
    looks = [looks for _, looks in film]
    return {
        "model": facts(model),
        "source": sequence(tokenizer, clean(text), row),
        "target": sequence(tokenizer, clean(decode(tokenizer, [ids])[0]), ids),
        "read": sequence(tokenizer, "", [config.bos_id, *ids[:-1]]),
        "attention": {
            "encoder": quantised(torch.stack([look.weights[0] for look in encoder])),
            "decoder": quantised(rows_together([step[0::2] for step in looks], len(ids))),
            "cross": quantised(rows_together([step[1::2] for step in looks], len(row))),
        },
        "steps": [step for step, _ in film],
        "beam": {
            "size": beam_size,
            "penalty": length_penalty,
            "path": path,
            "tree": [[as_list(node, tokenizer) for node in nodes] for nodes in tree],
        },
    }


def facts(model: Transformer) -> dict[str, int | str]:
    """Return the sizes of a model."""
    config = model.config
    return {
        "layers": config.n_layers,
        "heads": config.n_heads,
        "width": config.d_model,
        "vocabulary": config.vocab_size,
        "parameters": sum(x.numel() for x in model.parameters()),
    }


def sequence(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> dict[str, Any]:
    """Return a text with its tokens and their ids."""
    return {"text": text, "tokens": [token_of(tokenizer, i) for i in ids], "ids": list(ids)}


def token_of(tokenizer: Tokenizer, token_id: int) -> str:
    """Return a token as the vocabulary spells it; ? if it has no such id."""
    return tokenizer.id_to_token(token_id) or "?"


def one_step(
    decoder: IncrementalDecoder, watcher: Watcher, token: int, tokenizer: Tokenizer
) -> tuple[dict[str, Any], list[Look]]:
    """Decode one token; return what the page says about this step, and what attention computed."""
    stored = [cached_numbers(decoder, kind) for kind in ("source", "target")]
    logits = decoder.step(torch.tensor([token]))
    looks = watcher.take()
    probabilities, tokens = logits[0].softmax(-1).topk(min(CANDIDATES, logits.shape[1]))
    step = {
        "candidates": [
            [token_of(tokenizer, i), i, round(p, DIGITS)]
            for p, i in zip(probabilities.tolist(), tokens.tolist())
        ],
        "shapes": {
            **watcher.shapes,
            "self": [list(x.shape) for x in looks[0]],
            "cross": [list(x.shape) for x in looks[1]],
            "logits": list(logits.shape),
        },
        "cache": {
            "source": stored[0],
            "target": stored[1],
            "added": cached_numbers(decoder, "target") - stored[1],
        },
    }
    return step, looks


def cached_numbers(decoder: IncrementalDecoder, kind: str) -> int:
    """Return how many numbers the caches hold of the source, or of the target, in all layers."""
    return sum(x.numel() for cache in decoder.caches for x in getattr(cache, kind))


def rows_together(steps: list[list[Look]], width: int) -> Float[Tensor, "... h q k"]:
    """Return the weights of all layers and steps, a row for each step, with zeros to its right."""
    rows = [
        torch.stack(
            [F.pad(look.weights[0, :, 0], (0, width - look.weights.shape[-1])) for look in step]
        )
        for step in steps
    ]
    return rearrange(rows, "q l h k -> l h q k")


def quantised(weights: Float[Tensor, "... h q k"]) -> dict[str, Any]:
    """Return weights from 0 to 1 as bytes from 0 to LEVELS, in base64, with their shape."""
    levels = (weights.double() * LEVELS).round().to(torch.uint8)
    return {
        "shape": list(weights.shape),
        "levels": LEVELS,
        "bytes": base64.b64encode(levels.numpy().tobytes()).decode("ascii"),
    }


def dequantised(stored: dict[str, Any]) -> Float[Tensor, "... h q k"]:
    """Return the weights that `quantised` stored."""
    levels = torch.frombuffer(bytearray(base64.b64decode(stored["bytes"])), dtype=torch.uint8)
    return levels.float().unflatten(0, stored["shape"]) / stored["levels"]


def as_list(node: Node, tokenizer: Tokenizer) -> list:
    """Return a node of the beam's tree: token, id, parent, log-probability, state."""
    token = token_of(tokenizer, node.token)
    return [token, node.token, node.parent, rounded(node.score), node.state]


def rounded(log_prob: float) -> float:
    """Return a log-probability with two decimals, above -1 with three.

    More would differ from one machine to the next: a sum of float32 numbers is not exact.
    """
    return round(log_prob, 3 if log_prob > -1 else 2)
