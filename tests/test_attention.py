"""What chapter 3 says of attention."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.attention import attention, attention_weights

few = settings(max_examples=15, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 8))


def draw(size: tuple[int, int, int, int], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Return q, k, v for a batch, q queries, k keys and d features."""
    b, q, k, d = size
    return torch.randn(b, q, d, dtype=dtype), torch.randn(b, k, d, dtype=dtype), torch.randn(b, k, d + 1, dtype=dtype)


@few
@given(size=sizes, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_weights_and_fused_kernel_are_the_same_function(size, dtype) -> None:
    q, k, v = draw(size, dtype)
    mask = torch.rand(size[0], size[1], size[2]) < 0.5
    weights = attention_weights(q, k, mask)
    torch.testing.assert_close(attention(q, k, v, mask), weights @ v)
    torch.testing.assert_close(weights.sum(-1), mask.any(-1).to(dtype))


@few
@given(size=sizes, seed=st.integers(0, 99))
def test_attention_is_permutation_equivariant(size, seed: int) -> None:
    q, k, v = draw(size)
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (torch.randperm(n, generator=generator) for n in size[1:3])
    torch.testing.assert_close(attention(q[:, queries], k[:, keys], v[:, keys]), attention(q, k, v)[:, queries])


@few
@given(size=sizes, extra=st.integers(1, 4))
def test_hidden_keys_make_no_difference_whatever_they_hold(size, extra: int) -> None:
    q, k, v = draw(size)
    b, more, d = size[0], extra, size[3]
    mask = torch.arange(size[2] + extra).expand(b, 1, -1) < size[2]
    padded = attention(
        q, torch.cat([k, 9 * torch.randn(b, more, d)], 1), torch.cat([v, torch.randn(b, more, d + 1)], 1), mask
    )
    torch.testing.assert_close(padded, attention(q, k, v))


def test_a_query_that_may_attend_to_nothing_gets_zeros_and_a_finite_gradient() -> None:
    q, k, v = (x.requires_grad_() for x in draw((2, 5, 7, 4)))
    nobody = torch.zeros(5, 7, dtype=torch.bool)
    for out in (attention(q, k, v, nobody), attention_weights(q, k, nobody) @ v):
        assert not out.any()
        out.sum().backward()
        assert all(x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half_and_finite(dtype: torch.dtype) -> None:
    q, k, v = draw((2, 5, 7, 4), dtype)
    mask = torch.rand(5, 7) < 0.5
    for out in (attention(q, k, v, mask), attention_weights(60 * q, k, mask)):
        assert out.dtype == dtype and out.isfinite().all()


def test_without_a_mask_it_is_pytorchs() -> None:
    q, k, v = draw((2, 5, 7, 4))
    torch.testing.assert_close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
