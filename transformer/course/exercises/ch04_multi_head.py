"""The exercises of chapter 4: multi-head attention."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from transformer.attention import attention
from transformer.course.exercise import (
    Bug,
    ByHand,
    Exercise,
    FindBug,
    Predict,
    WriteBlock,
    WriteTest,
)
from transformer.multi_head import MultiHeadAttention

# --- 4.2 ------------------------------------------------------------------------------------------


def solution_4_2() -> list[int]:
    """Number all features of a sentence, split them in both ways, and look for one of them."""
    in_memory = torch.arange(8 * 24)
    x = rearrange(in_memory, "(t d_model) -> t d_model", t=8)
    by_name = rearrange(x, "t (h d_head) -> h t d_head", h=4)
    # What x.view(4, 8, 6) gives:
    by_view = rearrange(in_memory, "(h t d_head) -> h t d_head", h=4, t=8)
    return [n for split in (by_name, by_view) for n in (split == x[3, 13]).nonzero()[0].tolist()]


# --- 4.3 ------------------------------------------------------------------------------------------


def solution_4_3() -> list[bool]:
    """Change the weights of a layer in five ways, each time from the same start."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 24, generator=draw)
    weights = torch.randn(4, 24, 24, generator=draw) / 5
    order = rearrange(
        rearrange(torch.arange(24), "(h d_head) -> h d_head", h=4)[[2, 0, 3, 1]],
        "h d_head -> (h d_head)",
    )

    def result(change: Callable[..., object] = id, n_heads: int = 4) -> Tensor:
        layer = MultiHeadAttention(24, n_heads).requires_grad_(False)
        for linear, weight in zip((layer.w_q, layer.w_k, layer.w_v, layer.w_o), weights):
            linear.weight.copy_(weight)
        change(layer)
        return layer(x, x)

    def reorder_inputs(layer: MultiHeadAttention) -> None:
        for linear in (layer.w_q, layer.w_k, layer.w_v):
            linear.weight.copy_(linear.weight[order])

    def reorder_all(layer: MultiHeadAttention) -> None:
        reorder_inputs(layer)
        layer.w_o.weight.copy_(layer.w_o.weight[:, order])

    def add_key_bias(layer: MultiHeadAttention) -> None:
        layer.w_k.bias.fill_(1.0)

    def double_and_halve(layer: MultiHeadAttention) -> None:
        layer.w_q.weight.mul_(2)
        layer.w_k.weight.div_(2)

    changes = (reorder_all, reorder_inputs, add_key_bias, double_and_halve)
    after = [*map(result, changes), result(n_heads=2)]
    return [torch.allclose(changed, result(), atol=1e-4) for changed in after]


# --- 4.5 ------------------------------------------------------------------------------------------


def test_4_5(implementation: type[MultiHeadAttention]) -> None:
    layer = implementation(12, 3)
    x = torch.randn(2, 5, 12)
    memory = torch.randn(2, 7, 12)

    # Head by head, as the equation has it: the first four features, the next four, the last four.
    q = layer.w_q(x)
    k = layer.w_k(memory)
    v = layer.w_v(memory)
    pieces = [slice(0, 4), slice(4, 8), slice(8, 12)]
    heads = [attention(q[..., piece], k[..., piece], v[..., piece]) for piece in pieces]
    torch.testing.assert_close(layer(x, memory), layer.w_o(torch.cat(heads, dim=-1)))

    # A word that is hidden leaves no trace.
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[:, 6] = False
    other = memory.clone()
    other[:, 6] += 1
    torch.testing.assert_close(layer(x, memory, mask), layer(x, other, mask))

    try:
        implementation(12, 5)
    except ValueError:
        return
    raise AssertionError("12 features cannot be split into 5 heads")


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="4.1",
        title="Multi-head attention",
        minutes=30,
        difficulty=2,
        trains="projections, and the split into heads and back",
        target="MultiHeadAttention",
        check="check_multi_head",
        task=r"""
Write `MultiHeadAttention(d_model, n_heads, attention_fn=attention)`.

- Four linear layers, `w_q`, `w_k`, `w_v` and `w_o`, each from `d_model` to `d_model` with a bias.
  Their weights start from Xavier's uniform distribution, their biases at 0.
- A number of heads that is not positive, or does not divide `d_model`, raises a `ValueError`.
- `split_heads`, `project_kv` and `attend` are steps of `forward`. Chapter 12 calls the last two one
  by one.
- `forward(x, memory, mask)` gets `x`, `b q d_model`, and `memory`, `b k d_model`, whose lengths may
  differ. Queries come from `x`, keys and values from `memory`.
- Attention itself is a call of `attention_fn(q, k, v, mask)`, once for all heads. No loop over
  heads.
""",
        hints=(
            "All heads are computed at once. One matrix serves them all, and its result is cut "
            "into pieces that are next to each other: the first piece belongs to head 0. Then the "
            "heads become an axis in front of time, where `attention` treats them like a batch.",
            '`split_heads`: `rearrange(x, "b t (h d_head) -> b h t d_head", h=self.n_heads)`. '
            "`attention_fn` gets `b h q d_head`, `b h k d_head` and `b h k d_head`, and returns "
            "`b h q d_head`. Then back to `b q (h d_head)`, and through `w_o`.",
        ),
        why="""
`view(b, h, t, d_head)` has the right shape at once, and the wrong content. Of the 32 pieces of a
sentence with 8 words and 4 heads, only the first and the last come to stand where they belong; head
0 gets words 0 and 1, and nothing else. The model still learns something from such pieces. But word
0 then holds parts of later words, so a causal mask no longer hides the future: the loss looks
better than it should.

The number of heads changes no parameter. At d_model 24 there are 4 · (24 · 24 + 24) = 2,400, with
one head or with eight. That is why a number of heads that does not fit must be refused: nothing
else would notice.
""",
    ),
    ByHand(
        id="4.2",
        title="Where does feature 13 go?",
        minutes=10,
        difficulty=1,
        trains="what rearrange does to a number and view does not",
        form="six numbers: head, position and feature by rearrange, then the same three by view",
        task="""
`x` is one sentence of 8 words with 24 features, `t d_model` = 8×24. It is split into 4 heads of 6
features, `h t d_head` = 4×8×6. Everything counts from 0.

Follow the number `x[3, 13]`, feature 13 of word 3. At which head, position and feature does it
arrive

1. by `rearrange(x, "t (h d_head) -> h t d_head", h=4)`,
2. by `x.view(4, 8, 6)`, which keeps all numbers in the order in which they are stored, row by row?
""",
        solution=solution_4_2,
        mistakes={
            "By rearrange, the word keeps its place: position 3 stays position 3.": [
                1,
                6,
                1,
                1,
                6,
                1,
            ],
            "By view, nothing moves in memory. Count how many numbers come before x[3, 13], and "
            "fill 4×8×6 with them in order.": [2, 3, 1, 2, 3, 1],
            "A head takes features that are next to each other, (h d_head): features 0 to 5 are "
            "head 0. You have dealt them out one by one, (d_head h).": [1, 3, 3, 1, 6, 1],
        },
        hints=(
            "For rearrange, only the 24 features are cut up: 13 = 2 · 6 + 1. For view, the number "
            "is found by counting: 3 whole rows of 24 come before it, and 13 more numbers.",
            "In `h t d_head` = 4×8×6, one head has 8 · 6 = 48 numbers, and one position in it has "
            "6. So number n is in head n // 48.",
        ),
        why="""
Word 3 should be looked at as word 3 by every head. By view, this piece of it became *position 6 of
head 1*, so it meets the mask of word 6, and it is added to the result of word 6.

Only 3 · 24 + 13 = 85 = 1 · 48 + 6 · 6 + 1 was needed to see it, and no shape tells the two apart.
The names in the pattern of `rearrange` do: time stays time.
""",
    ),
    Predict(
        id="4.3",
        title="Five ways to change a layer",
        minutes=15,
        difficulty=2,
        trains="which weights of a layer matter together, and which do not matter",
        form="five truth values",
        given="import torch",
        task=r"""
A layer `MultiHeadAttention(24, 4)` attends from a sentence to itself, without a mask. Each change
below starts from the same layer. Is the result the **same** as before (`True`) or not (`False`)?

1. The heads change places: the 24 outputs of `w_q`, `w_k` and `w_v` are put into another order,
   head by head, and the inputs of `w_o` in the same way.
2. As 1, but `w_o` stays as it is.
3. The bias of `w_k` was 0 and becomes 1.
4. The weights of `w_q` are doubled, those of `w_k` halved. Biases are 0.
5. The same weights are given to a layer with 2 heads, `MultiHeadAttention(24, 2)`.

Write down your five answers first. Then run the cell below.
""",
        solution=solution_4_3,
        mistakes={
            "Item 1: the result is the sum of what each head writes through its own columns of "
            "w_o. If these move with the head, the sum is the same.": [
                False,
                False,
                True,
                True,
                False,
            ],
            "Item 2: w_o has separate columns for each head. Each head would be read by the "
            "columns of another.": [True, True, True, True, False],
            "Item 3: the bias adds the same number to all scores of a query, and the softmax "
            "cancels it.": [True, False, False, True, False],
            "Item 4: only the product of queries and keys is used, and 2 · ½ = 1.": [
                True,
                False,
                True,
                False,
                False,
            ],
            "Item 5: two heads compare 12 features at once and mix by two formulas, not four. It "
            "is another function of the same weights.": [True, False, True, True, True],
        },
        hints=(
            "Think of the result as a sum over heads, in which each head has its own rows of w_q, "
            "w_k and w_v and its own columns of w_o. Queries and keys occur only in dot products, "
            "and these only in a softmax over the keys.",
            "In each head the scores are `q k`, one row for each query. Adding one number to a "
            "whole row changes no weight of it. `w_o` reads `(h d_head)`, head by head.",
        ),
        why="""
Heads have no order: which of them looks at the next word is an accident of the start. So head 3 of
one model has nothing to do with head 3 of another, and comparing them by number means nothing.

The bias of the keys is the one parameter of the model without any effect, and without any gradient.
`check_multi_head` knows of this exception. And the number of heads is stored in no weight: a
checkpoint that is loaded with the wrong number fits, raises no error, and computes something else.
""",
    ),
    FindBug(
        id="4.4",
        title="The right shape",
        minutes=15,
        difficulty=2,
        trains="testing content where the shape is right",
        target="MultiHeadAttention",
        bugs=(
            Bug(
                "ch04_multi_head.heads_split_by_view",
                "As a decoder's layer with a causal mask, it reaches a loss that is too good, and "
                "its translations are nonsense. Change word 6 of a sentence, and the result for "
                "word 0 changes, in spite of the mask.",
            ),
            Bug(
                "ch04_multi_head.heads_merged_by_view",
                "As a decoder's layer with a causal mask, it reaches a loss that is too good, and "
                "its translations are nonsense. Its attention maps are flawless, and no hidden "
                "word has any weight.",
            ),
            Bug(
                "ch04_multi_head.heads_scaled_by_d_model",
                "The model trains a little worse than it should. Its attention maps are paler than "
                "those of `nn.MultiheadAttention` with the same weights; with one head there is no "
                "difference.",
            ),
            Bug(
                "ch04_multi_head.heads_interleaved",
                "The model trains as well as any other. But with weights that are copied from "
                "`nn.MultiheadAttention` it gives other results; with one head it does not.",
            ),
            Bug(
                "ch04_multi_head.ignores_memory",
                "The encoder works. The decoder writes fluent sentences that have nothing to do "
                "with the source.",
            ),
            Bug(
                "ch04_multi_head.drops_mask",
                "The decoder's loss is too good, and its translations are nonsense. The same "
                "attention function, called by hand with the mask, is right.",
            ),
        ),
        task="""
{symptom}

Find the mistake in the class below and repair it. The result must pass `check_multi_head`.
""",
        hints=(
            "Follow one number. Give the layer a sentence in which only one word is not zero, and "
            "look after each step where that word is. Then do the same with a mask, and with a "
            "memory that differs from `x`.",
            "`x` is `b q d_model`; split it is `b h q d_head`, and merged again `b q (h d_head)`. "
            "The memory has its own length, `b k d_model`, and d_head is d_model / n_heads.",
        ),
        why="""
Every one of these layers has the right shapes, the right number of parameters, a gradient
everywhere and a loss that falls. Shapes say nothing about which number is where. Two questions find
most of it: if one word changes, which rows of the result change? And does a loop over the heads,
written as plainly as the equation, give the same numbers?
""",
    ),
    WriteTest(
        id="4.5",
        title="A test for heads",
        minutes=25,
        difficulty=3,
        trains="testing a fast implementation by a slow and obvious one",
        target="MultiHeadAttention",
        check="check_multi_head",
        at_least=7,
        given="import torch",
        task="""
Write a test of `MultiHeadAttention`. It gets a class, calls `implementation(d_model, n_heads)`, and
raises an error if what it gets is wrong; `assert` is enough. You may use `attention` of chapter 3
and the layer's own `w_q`, `w_k`, `w_v` and `w_o`.

Eight classes that people have really written will be tried. Your test must accept what is right and
refuse **at least 7 of the 8**.
""",
        solution=test_4_5,
        hints=(
            "Compute the result once more in the slowest and plainest way: a loop over the heads, "
            "each with its own slice of the features. This finds most of it. It has no mask, and "
            "it never asks for a number of heads that does not fit.",
            "With `implementation(12, 3)`, `x` 2×5×12 and `memory` 2×7×12: `layer.w_q(x)` is "
            "2×5×12, head 1 is its features 4 to 7, and the three results, each 2×5×4, are joined "
            "along the last axis. A mask is `q k` = 5×7.",
        ),
        why="""
The loop is what the paper's equation says, and it can be read at a glance; the layer is what runs
fast. Where a slow version is obviously right, comparing with it is the best test there is. It found
six of the eight: split, merge, order, scale, memory and the last projection.

It could not find the other two, because it never asks. A mask that is dropped is only seen if
something is hidden. A number of heads that does not fit is only seen if somebody tries it.
""",
    ),
]
