"""Diagnosis: a wrong answer is compared with the known mistakes, by what it does."""

import types
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from test_zoo import CASES, OPTIONS
from torch import nn

from transformer import checks, zoo
from transformer.checks.claims import record, seeded
from transformer.course.diagnosis import like, smallest_failure
from transformer.decoder import DecoderLayer
from transformer.encoder import EncoderLayer
from transformer.multi_head import MultiHeadAttention
from transformer.residual_norm import LayerNorm

SLOW = {"ch09_model", "ch11_training", "ch12_inference"}


def slowly(chapter: str) -> list:
    """Return the mark of what takes seconds: checks that train or translate."""
    return [pytest.mark.slow] if chapter.rpartition(".")[2] in SLOW else []


EACH = [pytest.param(name, marks=slowly(name.split(".")[0])) for name in zoo.names()]
RIGHT = [
    pytest.param(*case, id=case[0], marks=slowly(getattr(checks, case[0]).__module__))
    for case in CASES
]
TWINS = {"ch12_inference.beam_stops_at_the_first_end", "ch12_inference.beam_without_length_penalty"}
"""Different mistakes that the check cannot tell apart: neither is named."""


def hidden(implementation: object) -> object:
    """Return an implementation under another name, so that only what it does is to be seen."""
    if isinstance(implementation, types.FunctionType):
        return lambda *args, **options: implementation(*args, **options)
    if isinstance(implementation, type):
        return type("Mine", (implementation,), {"__module__": "mine.chapter"})
    return implementation


def diagnosed(check: str, implementation: object, **options: object) -> str | None:
    found = like(getattr(checks, check), implementation, options)
    return found and found.name


@pytest.mark.parametrize("name", EACH)
def test_a_known_mistake_is_named_by_what_it_does(name: str) -> None:
    member = zoo.member(name)
    found = diagnosed(member.check, hidden(member.wrong), **member.options)
    assert found == (None if name in TWINS else name)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_with_another_seed_most_are_named_and_none_by_a_wrong_one(seed: int) -> None:
    named = 0
    for name in zoo.names():
        member = zoo.member(name)
        with seeded(seed):
            found = diagnosed(member.check, hidden(member.wrong), **member.options)
        assert found in (None, name)
        named += found == name
    assert named >= 0.8 * len(zoo.names())


@pytest.mark.parametrize(("check", "right"), RIGHT)
def test_what_is_right_has_no_mistake(check: str, right: object) -> None:
    options = next((options for key, options in OPTIONS.items() if key is right), {})
    claims = record(lambda: getattr(checks, check)(right, **options))
    assert claims and all(claim.holds for claim in claims)


# --- the same mistakes, written by others ---------------------------------------------------------


def weights(scale: bool = True, dim: int = -1, hide: Callable | None = None) -> Callable:
    """Return attention weights that give zeros to an empty row, with other steps to be wrong."""

    def function(q, k, mask=None):
        scores = torch.einsum("...qd,...kd->...qk", q, k)
        scores = scores / q.shape[-1] ** 0.5 if scale else scores
        if mask is None:
            return F.softmax(scores, dim=dim)
        if hide is not None:
            return hide(scores, mask)
        hidden_scores = torch.where(mask, scores, torch.full_like(scores, -torch.inf))
        return torch.nan_to_num(F.softmax(hidden_scores, dim=dim))

    return function


def masked_late(scores, mask):
    return F.softmax(scores, dim=-1).masked_fill(mask.logical_not(), 0)


def forgets_the_mask(scores, mask):
    return F.softmax(scores, dim=-1)


def upside_down(t, device=None):
    return torch.arange(t, device=device)[:, None] <= torch.arange(t, device=device)[None, :]


def ignores_pad_id(ids, pad_id):
    return ids.ne(0)[:, None, None, :]


def half_the_table(n_positions, d_model):
    i = torch.arange(0, d_model, 2)
    angle = torch.arange(n_positions)[:, None] * 10_000 ** (-i / d_model)
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)


def whole_tensor(x, gain, bias, eps=1e-5):
    return gain * (x - torch.mean(x)) * torch.rsqrt(torch.var(x, unbiased=False) + eps) + bias


def with_padding(logits, labels, pad_id, smoothing=0.1):
    v = logits.shape[-1]
    wanted = F.one_hot(labels, v) * (1 - smoothing) + smoothing / (v - 1)
    wanted[..., pad_id] -= smoothing / (v - 1)
    return -(wanted * torch.log_softmax(logits.float(), -1)).sum(-1).mean()


def never_stops(model, src, max_len=64):
    mode = model.training
    model.eval()
    ids = torch.full_like(src[:, :1], model.config.bos_id)
    with torch.no_grad():
        while ids.shape[1] <= max_len:
            logits = model(src, ids)[:, -1]
            logits[:, [model.config.pad_id, model.config.bos_id]] = -1e9
            ids = torch.cat([ids, logits.argmax(-1)[:, None]], dim=-1)
    model.train(mode)
    return ids[:, 1:]


class Unscaled(nn.Module):
    """An embedding whose rows come as they are."""

    def __init__(self, vocab_size, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        nn.init.normal_(self.weight, std=d_model**-0.5)

    def forward(self, ids):
        return self.weight[ids]


class Heads(nn.Module):
    """Multi-head attention from scratch, its projections made in another order."""

    def __init__(self, d_model, n_heads, attention_fn=F.scaled_dot_product_attention):
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError("no")
        self.n_heads = n_heads
        self.attention_fn = attention_fn
        for name in ("w_o", "w_v", "w_q", "w_k"):
            linear = nn.Linear(d_model, d_model)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
            setattr(self, name, linear)

    def split(self, x):
        return x.view(x.size(0), self.n_heads, x.size(1), -1)

    def forward(self, x, memory, mask=None):
        q, k, v = (
            self.split(w(y)) for w, y in ((self.w_q, x), (self.w_k, memory), (self.w_v, memory))
        )
        heads = self.attention_fn(q, k, v, mask)
        return self.w_o(rearrange(heads, "b h t d -> b t (h d)"))


class Linear(nn.Module):
    """A feed-forward block without its activation."""

    def __init__(self, d_model, d_ff):
        super().__init__()
        self.w_2 = nn.Linear(d_ff, d_model)
        self.w_1 = nn.Linear(d_model, d_ff)

    def forward(self, x):
        return self.w_2(self.w_1(x))


class NoSum(nn.Module):
    """Post-norm without the residual."""

    final = nn.Identity

    def __init__(self, d_model, dropout=0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = LayerNorm(d_model)

    def forward(self, x, sublayer):
        return self.norm(self.dropout(sublayer(x)))


class Unmasked(EncoderLayer):
    def forward(self, x, mask=None):
        first, second = self.residuals
        return second(first(x, lambda y: self.self_attention(y, y)), self.feed_forward)


class Peeking(DecoderLayer):
    def forward(self, x, memory, tgt_mask=None, src_mask=None):
        first, second, third = self.residuals
        y = first(x, lambda y: self.self_attention(y, y))
        return third(
            second(y, lambda y: self.cross_attention(y, memory, src_mask)), self.feed_forward
        )


LEARNERS = {
    "ch01_embeddings.embedding_not_scaled": Unscaled,
    "ch02_positional_encoding.positions_in_halves": half_the_table,
    "ch03_attention.weights_not_scaled": weights(scale=False),
    "ch03_attention.weights_softmax_over_queries": weights(dim=-2),
    "ch03_attention.weights_masked_after_softmax": weights(hide=masked_late),
    "ch03_attention.weights_mask_ignored": weights(hide=forgets_the_mask),
    "ch04_multi_head.heads_split_by_view": Heads,
    "ch05_residual_norm.layer_norm_over_everything": whole_tensor,
    "ch05_residual_norm.post_norm_without_sum": NoSum,
    "ch06_feed_forward.without_activation": Linear,
    "ch07_encoder.layer_drops_mask": Unmasked,
    "ch08_decoder.causal_mask_upside_down": upside_down,
    "ch08_decoder.padding_mask_of_zero": ignores_pad_id,
    "ch08_decoder.layer_sees_the_future": Peeking,
    "ch11_training.loss_counts_padding": with_padding,
    "ch12_inference.greedy_never_stops": never_stops,
}


@pytest.mark.parametrize("name", LEARNERS)
def test_the_same_mistake_in_other_code_is_named_too(name: str) -> None:
    member = zoo.member(name)
    assert diagnosed(member.check, hidden(LEARNERS[name]), **member.options) == name


def test_a_mistake_that_nobody_knows_is_not_named_but_shown_on_a_small_input() -> None:
    def twice(q, k, mask=None):
        return 2 * weights()(q, k, mask)

    check = checks.check_attention_weights
    assert diagnosed("check_attention_weights", twice) is None
    said = smallest_failure(check, twice, {})
    assert said.startswith(
        "The smallest input that shows it: 3×2 float32, 4×2 float32. It gives [["
    )
    assert "wanted [[" in said


def test_a_mistake_without_numbers_is_not_shown() -> None:
    assert smallest_failure(checks.check_attention_weights, lambda *given: 3, {}) == ""
    assert diagnosed("check_attention_weights", lambda *given: 3) is None


def test_heads_that_are_right_are_right_in_any_order() -> None:
    class Right(Heads):
        def split(self, x):
            return rearrange(x, "b t (h d) -> b h t d", h=self.n_heads)

    claims = record(lambda: checks.check_multi_head(Right))
    assert all(claim.holds for claim in claims) and len(claims) > 10
    assert issubclass(MultiHeadAttention, nn.Module)
