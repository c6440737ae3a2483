"""The model as two ONNX graphs for one sentence, with the KV cache and the attention weights.

The graphs of `transformer.engines.onnx` return logits only, and read the whole target at each step.
These are for the live page, which shows the weights and keeps the cache itself.
"""

from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer.decoder import DecoderLayer
from transformer.engines.onnx import exportable, tracing
from transformer.engines.weights import optional
from transformer.explorer.recording import Watcher, watched
from transformer.model import Transformer

GRAPHS = ("encoder.onnx", "step.onnx")


class EncoderGraph(nn.Module):
    """From source ids to the keys and values of cross-attention, and the encoder's weights."""

    def __init__(self, model: Transformer, watcher: Watcher):
        super().__init__()
        self.model = model
        self.watcher = watcher

    def forward(
        self, src: Int[Tensor, "1 k"]
    ) -> tuple[Float[Tensor, "... h k d_head"], Float[Tensor, "... h k k"]]:
        """Return keys and values, layers × 2 × 1 × h × k × d_head, and weights.

        The weights are layers × h × k × k.
        """
        self.watcher.take()
        memory = self.model.encoder(self.model.embed(src))
        weights = torch.stack([look.weights[0] for look in self.watcher.take()])
        pairs = [layer.cross_attention.project_kv(memory) for layer in layers(self.model)]
        return torch.stack([torch.stack(pair) for pair in pairs]), weights


class StepGraph(EncoderGraph):
    """One step of decoding: a new position for each of r hypotheses of one sentence."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        ids: Int[Tensor, " r"],
        position: Int[Tensor, " 1"],
        source: Float[Tensor, "... 1 h k d_head"],
        past: Float[Tensor, "... r h t d_head"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits, the longer `past`, and the weights of self- and cross-attention.

        `source` and `past` are layers × 2 × …; the weights are layers × r × h × t + 1 and
        layers × h × r × k.
        """
        self.watcher.take()
        model = self.model
        x = model.embedding(rearrange(ids, "r -> r 1")) + model.positions.table[position]
        longer = []
        for number, layer in enumerate(layers(model)):
            x, cache = decode_row(layer, x, source[number], past[number])
            longer.append(cache)
        logits = rearrange(model.logits(model.decoder.norm(x)), "r 1 vocab -> r vocab")
        looks = self.watcher.take()
        self_weights = torch.stack([look.weights[:, :, 0] for look in looks[0::2]])
        cross_weights = torch.stack([look.weights[0] for look in looks[1::2]])
        return logits, torch.stack(longer), self_weights, cross_weights


def layers(model: Transformer) -> list[DecoderLayer]:
    """Return the decoder's layers, with their type."""
    return [layer for layer in model.decoder.layers if isinstance(layer, DecoderLayer)]


def decode_row(
    layer: DecoderLayer,
    x: Float[Tensor, "r 1 d_model"],
    source: Float[Tensor, "2 1 h k d_head"],
    past: Float[Tensor, "2 r h t d_head"],
) -> tuple[Float[Tensor, "r 1 d_model"], Tensor]:
    """Run a layer for one position of each row; return the result and the longer cache.

    This is `decode_position` of chapter 12 without objects, which a graph cannot have.
    """
    cache = past

    def self_attention(y: Tensor) -> Tensor:
        nonlocal cache
        cache = torch.cat([past, torch.stack(layer.self_attention.project_kv(y))], dim=3)
        return layer.self_attention.attend(y, cache[0], cache[1])

    def cross_attention(y: Tensor) -> Tensor:
        queries = rearrange(y, "r 1 d_model -> 1 r d_model")
        mixed = layer.cross_attention.attend(queries, source[0], source[1])
        return rearrange(mixed, "1 r d_model -> r 1 d_model")

    sublayers = (self_attention, cross_attention, layer.feed_forward)
    for residual, sublayer in zip(layer.residuals, sublayers, strict=True):
        x = residual(x, sublayer)
    return x, cache


def write_graphs(model: Transformer, folder: Path) -> None:
    """Write encoder.onnx and step.onnx; ValueError if a package for it is missing."""
    optional("onnxscript", "onnx onnxscript")
    model, watcher = watched(exportable(model))
    config = model.config
    d_head = config.d_model // config.n_heads
    r = 3
    k = min(5, config.max_len)
    t = 4
    source = torch.zeros(config.n_layers, 2, 1, config.n_heads, k, d_head)
    past = torch.zeros(config.n_layers, 2, r, config.n_heads, t, d_head)
    with tracing():
        write(
            EncoderGraph(model, watcher),
            {"src": (torch.full((1, k), config.eos_id), {1: "k"})},
            ["source", "weights"],
            folder / GRAPHS[0],
        )
        write(
            StepGraph(model, watcher),
            {
                "ids": (torch.full((r,), config.eos_id), {0: "r"}),
                "position": (torch.tensor([t]), {}),
                "source": (source, {4: "k"}),
                "past": (past, {2: "r", 4: "t"}),
            },
            ["logits", "longer", "self_weights", "cross_weights"],
            folder / GRAPHS[1],
        )


def write(
    graph: nn.Module, inputs: dict[str, tuple[Tensor, dict]], outputs: list[str], path: Path
) -> None:
    """Trace a graph on example inputs, each given with the names of its dynamic axes."""
    program: Any = torch.onnx.export(
        graph.eval(),
        tuple(x for x, _ in inputs.values()),
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes=tuple(axes for _, axes in inputs.values()),
        dynamo=True,
        verbose=False,
    )
    program.save(path)
