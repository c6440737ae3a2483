"""PyTorch's own layers with the weights of ours, in eval mode.

PyTorch's boolean masks mean the opposite of ours: True hides.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.checks.ch02_positional_encoding import wave_table
from transformer.model import Transformer


def copy_linear(target: nn.Linear, source: nn.Linear) -> None:
    """Copy weight and bias."""
    target.weight.data = source.weight.data.clone()
    target.bias.data = source.bias.data.clone()


def copy_norm(target: nn.LayerNorm, source: nn.Module) -> None:
    """Copy gain, bias and eps: PyTorch calls the gain weight."""
    target.weight.data = source.gain.data.clone()
    target.bias.data = source.bias.data.clone()
    target.eps = source.eps


def copy_attention(target: nn.MultiheadAttention, source: nn.Module) -> None:
    """Copy the four projections: PyTorch keeps those of query, key and value in one matrix."""
    parts = (source.w_q, source.w_k, source.w_v)
    target.in_proj_weight.data = torch.cat([part.weight.data for part in parts])
    target.in_proj_bias.data = torch.cat([part.bias.data for part in parts])
    copy_linear(target.out_proj, source.w_o)


def torch_attention(module: nn.Module) -> nn.MultiheadAttention:
    """Return PyTorch's multi-head attention with the weights of ours."""
    twin = nn.MultiheadAttention(module.w_q.in_features, module.n_heads, batch_first=True)
    copy_attention(twin, module)
    return twin.eval()


def sizes_of(layer: Any) -> tuple[int, int, int]:
    """Return d_model, n_heads and d_ff of an encoder or decoder layer."""
    attention = layer.self_attention
    return attention.w_q.in_features, attention.n_heads, layer.feed_forward.w_1.out_features


def torch_encoder_layer(layer: nn.Module, norm_first: bool = False) -> nn.TransformerEncoderLayer:
    """Return PyTorch's encoder layer with the weights of ours."""
    options = dict(dropout=0.0, batch_first=True, norm_first=norm_first)
    twin = nn.TransformerEncoderLayer(*sizes_of(layer), **options)
    copy_attention(twin.self_attn, layer.self_attention)
    copy_linear(twin.linear1, layer.feed_forward.w_1)
    copy_linear(twin.linear2, layer.feed_forward.w_2)
    for norm, residual in zip((twin.norm1, twin.norm2), layer.residuals, strict=True):
        copy_norm(norm, residual.norm)
    return twin.eval()


def torch_decoder_layer(layer: nn.Module, norm_first: bool = False) -> nn.TransformerDecoderLayer:
    """Return PyTorch's decoder layer with the weights of ours."""
    options = dict(dropout=0.0, batch_first=True, norm_first=norm_first)
    twin = nn.TransformerDecoderLayer(*sizes_of(layer), **options)
    copy_attention(twin.self_attn, layer.self_attention)
    copy_attention(twin.multihead_attn, layer.cross_attention)
    copy_linear(twin.linear1, layer.feed_forward.w_1)
    copy_linear(twin.linear2, layer.feed_forward.w_2)
    for norm, residual in zip((twin.norm1, twin.norm2, twin.norm3), layer.residuals, strict=True):
        copy_norm(norm, residual.norm)
    return twin.eval()


def torch_final_norm(stack: nn.Module, norm_first: bool) -> nn.LayerNorm | None:
    """Return the norm at the end of a stack: pre-norm has one, post-norm has none."""
    if not norm_first:
        return None
    norm = nn.LayerNorm(len(stack.norm.gain))
    copy_norm(norm, stack.norm)
    return norm


def torch_encoder(encoder: nn.Module, norm_first: bool = False) -> nn.TransformerEncoder:
    """Return PyTorch's encoder with the weights of ours."""
    layers = [torch_encoder_layer(layer, norm_first) for layer in encoder.layers]
    norm = torch_final_norm(encoder, norm_first)
    twin = nn.TransformerEncoder(layers[0], len(layers), norm, enable_nested_tensor=False)
    twin.layers = nn.ModuleList(layers)
    return twin.eval()


def torch_decoder(decoder: nn.Module, norm_first: bool = False) -> nn.TransformerDecoder:
    """Return PyTorch's decoder with the weights of ours."""
    layers = [torch_decoder_layer(layer, norm_first) for layer in decoder.layers]
    norm = torch_final_norm(decoder, norm_first)
    twin = nn.TransformerDecoder(layers[0], len(layers), norm)
    twin.layers = nn.ModuleList(layers)
    return twin.eval()


def torch_transformer(model: Transformer) -> nn.Transformer:
    """Return torch.nn.Transformer with the weights of ours; it takes vectors (see torch_logits)."""
    config = model.config
    norm_first = config.norm == "pre"
    # Given stacks are initialised again by the constructor, so the copies are put in afterwards.
    stacks = dict(custom_encoder=nn.Identity(), custom_decoder=nn.Identity())
    twin = nn.Transformer(config.d_model, config.n_heads, **stacks, batch_first=True)
    twin.encoder = torch_encoder(model.encoder, norm_first)
    twin.decoder = torch_decoder(model.decoder, norm_first)
    return twin.eval()


def torch_logits(model: Transformer, src: Tensor, tgt: Tensor, hide_source: bool = True) -> Tensor:
    """Return the logits that torch.nn.Transformer gives with our embeddings and weights.

    Without `hide_source`, cross-attention sees the padding of the source.
    """
    pad_id = model.config.pad_id
    hidden = {"src_key_padding_mask": src == pad_id, "tgt_key_padding_mask": tgt == pad_id}
    if hide_source:
        hidden["memory_key_padding_mask"] = src == pad_id
    t = tgt.shape[1]
    future = ~torch.ones(t, t, dtype=torch.bool, device=tgt.device).tril()
    vectors = embedded(model, src), embedded(model, tgt)
    states = torch_transformer(model)(*vectors, tgt_mask=future, **hidden)
    return F.linear(states, model.embedding.weight, model.bias)


def embedded(model: Transformer, ids: Tensor) -> Tensor:
    """Return the sum of embedding and position, from the model's own table and the formula."""
    d_model = model.config.d_model
    positions = wave_table(ids.shape[1], d_model).to(model.bias)
    return model.embedding.weight[ids] * math.sqrt(d_model) + positions
