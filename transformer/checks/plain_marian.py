"""A Marian model the plain way: functions of the tensors of a file, by their published names.

It uses none of the course's blocks, so that they can be compared with it. `checkpoint` writes a
small random one, as a folder like those that are published.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from transformer.checks.ch02_positional_encoding import wave_table
from transformer.checks.fixtures import keys, only_past
from transformer.checks.harness import shaken, sizes
from transformer.pretrained import PublishedConfig, PublishedTransformer, published_weights

BANNED = 7
"""An id that the checkpoints ban from what is written, beside padding."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "relu": F.relu}


def in_halves(n_positions: int, d_model: int) -> Tensor:
    """Return the paper's waves with all sines first, then all cosines."""
    table = wave_table(n_positions, d_model)
    return torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)


def fairseq_wave(position: int, feature: int, d_model: int) -> float:
    """Return one number of fairseq's table: its slowest frequency is exactly 1/10000."""
    half = d_model // 2
    angle = position / 10_000 ** (feature % half / (half - 1))
    return math.sin(angle) if feature < half else math.cos(angle)


def spaced_as_fairseq(n_positions: int, d_model: int) -> Tensor:
    """Return the table of fairseq's positions, from 0."""
    return wave_table(n_positions, d_model, fairseq_wave)


@dataclass(frozen=True)
class PlainLayers:
    """Layers of a Marian model; `heads` are those of encoder and decoder.

    With other options they make the usual mistakes: another activation, factor of the embedding or
    table of positions, norms before the sublayers, no bias of the logits, and target tokens hidden
    that equal padding.
    """

    tensors: Mapping[str, Tensor]
    heads: tuple[int, int]
    pad_id: int
    activation: Callable[[Tensor], Tensor] = F.silu
    scale: float = 1.0
    positions: Callable[[int, int], Tensor] = in_halves
    pre_norm: bool = False
    biased: bool = True
    hides_padding: bool = False

    def project(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight = self.tensors[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, self.tensors[f"{name}.bias"])

    def attend(self, x: Tensor, y: Tensor, name: str, n_heads: int, mask: Tensor) -> Tensor:
        """Attend from x to y; a query that may attend to nothing gets zeros."""
        q, k, v = (
            rearrange(self.project(z, f"{name}.{part}_proj"), "b t (h d) -> b h t d", h=n_heads)
            for part, z in zip("qkv", (x, y, y), strict=True)
        )
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
        mixed = rearrange(scores.softmax(-1).nan_to_num() @ v, "b h t d -> b t (h d)")
        return self.project(mixed, f"{name}.out_proj")

    def add(self, x: Tensor, name: str, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the sum of x and a branch, with the norm `name` after or before it."""
        if self.pre_norm:
            return x + branch(self.norm(x, f"{name}_layer_norm"))
        return self.norm(x + branch(x), f"{name}_layer_norm")

    def look(self, x: Tensor, name: str, n_heads: int, mask: Tensor) -> Tensor:
        """Run the self-attention of a layer, with its sum and norm."""
        name = f"{name}.self_attn"
        return self.add(x, name, lambda y: self.attend(y, y, name, n_heads, mask))

    def read(self, x: Tensor, memory: Tensor, name: str, n_heads: int, mask: Tensor) -> Tensor:
        """Run the cross-attention of a layer, with its sum and norm."""
        name = f"{name}.encoder_attn"
        return self.add(x, name, lambda y: self.attend(y, memory, name, n_heads, mask))

    def feed(self, x: Tensor, name: str) -> Tensor:
        """Run the feed-forward network of a layer, with its sum and norm."""

        def branch(y: Tensor) -> Tensor:
            return self.project(self.activation(self.project(y, f"{name}.fc1")), f"{name}.fc2")

        return self.add(x, f"{name}.final", branch)


class PlainMarian(PlainLayers):
    """Compute states and logits of a whole model."""

    def table(self, side: str) -> Tensor:
        """Return the table of "encoder" or "decoder": its own, or the one that both share."""
        own = f"model.{side}.embed_tokens.weight"
        return self.tensors[own if own in self.tensors else "model.shared.weight"]

    def embed(self, ids: Tensor, side: str) -> Tensor:
        x = self.table(side)[ids] * self.scale
        return x + self.positions(ids.shape[1], x.shape[-1]).to(x)

    def layers(self, side: str) -> list[str]:
        names = {name.partition(".self_attn.")[0] for name in self.tensors if ".self_attn." in name}
        return sorted(name for name in names if name.startswith(f"model.{side}."))

    def last(self, x: Tensor, side: str) -> Tensor:
        """Return the output of a stack; with pre-norm it is normed, if there is such a norm."""
        name = f"model.{side}.layer_norm"
        return self.norm(x, name) if self.pre_norm and f"{name}.weight" in self.tensors else x

    def memory(self, src: Tensor) -> Tensor:
        mask = keys(src != self.pad_id)
        x = self.embed(src, "encoder")
        for name in self.layers("encoder"):
            x = self.feed(self.look(x, name, self.heads[0], mask), name)
        return self.last(x, "encoder")

    def logits(self, tgt: Tensor, src: Tensor) -> Tensor:
        memory = self.memory(src)
        past = only_past(tgt.shape[1], tgt.device)
        past = past & keys(tgt != self.pad_id) if self.hides_padding else past
        x = self.embed(tgt, "decoder")
        for name in self.layers("decoder"):
            x = self.look(x, name, self.heads[1], past)
            x = self.read(x, memory, name, self.heads[1], keys(src != self.pad_id))
            x = self.feed(x, name)
        logits = F.linear(self.last(x, "decoder"), self.table("decoder"))
        bias = self.tensors.get("final_logits_bias")
        return logits if bias is None or not self.biased else logits + bias


def greedy(
    model: PlainMarian, src: Tensor, start: int, end: int, banned: list[int], max_len: int
) -> Tensor:
    """Return the most probable token at every step, without the start, padded after the end."""
    tgt = torch.full_like(src[:, :1], start)
    done = torch.zeros_like(src[:, 0], dtype=torch.bool)
    while tgt.shape[1] <= max_len and not done.all():
        logits = model.logits(tgt, src)[:, -1]
        logits[:, banned] = -math.inf
        ids = logits.argmax(-1).masked_fill(done, model.pad_id)
        tgt = torch.cat([tgt, rearrange(ids, "b -> b 1")], dim=1)
        done = done | (ids == end)
    return tgt[:, 1:]


def exchanged(model: PlainMarian, places: Mapping[str, str], side: str = "") -> PlainMarian:
    """Return a model with tensors in the places of others, in the layers of one side or of all."""

    def other(name: str) -> str:
        found = [part for part in places if f".{part}" in name]
        inside = found and f"model.{side}" in name and ".layers." in name
        return name.replace(f".{found[0]}", f".{places[found[0]]}") if inside else name

    tensors = {name: model.tensors[other(name)] for name in model.tensors}
    return replace(model, tensors=tensors)


def transposed(model: PlainMarian) -> PlainMarian:
    """Return a model with every square matrix transposed, which no shape forbids."""
    square = {
        name: tensor.mT
        for name, tensor in model.tensors.items()
        if tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]
    }
    return replace(model, tensors={**model.tensors, **square})


def plain(tensors: Mapping[str, Tensor], config: PublishedConfig) -> PlainMarian:
    """Return the plain model of these tensors, as its config says."""
    return PlainMarian(
        {name: tensor.detach() for name, tensor in tensors.items()},
        (config.encoder_heads, config.n_heads),
        config.pad_id,
        ACTIVATIONS[config.activation],
        math.sqrt(config.d_model) if config.scale_embedding else 1.0,
    )


# --- a small random checkpoint --------------------------------------------------------------------


def marian_config(**changes: Any) -> PublishedConfig:
    """Return the config of a small Marian model, whose two stacks have different sizes."""
    (vocab_size,) = sizes(13)
    changes = {"vocab_size": vocab_size, "source_vocab_size": vocab_size} | changes
    last = changes["vocab_size"] - 1
    decoder = dict(d_model=12, n_heads=3, n_layers=1, d_ff=20, max_len=16)
    encoder = dict(encoder_heads=2, encoder_layers=2, encoder_d_ff=14)
    special = dict(pad_id=last, bos_id=last, eos_id=0, banned=[last, BANNED], logits_bias=True)
    return PublishedConfig(**decoder | encoder | special | changes)


def random_tensors(config: PublishedConfig) -> dict[str, Tensor]:
    """Return random weights by their published names; the bias favours what is banned."""
    model = PublishedTransformer(config)
    shaken(model, "cpu")
    tensors = published_weights(model)
    tensors["final_logits_bias"][0, [config.pad_id, BANNED]] += 9.0
    return {name: tensor.clone() for name, tensor in tensors.items()}


def settings(config: PublishedConfig) -> dict[str, Any]:
    """Return the config.json of a small Marian model."""
    return {
        "model_type": "marian",
        "d_model": config.d_model,
        "vocab_size": config.source_vocab_size,
        "decoder_vocab_size": config.vocab_size,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.n_layers,
        "encoder_attention_heads": config.encoder_heads,
        "decoder_attention_heads": config.n_heads,
        "encoder_ffn_dim": config.encoder_d_ff,
        "decoder_ffn_dim": config.d_ff,
        "max_position_embeddings": config.max_len,
        "dropout": 0.5,
        "pad_token_id": config.pad_id,
        "decoder_start_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "activation_function": "swish" if config.activation == "silu" else config.activation,
        "scale_embedding": config.scale_embedding,
        "bad_words_ids": [[i] for i in config.banned],
    }


def checkpoint(folder: Path, config: PublishedConfig, tensors: Mapping[str, Tensor]) -> Path:
    """Write the two files of a checkpoint, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(settings(config))
    (folder / "config.json").write_text(text, encoding="utf-8")
    save_file(dict(tensors), folder / "model.safetensors")
    return folder
