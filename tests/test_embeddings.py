"""Chapter 1: token embeddings."""

import pytest
import torch

from transformer.embeddings import TokenEmbedding


def test_an_id_has_the_same_vector_at_every_position() -> None:
    out = TokenEmbedding(11, 6)(torch.tensor([[3, 5, 3], [7, 3, 0]]))
    assert out.shape == (2, 3, 6)
    assert out[0, 0].equal(out[0, 2])
    assert out[0, 0].equal(out[1, 1])
    assert not out[0, 0].equal(out[0, 1])


@pytest.mark.parametrize("d_model", [1, 7, 64])
def test_vectors_are_the_rows_times_the_root_of_d_model(d_model: int) -> None:
    embedding = TokenEmbedding(11, d_model)
    vector = embedding(torch.tensor([[4]]))[0, 0]
    torch.testing.assert_close(vector, embedding.weight[4] * d_model**0.5)


def test_vectors_start_with_unit_variance() -> None:
    embedding = TokenEmbedding(1000, 64)
    assert 0.98 < embedding(torch.arange(1000)[None]).std() < 1.02


def test_only_rows_that_were_read_get_a_gradient() -> None:
    embedding = TokenEmbedding(5, 4)
    embedding(torch.tensor([[1, 3]])).sum().backward()
    assert embedding.weight.grad.any(-1).tolist() == [False, True, False, True, False]
