"""Test the encoder layer and the encoder (chapter 7)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.checks.harness import shaken
from transformer.checks.twins import torch_encoder
from transformer.decoder import padding_mask
from transformer.encoder import Encoder, EncoderLayer
from transformer.model import NORMS

few = settings(max_examples=8, deadline=None, derandomize=True)


def make(norm: str = "post", n_layers: int = 2) -> Encoder:
    """Return a small encoder whose parameters all carry noise."""
    return shaken(Encoder(n_layers, 12, 3, 20, residual=NORMS[norm]), "cpu")


@pytest.mark.parametrize("norm", NORMS)
def test_encoder_equals_pytorch_with_the_same_weights(norm: str) -> None:
    encoder = make(norm, 3)
    x = torch.randn(2, 5, 12)
    ids = torch.tensor([[4, 4, 4, 4, 4], [4, 4, 4, 0, 0]])
    want = torch_encoder(encoder, norm == "pre")(x, src_key_padding_mask=ids == 0)
    torch.testing.assert_close(encoder(x, padding_mask(ids, 0)), want, atol=1e-5, rtol=1e-4)


@few
@given(length=st.integers(1, 6), extra=st.integers(1, 5), norm=st.sampled_from(list(NORMS)))
def test_padding_makes_no_difference(length: int, extra: int, norm: str) -> None:
    encoder = make(norm)
    x = torch.randn(1, length + extra, 12)
    ids = (torch.arange(length + extra) < length).long().unsqueeze(0)
    padded = encoder(x, padding_mask(ids, 0))[:, :length]
    torch.testing.assert_close(padded, encoder(x[:, :length]), atol=1e-5, rtol=1e-4)


@few
@given(t=st.integers(1, 6), seed=st.integers(0, 9))
def test_encoder_without_positions_is_permutation_equivariant(t: int, seed: int) -> None:
    encoder = make()
    x = torch.randn(2, t, 12)
    order = torch.randperm(t, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(encoder(x[:, order]), encoder(x)[:, order], atol=1e-5, rtol=1e-4)


def test_sentences_of_a_batch_do_not_affect_one_another() -> None:
    encoder = make()
    x = torch.randn(3, 5, 12)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]), atol=1e-5, rtol=1e-4)


def test_every_layer_has_its_own_parameters() -> None:
    first, second = make().layers
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_dropout_is_off_by_default_and_in_eval() -> None:
    x = torch.randn(2, 5, 12)
    for module in (EncoderLayer(12, 3, 20), Encoder(2, 12, 3, 20)):
        torch.testing.assert_close(module.train()(x), module.eval()(x))
    for module in (EncoderLayer(12, 3, 20, dropout=0.5), Encoder(2, 12, 3, 20, dropout=0.5)):
        assert not torch.allclose(module.train()(x), module.eval()(x))
        torch.testing.assert_close(module.eval()(x), module.eval()(x))
