"""Encoder and decoder layers with packed weights, which chapter 16 builds its steps of.

A layer is as few products as possible: one with three matrices side by side gives queries, keys and
values. Sums and norms are in float32, whatever the precision of the weights. Views take the place
of einops here, because for a single row `rearrange` takes longer than the operator that it serves.
The layers are those of chapters 7 and 8; this module knows only the names of their parts.
"""

# Submodules have no types of their own in PyTorch.
# pyright: reportCallIssue=false, reportArgumentType=false

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transformer.cpu.packing import in_float32, pack


class PackedLayer(nn.Module):
    """A layer of the encoder with packed weights, for rows of states, sentence after sentence."""

    def __init__(self, layer: Any, pre_norm: bool):
        super().__init__()
        attention = layer.self_attention
        feed_forward = layer.feed_forward
        self.n_heads = attention.n_heads
        self.d = attention.w_q.out_features // attention.n_heads
        self.activation = feed_forward.activation
        self.pre_norm = pre_norm
        self.norms = nn.ModuleList(norm_in_float32(residual.norm) for residual in layer.residuals)
        self.qkv = pack(attention.w_q, attention.w_k, attention.w_v)
        self.self_out = pack(attention.w_o)
        self.w_1 = pack(feed_forward.w_1)
        self.w_2 = pack(feed_forward.w_2)

    def residual(self, i: int, x: Tensor, sublayer: Callable, *inputs) -> Tensor:
        """Wrap sublayer i as the model does: norm after the sum, or before the sublayer."""
        norm = self.norms[i]
        if self.pre_norm:
            return x + in_float32(sublayer(norm(x), *inputs))
        return norm(x + in_float32(sublayer(x, *inputs)))

    def write_kv(self, x: Float[Tensor, "r d_model"], few_rows: bool, cells: Tensor) -> Tensor:
        """Write the keys and values of x into cells, 2 b h t d_head; return the queries of x."""
        width = self.n_heads * self.d
        t = cells.shape[3]
        q, kv = self.qkv(x, few_rows).split((width, 2 * width), dim=1)
        cells.copy_(kv.view(-1, t, 2, self.n_heads, self.d).permute(2, 0, 3, 1, 4))
        return in_float32(q).view(-1, t, self.n_heads, self.d).transpose(1, 2)

    def self_attention(
        self, x: Tensor, few_rows: bool, kv: Tensor, mask: Tensor, t: int | Tensor
    ) -> Tensor:
        """Let t positions attend to one another; kv, 2 b h k d_head, has k ≥ t cells."""
        q = self.write_kv(x, few_rows, kv[:, :, :, :t])
        mixed = F.scaled_dot_product_attention(q, kv[0], kv[1], attn_mask=mask)
        return self.self_out(mixed.transpose(1, 2).reshape(-1, self.n_heads * self.d), few_rows)

    def feed_forward(self, x: Float[Tensor, "r d_model"], few_rows: bool) -> Tensor:
        """Run the feed-forward block."""
        return self.w_2(self.activation(self.w_1(x, few_rows)), few_rows)


def norm_in_float32(norm: nn.Module) -> nn.Module:
    """Return a copy of a norm in float32; float64 stays as it is."""
    kept = copy.deepcopy(norm).requires_grad_(False)
    for parameter in kept.parameters():
        parameter.data = in_float32(parameter.data)
    return kept


class PackedDecoderLayer(PackedLayer):
    """A layer of the decoder, for one position of n hypotheses for each sentence."""

    def __init__(self, layer: Any, pre_norm: bool):
        super().__init__(layer, pre_norm)
        self.query = pack(layer.cross_attention.w_q)
        self.cross_out = pack(layer.cross_attention.w_o)

    def masked_self_attention(
        self, x: Tensor, few_rows: bool, cells: Tensor, k: Tensor, v: Tensor, mask: Tensor
    ) -> Tensor:
        """Write this position's keys and values into `cells`, a part of k and v, and attend."""
        return self.self_out(self.attend(self.write_kv(x, few_rows, cells), k, v, mask), few_rows)

    def cross_attention(
        self, x: Tensor, few_rows: bool, k: Tensor, v: Tensor, mask: Tensor, n: int | Tensor
    ) -> Tensor:
        """Attend to the source."""
        q = in_float32(self.query(x, few_rows)).view(-1, n, self.n_heads, self.d).transpose(1, 2)
        return self.cross_out(self.attend(q, k, v, mask), few_rows)

    def absorbed_cross_attention(
        self, x: Tensor, few_rows: bool, to_scores: Tensor, to_output: Tensor, bias: Tensor
    ) -> Tensor:
        """Attend to the source by two products."""
        states = x.view(to_output.shape[0], -1, self.n_heads * self.d)
        scores = torch.baddbmm(bias, states, to_scores)
        weights = scores.unflatten(-1, (self.n_heads, -1)).softmax(-1).flatten(-2)
        return torch.bmm(weights, to_output).flatten(0, 1)

    def attend(
        self, q: Float[Tensor, "b h beam d_head"], k: Tensor, v: Tensor, mask: Tensor
    ) -> Tensor:
        """Let queries attend to keys and values (b h) k d_head under a mask to be added."""
        scores = torch.baddbmm(mask, q.flatten(0, 1), k.mT, alpha=1 / math.sqrt(self.d))
        mixed = torch.bmm(scores.softmax(-1), v).unflatten(0, (-1, self.n_heads))
        return mixed.transpose(1, 2).reshape(-1, self.n_heads * self.d)


class PackedEncoder(nn.Module):
    """The encoder with packed weights, and the source's keys and values for all decoder layers."""

    def __init__(self, model: Any):
        super().__init__()
        pre_norm = model.config.norm == "pre"
        cross = [layer.cross_attention for layer in model.decoder.layers]
        self.layers = nn.ModuleList(PackedLayer(layer, pre_norm) for layer in model.encoder.layers)
        self.norm = norm_in_float32(model.encoder.norm)
        self.source_kv = pack(*(w for attention in cross for w in (attention.w_k, attention.w_v)))

    def forward(
        self, x: Float[Tensor, "b t d_model"], mask: Tensor, few_rows: bool
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values, each `layers b h t d_head`.

        `mask`, b 1 1 k with k ≥ t, is added to scores.
        """
        b, t, _ = x.shape
        h = self.layers[0].n_heads
        d = self.layers[0].d
        kv = mask.new_zeros(2, b, h, mask.shape[3], d)
        x = x.flatten(0, 1)
        for layer in self.layers:
            x = layer.residual(0, x, layer.self_attention, few_rows, kv, mask, t)
            x = layer.residual(1, x, layer.feed_forward, few_rows)
        source = in_float32(self.source_kv(self.norm(x), few_rows)).view(b, t, -1, 2, h, d)
        keys, values = source.permute(3, 2, 0, 4, 1, 5).unbind()
        return keys, values
