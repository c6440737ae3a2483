"""What chapter 4 says of heads."""

import pytest
import torch

from transformer.checks import shaken, torch_attention
from transformer.multi_head import MultiHeadAttention, head_weights


@pytest.mark.parametrize(("d_model", "n_heads"), [(12, 1), (12, 3), (7, 7), (48, 8)])
def test_it_equals_pytorchs_layer_with_the_same_weights(d_model: int, n_heads: int) -> None:
    module = shaken(MultiHeadAttention(d_model, n_heads), "cpu")
    x, memory = torch.randn(2, 5, d_model), torch.randn(2, 7, d_model)
    real = torch.arange(7) < torch.tensor([[7], [4]])
    want, weights = torch_attention(module)(x, memory, memory, ~real, average_attn_weights=False)
    torch.testing.assert_close(module(x, memory, real[:, None, None]), want, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(head_weights(module, x, memory, real[:, None, None]), weights, atol=1e-5, rtol=1e-4)


def test_more_heads_cost_no_more_parameters() -> None:
    counts = {sum(p.numel() for p in MultiHeadAttention(16, n).parameters()) for n in (1, 2, 8)}
    assert counts == {4 * (16 * 16 + 16)}


def test_keys_and_values_may_be_kept_and_asked_again() -> None:
    module, x, memory = MultiHeadAttention(12, 3), torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(module.attend(x, *module.keys_values(memory)), module(x, memory))


@pytest.mark.parametrize(("d_model", "n_heads"), [(12, 5), (12, 0), (12, -3)])
def test_heads_that_do_not_fit_are_refused(d_model: int, n_heads: int) -> None:
    with pytest.raises(ValueError, match=f"d_model={d_model} must be a multiple of n_heads={n_heads}"):
        MultiHeadAttention(d_model, n_heads)
