"""What chapter 6 says of the block that thinks."""

import torch
import torch.nn.functional as F

from transformer.feed_forward import FeedForward


def test_every_position_is_alone() -> None:
    block, x = FeedForward(6, 14), torch.randn(2, 5, 6)
    for t in range(5):
        torch.testing.assert_close(block(x[:, t : t + 1]), block(x)[:, t : t + 1])


def test_it_is_two_matrices_with_a_relu_between() -> None:
    block, x = FeedForward(6, 14), torch.randn(2, 5, 6)
    torch.testing.assert_close(block(x), F.relu(x @ block.w_1.weight.T) @ block.w_2.weight.T)


def test_two_thirds_of_a_layers_parameters_are_here() -> None:
    count = sum(p.numel() for p in FeedForward(512, 2048).parameters())
    assert count == 2 * 512 * 2048 + 2048 + 512


def test_another_activation_may_be_chosen() -> None:
    block, x = FeedForward(6, 14, activation=F.gelu), torch.randn(2, 5, 6)
    torch.testing.assert_close(block(x), block.w_2(F.gelu(block.w_1(x))))
