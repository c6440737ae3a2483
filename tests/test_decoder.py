"""What chapter 8 says of the decoder and its masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.checks import only_past, shaken, torch_decoder
from transformer.decoder import Decoder, DecoderLayer, causal_mask, padding_mask
from transformer.model import NORMS

few = settings(max_examples=8, deadline=None, derandomize=True)


def make(norm: str = "post") -> Decoder:
    return shaken(Decoder(2, 12, 3, 20, residual=NORMS[norm]), "cpu")


@pytest.mark.parametrize("norm", NORMS)
def test_it_equals_pytorchs_decoder_with_the_same_weights(norm: str) -> None:
    decoder, x, memory, past = make(norm), torch.randn(2, 5, 12), torch.randn(2, 7, 12), only_past(5, "cpu")
    real = torch.arange(7) < torch.tensor([[7], [4]])
    twin = torch_decoder(decoder, norm == "pre")
    want = twin(x, memory, tgt_mask=~past[0, 0], memory_key_padding_mask=~real)
    torch.testing.assert_close(decoder(x, memory, past, real[:, None, None]), want, atol=1e-5, rtol=1e-4)


@few
@given(t=st.integers(2, 6), data=st.data(), train=st.booleans())
def test_each_position_sees_up_to_itself(t: int, data, train: bool) -> None:
    decoder, x, memory = make().train(train), torch.randn(2, t, 12), torch.randn(2, 7, 12)
    at, other = data.draw(st.integers(0, t - 1)), x.clone()
    other[:, at] += 1
    moved = (decoder(x, memory, only_past(t, "cpu")) - decoder(other, memory, only_past(t, "cpu"))).abs().amax((0, 2))
    assert (moved[:at] < 1e-5).all()
    assert (moved[at:] > 1e-5).all(), "and it does see itself and the past"


@few
@given(extra=st.integers(1, 5))
def test_the_sources_padding_makes_no_difference(extra: int) -> None:
    decoder, x, memory = make(), torch.randn(1, 5, 12), torch.randn(1, 4 + extra, 12)
    real = torch.arange(4 + extra) < 4
    padded = decoder(x, memory, None, real.reshape(1, 1, 1, -1))
    torch.testing.assert_close(padded, decoder(x, memory[:, :4]), atol=1e-5, rtol=1e-4)


def test_the_masks_of_a_short_sentence() -> None:
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    mask = padding_mask(torch.tensor([[5, 7, 0], [5, 0, 0]]), 0)
    assert mask.shape == (2, 1, 1, 3)
    assert mask.squeeze().tolist() == [[True, True, False], [True, False, False]]


def test_both_masks_together_leave_no_row_empty() -> None:
    ids = torch.tensor([[1, 7, 9, 2], [1, 2, 0, 0]])
    assert (causal_mask(4) & padding_mask(ids, 0)).any(-1).all()


def test_the_source_is_asked() -> None:
    decoder, x = make(), torch.randn(2, 5, 12)
    assert not torch.allclose(decoder(x, torch.randn(2, 7, 12)), decoder(x, torch.randn(2, 7, 12)))


def test_nothing_is_dropped_unless_asked_for() -> None:
    x, memory = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    for module in (DecoderLayer(12, 3, 20), Decoder(2, 12, 3, 20)):
        torch.testing.assert_close(module.train()(x, memory), module.eval()(x, memory))
    for module in (DecoderLayer(12, 3, 20, dropout=0.5), Decoder(2, 12, 3, 20, dropout=0.5)):
        assert not torch.allclose(module.train()(x, memory), module.eval()(x, memory))


def test_a_mask_is_made_where_it_is_wanted() -> None:
    assert causal_mask(3, torch.device("meta")).device.type == "meta"
