"""Checks of chapter 4: multi-head attention and the weights of its heads."""

import functools
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from transformer.checks.ch03_attention import true_weights
from transformer.checks.fixtures import keys
from transformer.checks.harness import (
    Suspects,
    agree,
    call,
    check,
    reaches_every_parameter,
    refuses,
    shaken,
    size,
    sizes,
    starts_with_xavier,
)
from transformer.checks.twins import torch_attention
from transformer.multi_head import MultiHeadAttention

SPLIT = "b t (h d_head) -> b h t d_head"
MERGE = "b h t d_head -> b t (h d_head)"


def heads_by_hand(
    module: nn.Module,
    x: Tensor,
    memory: Tensor,
    split: str = SPLIT,
    merge: str = MERGE,
    scale: float | None = None,
) -> Tensor:
    """Return multi-head attention with another split, merge or scale; "view" keeps the order."""
    h = module.n_heads

    def cut(y: Tensor) -> Tensor:
        if split == "view":
            return y.reshape(len(y), h, y.shape[1], -1)
        return rearrange(y, split, h=h)

    q = cut(module.w_q(x))
    k = cut(module.w_k(memory))
    v = cut(module.w_v(memory))
    heads = true_weights(q, k, scale=scale).to(v) @ v
    return module.w_o(heads.reshape(x.shape) if merge == "view" else rearrange(heads, merge))


def head_suspects(module: nn.Module, x: Tensor, memory: Tensor) -> Suspects:
    """Return the usual mistakes with heads."""
    by_view = "by view or reshape, which keeps the order of the numbers: right shape, wrong content"
    split = f"The heads are split {by_view}. Move the axis: rearrange '{SPLIT}'."
    merged = f"The heads are merged {by_view}. Move the axis back: rearrange '{MERGE}'."
    both = f"The heads are split and merged {by_view}. Use rearrange."
    interleaved = "The features of a head are every n_heads-th: it is (h d_head), not (d_head h)."
    scaled = (
        "The scores are divided by √d_model: a head has d_model / n_heads features, "
        "divide by their root."
    )
    run = functools.partial(heads_by_hand, module, x)
    scale = module.w_q.in_features**-0.5
    return {
        split: lambda: run(memory, split="view"),
        merged: lambda: run(memory, merge="view"),
        both: lambda: run(memory, split="view", merge="view"),
        interleaved: lambda: run(
            memory, split="b t (d_head h) -> b h t d_head", merge="b h t d_head -> b t (d_head h)"
        ),
        scaled: lambda: run(memory, scale=scale),
        "Keys and values come from x: they come from memory.": lambda: run(x),
        "The result is not passed through w_o.": lambda: without_output(module, x, memory),
    }


def without_output(module: nn.Module, x: Tensor, memory: Tensor) -> Tensor:
    """Return the merged heads before the last projection."""
    twin = torch_attention(module)
    nn.init.eye_(twin.out_proj.weight)
    nn.init.zeros_(twin.out_proj.bias)
    return twin(x, memory, memory)[0]


@check("equal to PyTorch, lengths q and k, masks, gradient, refuses heads that don't fit")
def check_multi_head(cls: type, *, device: torch.device | str = "cpu") -> None:
    """Check a class made by cls(d_model, n_heads) with w_q, w_k, w_v and w_o.

    It is called with x b q d_model, memory b k d_model and a mask, and gives b q d_model.
    """
    module = shaken(call(cls, 12, 3), device)
    x, memory = (torch.randn(2, t, 12).to(device) for t in sizes(5, 7))
    twin = torch_attention(module)
    where = f"on x {size(x)} and memory {size(memory)} with 3 heads"
    for other in (x, memory):
        want = twin(x, other, other)[0]
        agree(call(module, x, other), want, where, head_suspects(module, x, other))
    heads_use_masks(module, x, memory, where)
    reaches_every_parameter(module, call(module, x, memory))
    for n_heads in (5, 0, -3):
        refuses(cls, 12, n_heads, what=f"d_model=12 with n_heads={n_heads}")
    starts_with_xavier(call(cls, 24, 4))


def end_hidden(memory: Tensor) -> Tensor:
    """Return which positions b k of two sentences are real: all but the last 3 of the second."""
    k = memory.shape[1]
    return (torch.arange(k) < torch.tensor([k, k - 3]).unsqueeze(-1)).to(memory.device)


def heads_use_masks(module: nn.Module, x: Tensor, memory: Tensor, where: str) -> None:
    """Expect a padding mask b 1 1 k and a causal mask q k to be handed on to attention."""
    twin = torch_attention(module)
    real = end_hidden(memory)
    causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    ignored = "The mask is not handed on to attention."
    inverted = "The mask is inverted: True means may attend."
    suspects = {
        ignored: lambda: module(x, memory),
        inverted: lambda: twin(x, memory, memory, real)[0],
    }
    want = twin(x, memory, memory, ~real)[0]
    agree(call(module, x, memory, keys(real)), want, f"{where}, padding", suspects)
    want = twin(x, x, x, attn_mask=~causal)[0]
    suspects = {ignored: lambda: module(x, x)}
    agree(call(module, x, x, causal), want, f"{where}, causal mask", suspects)


@check("the weights that the model uses, mask included")
def check_head_weights(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (module, x: b q d_model, memory: b k d_model, mask).

    It gives weights b h q k.
    """
    module = shaken(MultiHeadAttention(12, 3), device)
    x, memory = (torch.randn(2, t, 12).to(device) for t in sizes(5, 7))
    real = end_hidden(memory)
    twin = torch_attention(module)
    weights = functools.partial(twin, x, memory, memory, average_attn_weights=False)
    where = f"on x {size(x)} and memory {size(memory)}"
    agree(call(fn, module, x, memory), weights()[1], where)
    forgotten = "The plot forgets the mask that the model used: hidden words get weight."
    where = "with the end of the second sentence hidden"
    suspects = {forgotten: lambda: weights()[1]}
    agree(call(fn, module, x, memory, keys(real)), weights(~real)[1], where, suspects)
