"""Chapter 2: sinusoidal positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.positional_encoding import PositionalEncoding, sinusoidal_positions

few = settings(max_examples=15, deadline=None, derandomize=True)


@few
@given(n=st.integers(1, 40), d_model=st.integers(1, 33))
def test_any_length_and_width_is_allowed(n: int, d_model: int) -> None:
    table = sinusoidal_positions(n, d_model)
    assert table.shape == (n, d_model)
    assert table.dtype == torch.float32
    assert table.abs().max() <= 1
    assert table[0].tolist() == [float(i % 2) for i in range(d_model)]


def test_every_sine_and_its_cosine_lie_on_the_unit_circle() -> None:
    table = sinusoidal_positions(50, 16)
    torch.testing.assert_close(table[:, 0::2] ** 2 + table[:, 1::2] ** 2, torch.ones(50, 8))


def test_the_dot_product_of_two_positions_depends_on_their_distance_only() -> None:
    table = sinusoidal_positions(30, 32).double()
    products = table @ table.T
    for distance in (0, 1, 5):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)


def test_no_two_positions_are_alike() -> None:
    assert len(sinusoidal_positions(1000, 16).unique(dim=0)) == 1000


def test_a_token_on_its_own_gets_the_position_it_has_in_the_sentence() -> None:
    encoding = PositionalEncoding(6, 9)
    x = torch.randn(2, 5, 6)
    whole = encoding(x)
    for t in range(5):
        assert encoding(x[:, t : t + 1], start=t).equal(whole[:, t : t + 1])


def test_a_sentence_longer_than_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="10 tokens is longer than max_len=9"):
        PositionalEncoding(6, 9)(torch.zeros(1, 10, 6))


def test_the_table_is_neither_learned_nor_saved() -> None:
    encoding = PositionalEncoding(6, 9)
    assert not list(encoding.parameters())
    assert not encoding.state_dict()
    assert encoding.double().table.dtype == torch.float64, "but it moves with the module"
