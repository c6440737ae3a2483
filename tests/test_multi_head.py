"""Chapter 4: multi-head attention."""

import pytest
import torch

from transformer.attention import attention, attention_weights
from transformer.checks.harness import shaken
from transformer.checks.twins import torch_attention
from transformer.multi_head import MultiHeadAttention, head_weights


@pytest.mark.parametrize(("d_model", "n_heads"), [(12, 1), (12, 3), (7, 7), (48, 8)])
def test_it_equals_pytorchs_layer_with_the_same_weights(d_model: int, n_heads: int) -> None:
    module = shaken(MultiHeadAttention(d_model, n_heads), "cpu")
    x = torch.randn(2, 5, d_model)
    memory = torch.randn(2, 7, d_model)
    real = torch.arange(7) < torch.tensor([[7], [4]])
    mask = real[:, None, None]
    twin = torch_attention(module)
    want, weights = twin(x, memory, memory, ~real, average_attn_weights=False)
    torch.testing.assert_close(module(x, memory, mask), want, atol=2e-5, rtol=1e-4)
    ours = head_weights(module, x, memory, mask)
    torch.testing.assert_close(ours, weights, atol=1e-5, rtol=1e-4)


def test_more_heads_cost_no_more_parameters() -> None:
    counts = {sum(p.numel() for p in MultiHeadAttention(16, n).parameters()) for n in (1, 2, 8)}
    assert counts == {4 * (16 * 16 + 16)}


def test_keys_and_values_can_be_kept_and_used_again() -> None:
    module = MultiHeadAttention(12, 3)
    x = torch.randn(2, 5, 12)
    memory = torch.randn(2, 7, 12)
    k, v = module.project_kv(memory)
    assert k.shape == v.shape == (2, 3, 7, 4)
    torch.testing.assert_close(module.attend(x, k, v), module(x, memory))


def test_the_attention_function_is_an_argument() -> None:
    calls = []

    def recorded(q, k, v, mask):
        calls.append((q.shape, k.shape, v.shape, mask))
        return attention_weights(q, k, mask) @ v

    plain = MultiHeadAttention(12, 3)
    module = MultiHeadAttention(12, 3, attention_fn=recorded)
    module.load_state_dict(plain.state_dict())
    x = torch.randn(2, 5, 12)
    memory = torch.randn(2, 7, 12)
    mask = torch.rand(2, 1, 5, 7) < 0.7
    torch.testing.assert_close(module(x, memory, mask), plain(x, memory, mask))
    assert calls == [((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4), mask)]
    assert module.attention_fn is recorded
    assert plain.attention_fn is attention


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="d_model=12 must be divisible by n_heads=5"):
        MultiHeadAttention(12, 5)


@pytest.mark.parametrize("n_heads", [0, -3])
def test_fewer_than_one_head_is_refused(n_heads: int) -> None:
    with pytest.raises(ValueError, match=f"n_heads={n_heads} must be at least 1"):
        MultiHeadAttention(12, n_heads)
