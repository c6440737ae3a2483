"""Test the masks, the decoder layer and the decoder (chapter 8)."""

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.checks.harness import shaken
from transformer.checks.twins import torch_decoder
from transformer.decoder import Decoder, DecoderLayer, causal_mask, padding_mask
from transformer.model import NORMS

few = settings(max_examples=8, deadline=None, derandomize=True)


def make(norm: str = "post") -> Decoder:
    """Return a small decoder whose parameters all carry noise."""
    return shaken(Decoder(2, 12, 3, 20, residual=NORMS[norm]), "cpu")


@pytest.mark.parametrize("norm", NORMS)
def test_decoder_equals_pytorch_with_the_same_weights(norm: str) -> None:
    decoder = make(norm)
    x = torch.randn(2, 5, 12)
    memory = torch.randn(2, 7, 12)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    real = torch.arange(7) < torch.tensor([[7], [4]])
    twin = torch_decoder(decoder, norm == "pre")
    want = twin(x, memory, tgt_mask=future, memory_key_padding_mask=~real)
    got = decoder(x, memory, ~future, rearrange(real, "b k -> b 1 1 k"))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@few
@given(t=st.integers(2, 6), data=st.data(), train=st.booleans())
def test_causal_mask_hides_future_tokens_and_nothing_else(t: int, data, train: bool) -> None:
    decoder = make().train(train)
    x = torch.randn(2, t, 12)
    memory = torch.randn(2, 7, 12)
    at = data.draw(st.integers(0, t - 1))
    other = x.clone()
    other[:, at] += 1
    mask = causal_mask(t)
    moved = (decoder(x, memory, mask) - decoder(other, memory, mask)).abs().amax((0, 2))
    assert (moved[:at] < 1e-5).all()
    assert (moved[at:] > 1e-5).all(), "positions from the changed one on must change"


@few
@given(extra=st.integers(1, 5))
def test_source_padding_makes_no_difference(extra: int) -> None:
    decoder = make()
    x = torch.randn(1, 5, 12)
    memory = torch.randn(1, 4 + extra, 12)
    real = torch.arange(4 + extra) < 4
    padded = decoder(x, memory, None, rearrange(real, "k -> 1 1 1 k"))
    torch.testing.assert_close(padded, decoder(x, memory[:, :4]), atol=1e-5, rtol=1e-4)


def test_causal_mask_is_true_where_key_is_not_after_query() -> None:
    want = [[True, False, False], [True, True, False], [True, True, True]]
    assert causal_mask(3).tolist() == want


def test_causal_mask_is_made_on_the_requested_device() -> None:
    assert causal_mask(3, torch.device("meta")).device.type == "meta"


def test_padding_mask_is_true_for_keys_that_are_tokens() -> None:
    mask = padding_mask(torch.tensor([[5, 7, 0], [5, 0, 0]]), 0)
    assert mask.shape == (2, 1, 1, 3)
    assert mask.squeeze().tolist() == [[True, True, False], [True, False, False]]


def test_both_masks_together_leave_every_query_a_key() -> None:
    ids = torch.tensor([[1, 7, 9, 2], [1, 2, 0, 0]])
    assert (causal_mask(4) & padding_mask(ids, 0)).any(-1).all()


def test_decoder_depends_on_the_memory() -> None:
    decoder = make()
    x = torch.randn(2, 5, 12)
    first = decoder(x, torch.randn(2, 7, 12))
    second = decoder(x, torch.randn(2, 7, 12))
    assert not torch.allclose(first, second)


def test_every_layer_has_its_own_parameters() -> None:
    first, second = make().layers
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_dropout_is_off_by_default_and_in_eval() -> None:
    x = torch.randn(2, 5, 12)
    memory = torch.randn(2, 7, 12)
    for module in (DecoderLayer(12, 3, 20), Decoder(2, 12, 3, 20)):
        torch.testing.assert_close(module.train()(x, memory), module.eval()(x, memory))
    for module in (DecoderLayer(12, 3, 20, dropout=0.5), Decoder(2, 12, 3, 20, dropout=0.5)):
        assert not torch.allclose(module.train()(x, memory), module.eval()(x, memory))
        torch.testing.assert_close(module.eval()(x, memory), module.eval()(x, memory))
