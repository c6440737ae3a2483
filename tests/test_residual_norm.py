"""What chapter 5 says of sums and norms."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.residual_norm import LayerNorm, PostNorm, PreNorm, layer_norm


@settings(max_examples=15, deadline=None, derandomize=True)
@given(d=st.integers(2, 20), scale=st.sampled_from([1e-3, 1.0, 1e3]), shift=st.floats(-5, 5))
def test_layer_norm_equals_pytorchs(d: int, scale: float, shift: float) -> None:
    x, gain, bias = scale * torch.randn(3, d, dtype=torch.float64) + shift, *torch.randn(2, d, dtype=torch.float64)
    torch.testing.assert_close(layer_norm(x, gain, bias), F.layer_norm(x, (d,), gain, bias))


def test_the_module_is_the_function_in_one_kernel() -> None:
    norm, x = LayerNorm(6), torch.randn(2, 5, 6)
    torch.testing.assert_close(norm(x), layer_norm(x, norm.gain, norm.bias))


@pytest.mark.parametrize(("cls", "want"), [(PostNorm, "norm"), (PreNorm, "nothing")])
def test_a_sublayer_that_says_nothing_leaves_x(cls: type, want: str) -> None:
    x = torch.randn(2, 5, 6)
    out = cls(6)(x, torch.zeros_like)
    torch.testing.assert_close(out, F.layer_norm(x, (6,)) if want == "norm" else x)


def test_a_pre_norm_stack_has_a_straight_way_for_the_gradient() -> None:
    x = torch.randn(2, 5, 6, requires_grad=True)
    y = x
    for _ in range(50):
        y = PreNorm(6)(y, lambda z: 0 * z)
    y.sum().backward()
    assert x.grad.equal(torch.ones_like(x))


def test_only_pre_norm_stacks_end_with_a_norm() -> None:
    assert isinstance(PreNorm.final(6), LayerNorm)
    x = torch.randn(2, 5, 6)
    assert PostNorm.final(6)(x).equal(x)
