"""What chapter 7 says of the encoder."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.checks import shaken, torch_encoder
from transformer.decoder import padding_mask
from transformer.encoder import Encoder
from transformer.model import NORMS

few = settings(max_examples=8, deadline=None, derandomize=True)


def make(norm: str = "post", n_layers: int = 2) -> Encoder:
    return shaken(Encoder(n_layers, 12, 3, 20, residual=NORMS[norm]), "cpu")


@pytest.mark.parametrize("norm", NORMS)
def test_it_equals_pytorchs_encoder_with_the_same_weights(norm: str) -> None:
    encoder, x, ids = make(norm, 3), torch.randn(2, 5, 12), torch.tensor([[4, 4, 4, 4, 4], [4, 4, 4, 0, 0]])
    want = torch_encoder(encoder, norm == "pre")(x, src_key_padding_mask=ids == 0)
    torch.testing.assert_close(encoder(x, padding_mask(ids, 0)), want, atol=1e-5, rtol=1e-4)


@few
@given(length=st.integers(1, 6), extra=st.integers(1, 5), norm=st.sampled_from(list(NORMS)))
def test_padding_makes_no_difference(length: int, extra: int, norm: str) -> None:
    encoder, x = make(norm), torch.randn(1, length + extra, 12)
    ids = (torch.arange(length + extra) < length).long().unsqueeze(0)
    alone = encoder(x[:, :length])
    torch.testing.assert_close(encoder(x, padding_mask(ids, 0))[:, :length], alone, atol=1e-5, rtol=1e-4)


@few
@given(t=st.integers(1, 6), seed=st.integers(0, 9))
def test_without_positions_the_order_of_words_only_orders_the_result(t: int, seed: int) -> None:
    encoder, x = make(), torch.randn(2, t, 12)
    order = torch.randperm(t, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(encoder(x[:, order]), encoder(x)[:, order], atol=1e-5, rtol=1e-4)


def test_sentences_of_a_batch_do_not_see_one_another() -> None:
    encoder, x = make(), torch.randn(3, 5, 12)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]), atol=1e-5, rtol=1e-4)


def test_every_layer_has_parameters_of_its_own() -> None:
    first, second = make().layers
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
