"""Test layer norm, post-norm and pre-norm (chapter 5)."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.residual_norm import LayerNorm, PostNorm, PreNorm, layer_norm


@settings(max_examples=15, deadline=None, derandomize=True)
@given(d=st.integers(2, 20), scale=st.sampled_from([1e-3, 1.0, 1e3]), shift=st.floats(-5, 5))
def test_layer_norm_equals_pytorch(d: int, scale: float, shift: float) -> None:
    x = scale * torch.randn(3, d, dtype=torch.float64) + shift
    gain, bias = torch.randn(2, d, dtype=torch.float64)
    torch.testing.assert_close(layer_norm(x, gain, bias), F.layer_norm(x, (d,), gain, bias))


def test_layer_norm_module_equals_the_function() -> None:
    x = torch.randn(2, 5, 6)
    norm = LayerNorm(6)
    torch.nn.init.normal_(norm.gain)
    torch.nn.init.normal_(norm.bias)
    torch.testing.assert_close(norm(x), layer_norm(x, norm.gain, norm.bias))


def test_post_norm_of_a_zero_sublayer_is_the_norm() -> None:
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(PostNorm(6)(x, torch.zeros_like), F.layer_norm(x, (6,)))


def test_pre_norm_of_a_zero_sublayer_is_the_identity() -> None:
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(PreNorm(6)(x, torch.zeros_like), x)


@pytest.mark.parametrize("cls", [PostNorm, PreNorm])
def test_dropout_is_on_in_training_only(cls: type[PostNorm]) -> None:
    x = torch.randn(2, 5, 6)
    residual = cls(6, dropout=0.5)
    without = cls(6)(x, torch.ones_like)
    torch.testing.assert_close(residual.eval()(x, torch.ones_like), without)
    assert not torch.allclose(residual.train()(x, torch.ones_like), without)


def test_the_residual_passes_the_gradient_through_fifty_pre_norm_layers() -> None:
    x = torch.randn(2, 5, 6, requires_grad=True)
    y = x
    for _ in range(50):
        y = PreNorm(6)(y, lambda z: 0 * z)
    y.sum().backward()
    assert x.grad.equal(torch.ones_like(x))


def test_only_pre_norm_stacks_end_with_a_norm() -> None:
    x = torch.randn(2, 5, 6)
    assert isinstance(PreNorm.final(6), LayerNorm)
    assert PostNorm.final(6)(x).equal(x)
