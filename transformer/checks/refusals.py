"""Files that do not fit a published model must be refused, and named in the refusal."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from transformer.checks.harness import expect
from transformer.checks.plain_marian import checkpoint, settings
from transformer.pretrained import PublishedConfig


def refuses_what_does_not_fit(
    fn: Callable, folder: Path, config: PublishedConfig, tensors: Mapping[str, Tensor]
) -> None:
    """Expect a ValueError that names what is wrong, for each file that does not fit its config."""
    name = "model.decoder.layers.0.encoder_attn.q_proj.weight"
    extra = "model.encoder.layers.2.fc1.bias"
    weights = "model.safetensors"
    narrow = dict(tensors) | {name: torch.zeros(12, 8)}
    wrong: dict[str, tuple[str, dict[str, Tensor]]] = {
        f"a file without {name}": (name, {n: t for n, t in tensors.items() if n != name}),
        f"a file with {extra}, which the model has no place for": (
            extra,
            dict(tensors) | {extra: torch.zeros(14)},
        ),
        f"a file whose {name} is (12, 8) where (12, 12) is wanted": (name, narrow),
    }
    place = checkpoint(folder / "wrong", config, tensors)
    for what, (named, others) in wrong.items():
        save_file(others, place / weights)
        refuses_by_name(fn, place, what, named)
    save_file(dict(tensors), place / weights)
    text = json.dumps(settings(config) | {"model_type": "bart"})
    (place / "config.json").write_text(text, encoding="utf-8")
    refuses_by_name(fn, place, "a config.json with the model_type bart", "bart")


def refuses_by_name(fn: Callable, folder: Path, what: str, name: str) -> None:
    """Expect a ValueError whose message has a name."""
    try:
        fn(folder)
    except ValueError as error:
        named = name in str(error)
        expect(named, f"{what} is refused, but the message does not name {name}: {error!s:.150}")
    except Exception as error:
        expect(False, f"{what} must raise a ValueError that names it, not {type(error).__name__}")
    else:
        expect(False, f"{what} was accepted: raise a ValueError that names it")
