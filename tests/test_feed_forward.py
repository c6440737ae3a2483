"""Test the feed-forward block (chapter 6)."""

import torch
import torch.nn.functional as F

from transformer.feed_forward import FeedForward


def test_positions_do_not_affect_one_another() -> None:
    x = torch.randn(2, 5, 6)
    block = FeedForward(6, 14)
    for t in range(5):
        torch.testing.assert_close(block(x[:, t : t + 1]), block(x)[:, t : t + 1])


def test_feed_forward_is_two_linear_layers_with_a_relu_between() -> None:
    x = torch.randn(2, 5, 6)
    block = FeedForward(6, 14)
    torch.nn.init.normal_(block.w_1.bias)
    torch.nn.init.normal_(block.w_2.bias)
    hidden = F.relu(x @ block.w_1.weight.T + block.w_1.bias)
    torch.testing.assert_close(block(x), hidden @ block.w_2.weight.T + block.w_2.bias)


def test_biases_start_at_zero() -> None:
    block = FeedForward(6, 14)
    assert not block.w_1.bias.any()
    assert not block.w_2.bias.any()


def test_parameter_count_at_the_papers_size() -> None:
    count = sum(p.numel() for p in FeedForward(512, 2048).parameters())
    assert count == 2 * 512 * 2048 + 2048 + 512


def test_another_activation_can_be_passed_in() -> None:
    x = torch.randn(2, 5, 6)
    block = FeedForward(6, 14, activation=F.gelu)
    torch.testing.assert_close(block(x), block.w_2(F.gelu(block.w_1(x))))
