"""What the check of a decoder with a cache tries: positions, hypotheses and sentences that move."""

from collections.abc import Callable

import torch
from einops import rearrange, repeat
from torch import Tensor

from transformer.checks.fixtures import keys, only_past
from transformer.checks.harness import Suspects, agree, call, expect
from transformer.checks.twins import embedded
from transformer.model import Transformer


def position_suspects(model: Transformer, src: Tensor, tgt: Tensor) -> Suspects:
    """Return the usual mistakes of decoding token by token; tgt ends with this step's token."""
    src_mask = keys(src != model.config.pad_id)
    t = tgt.shape[1]
    past = only_past(t, tgt.device)
    alone = torch.eye(t, dtype=torch.bool, device=tgt.device).expand_as(past)
    x = embedded(model, tgt)

    def run(x: Tensor, tgt_mask: Tensor, src_mask: Tensor | None = src_mask) -> Tensor:
        return model.logits(model.decoder(x, model.encode(src), tgt_mask, src_mask))[:, -1]

    def at_the_first_position() -> Tensor:
        rows = model.embedding(tgt)
        return run(rows + x[:, :1] - rows[:, :1], past)

    zero = "Every token got position 0: give the number of the step to the positional encoding."
    forgotten = "The tokens before are forgotten: keep their keys and values."
    unmasked = "Cross-attention sees the source's padding: hand the mask on."
    return {
        zero: at_the_first_position,
        forgotten: lambda: run(x, alone),
        unmasked: lambda: run(x, past, None),
    }


def hypotheses_are_reordered(decoder_class: Callable, model: Transformer, src: Tensor) -> None:
    """Expect reorder to move the cache too, with three hypotheses for each sentence."""
    second = torch.tensor([3, 4, 5, 6, 7, 8], device=src.device)
    third = torch.tensor([9, 4, 6, 3, 10, 5], device=src.device)
    rows = torch.tensor([[2, 0, 0], [4, 3, 4]], device=src.device)
    decoder = with_hypotheses(decoder_class, model, src, second)
    call(decoder.reorder, rows)

    def logits_after(second: Tensor) -> Tensor:
        written = torch.stack([torch.ones_like(second), second, third], dim=1)
        return model(repeat(src, "b k -> (b beam) k", beam=3), written)[:, -1]

    cause = "reorder left the cache in the old order: keys and values move with their hypotheses."
    suspects = {cause: lambda: logits_after(second)}
    where = f"2 sentences with 3 hypotheses each, after reorder({rows.tolist()})"
    want = logits_after(second[rows.flatten()])
    agree(call(decoder.step, third), want, where, suspects, 2e-5)


def with_hypotheses(
    decoder_class: Callable, model: Transformer, src: Tensor, second: Tensor
) -> object:
    """Return a decoder that has read <s> for each sentence, and `second` for its hypotheses."""
    decoder = call(decoder_class, model, src)
    call(decoder.step, src.new_full((len(src),), model.config.bos_id))
    first = torch.arange(len(src), device=src.device)
    call(decoder.reorder, repeat(first, "b -> b beam", beam=len(second) // len(src)))
    call(decoder.step, second)
    return decoder


def sentences_leave(decoder_class: Callable, model: Transformer, src: Tensor, stay: int) -> None:
    """Expect reorder to drop the other sentence with all that is its: keys, values and mask."""
    tgt = torch.tensor([[1, 3, 5], [1, 4, 6], [1, 7, 9], [1, 8, 10]], device=src.device)
    rows = torch.tensor([[2 * stay, 2 * stay + 1]], device=src.device)
    kept = tgt[rows.flatten()]
    decoder = with_hypotheses(decoder_class, model, src, tgt[:, 1])
    call(decoder.reorder, rows)

    def masked_by_another() -> Tensor:
        # Only the third step gets the mask of the other sentence.
        real = src[[stay, stay, 1 - stay]] != model.config.pad_id
        memory = repeat(model.encode(src[[stay]]), "1 k d_model -> beam k d_model", beam=2)
        src_mask = rearrange(real, "q k -> 1 1 q k")
        past = only_past(3, src.device)
        states = model.decoder(embedded(model, kept), memory, past, src_mask)
        return model.logits(states)[:, -1]

    cause = "The mask of a sentence that left is still there: reorder must drop it too."
    want = model(repeat(src[[stay]], "1 k -> beam k", beam=2), kept)[:, -1]
    where = f"2 sentences with 2 hypotheses each, after reorder({rows.tolist()})"
    agree(call(decoder.step, kept[:, 2]), want, where, {cause: masked_by_another}, 2e-5)


def computes_nothing_twice(
    decoder_class: Callable, model: Transformer, src: Tensor, tgt: Tensor
) -> None:
    """Expect every key to be computed once: a source's before, a target's at its own step."""
    counts = {"self": 0, "cross": 0}
    layer = model.decoder.layers[-1]

    def count(name: str) -> Callable:
        return lambda module, inputs, out: counts.update({name: counts[name] + out.shape[1]})

    hooks = [
        layer.self_attention.w_k.register_forward_hook(count("self")),
        layer.cross_attention.w_k.register_forward_hook(count("cross")),
    ]
    try:
        decoder = call(decoder_class, model, src)
        for t in range(tgt.shape[1]):
            decoder.step(tgt[:, t])
    finally:
        for hook in hooks:
            hook.remove()
    cause = "What is cached must be keys and values, not the inputs they are made from"
    found = f"in 6 steps {counts['self']} keys of target positions were computed"
    expect(counts["self"] <= 6, f"{found}. {cause}")
    cause = "The source does not change: compute its keys and values before the first step"
    found = f"for 6 source tokens {counts['cross']} keys were computed in 6 steps"
    expect(counts["cross"] <= 6, f"{found}. {cause}")
