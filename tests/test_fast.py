"""What is faster computes the same."""

import pytest
import torch
import torch.nn.functional as F

from transformer.checks import SRC, TGT, small_model
from transformer.fast import CheapDropout, chunked_loss, has_fast_bfloat16, speed_up
from transformer.training import label_smoothed_loss


def inputs(tokens: int = 11, v: int = 9) -> tuple[torch.Tensor, ...]:
    """Return states, table, bias and labels, some of them padding (3)."""
    x, weight, bias = torch.randn(tokens, 6), torch.randn(v, 6), torch.randn(v)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), torch.arange(tokens) % v


def gradients(loss: torch.Tensor, parameters: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(3 * loss, parameters)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("chunk", [1, 4, 512])
def test_the_chunked_loss_is_the_loss_and_has_its_gradients(smoothing: float, chunk: int) -> None:
    x, weight, bias, labels = inputs()
    got = chunked_loss(x, weight, bias, labels, 3, smoothing, chunk)
    want = label_smoothed_loss(F.linear(x, weight, bias), labels, 3, smoothing)
    torch.testing.assert_close(got, want)
    for a, b in zip(gradients(got, (x, weight, bias)), gradients(want, (x, weight, bias)), strict=True):
        torch.testing.assert_close(a, b)


def test_without_smoothing_it_is_pytorchs_cross_entropy() -> None:
    x, weight, bias, labels = inputs()
    want = F.cross_entropy(F.linear(x, weight, bias), labels, ignore_index=3)
    torch.testing.assert_close(chunked_loss(x, weight, bias, labels, 3, 0.0), want)


def test_with_smoothing_it_is_pytorchs_cross_entropy_of_the_smoothed_labels() -> None:
    x, weight, bias, labels = inputs()
    targets = torch.full((11, 9), 0.1 / 8).index_fill(1, torch.tensor(3), 0.0) + 0.9 * F.one_hot(labels, 9)
    real = labels != 3
    want = F.cross_entropy(F.linear(x, weight, bias)[real], targets[real])
    torch.testing.assert_close(chunked_loss(x, weight, bias, labels, 3, 0.1), want)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_cheap_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    dropout, x = CheapDropout(p), torch.ones(300, 1001)
    out = dropout(x)
    assert abs((out == 0).float().mean().item() - p) < 0.005
    assert abs(out.mean().item() - 1) < 0.01
    assert len(out.unique()) == 2, "what is kept is scaled, alike"
    assert not dropout(x).equal(out), "and it is drawn anew each time"


def test_cheap_dropout_rests_in_eval_and_at_zero() -> None:
    x = torch.randn(3, 5)
    assert CheapDropout(0.5).eval()(x).equal(x)
    assert CheapDropout(0.0)(x).equal(x)
    assert CheapDropout(0.5)(x.half()).dtype == torch.float16


def test_cheap_dropout_hands_the_gradient_to_what_was_kept() -> None:
    x = torch.ones(40, 25, requires_grad=True)
    out = CheapDropout(0.25)(x)
    out.sum().backward()
    assert x.grad.equal(out.detach())


def test_speed_up_changes_nothing_in_eval_mode() -> None:
    model, src, tgt = small_model(dropout=0.3), torch.tensor(SRC), torch.tensor(TGT)
    before = model(src, tgt)
    names = list(model.state_dict())
    torch.testing.assert_close(speed_up(model).eval()(src, tgt), before)
    assert list(model.state_dict()) == names, "and a checkpoint fits as before"
    assert not any(isinstance(module, torch.nn.Dropout) for module in model.modules())


def test_whether_bfloat16_pays_is_a_yes_or_a_no() -> None:
    assert has_fast_bfloat16("cpu") in (True, False)
