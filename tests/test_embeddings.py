"""What chapter 1 says of the table."""

import pytest
import torch

from transformer.embeddings import TokenEmbedding


def test_one_id_has_one_vector_wherever_it_stands() -> None:
    out = TokenEmbedding(11, 6)(torch.tensor([[3, 5, 3], [7, 3, 0]]))
    assert out.shape == (2, 3, 6)
    assert out[0, 0].equal(out[0, 2]) and out[0, 0].equal(out[1, 1])
    assert not out[0, 0].equal(out[0, 1])


@pytest.mark.parametrize("d_model", [1, 7, 64])
def test_vectors_have_the_root_of_d_model_times_the_rows(d_model: int) -> None:
    embedding = TokenEmbedding(11, d_model)
    torch.testing.assert_close(embedding(torch.tensor([[4]]))[0, 0], embedding.weight[4] * d_model**0.5)


def test_only_rows_that_were_read_get_a_gradient() -> None:
    embedding = TokenEmbedding(5, 4)
    embedding(torch.tensor([[1, 3]])).sum().backward()
    assert embedding.weight.grad.any(-1).tolist() == [False, True, False, True, False]
