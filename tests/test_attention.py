"""Chapter 3: scaled dot-product attention."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transformer.attention import attention, attention_weights

Sizes = tuple[int, int, int, int]
few = settings(max_examples=15, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 8))


def draw(size: Sizes, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Draw q, k and v for a batch, q queries, k keys and d features; values have d + 1."""
    b, n_queries, n_keys, d = size
    q = torch.randn(b, n_queries, d, dtype=dtype)
    k = torch.randn(b, n_keys, d, dtype=dtype)
    v = torch.randn(b, n_keys, d + 1, dtype=dtype)
    return q, k, v


@few
@given(size=sizes, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_weights_and_fused_kernel_are_the_same_function(size: Sizes, dtype: torch.dtype) -> None:
    q, k, v = draw(size, dtype)
    mask = torch.rand(size[0], size[1], size[2]) < 0.5
    weights = attention_weights(q, k, mask)
    torch.testing.assert_close(attention(q, k, v, mask), weights @ v)
    torch.testing.assert_close(weights.sum(-1), mask.any(-1).to(dtype))


@few
@given(size=sizes, seed=st.integers(0, 99))
def test_attention_is_permutation_equivariant(size: Sizes, seed: int) -> None:
    q, k, v = draw(size)
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randperm(size[1], generator=generator)
    keys = torch.randperm(size[2], generator=generator)
    shuffled = attention(q[:, queries], k[:, keys], v[:, keys])
    torch.testing.assert_close(shuffled, attention(q, k, v)[:, queries])


@few
@given(size=sizes, extra=st.integers(1, 4))
def test_hidden_keys_make_no_difference_whatever_they_hold(size: Sizes, extra: int) -> None:
    q, k, v = draw(size)
    b, _, n_keys, d = size
    mask = torch.arange(n_keys + extra).expand(b, 1, -1) < n_keys
    more_k = torch.cat([k, 9 * torch.randn(b, extra, d)], dim=1)
    more_v = torch.cat([v, torch.randn(b, extra, d + 1)], dim=1)
    torch.testing.assert_close(attention(q, more_k, more_v, mask), attention(q, k, v))


def test_a_query_that_may_attend_to_nothing_gets_zeros_and_a_finite_gradient() -> None:
    q, k, v = (x.requires_grad_() for x in draw((2, 5, 7, 4)))
    nothing = torch.zeros(5, 7, dtype=torch.bool)
    for out in (attention(q, k, v, nothing), attention_weights(q, k, nothing) @ v):
        assert not out.any()
        out.sum().backward()
        assert all(x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half_and_finite(dtype: torch.dtype) -> None:
    q, k, v = draw((2, 5, 7, 4), dtype)
    mask = torch.rand(5, 7) < 0.5
    for out in (attention(q, k, v, mask), attention_weights(60 * q, k, mask)):
        assert out.dtype == dtype
        assert out.isfinite().all()


def test_without_a_mask_it_equals_pytorch() -> None:
    q, k, v = draw((2, 5, 7, 4))
    torch.testing.assert_close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
