"""The exercises of chapter 3: attention."""

import math

import torch

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

# --- 3.2 ------------------------------------------------------------------------------------------


def solution_3_2() -> list[bool]:
    """Attend with one query to five words, the last one hidden, before and after each change."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(n, 4, generator=draw) for n in (1, 5, 5))
    mask = torch.tensor([[True, True, True, True, False]])
    before = attention(q, k, v, mask)

    other = torch.randn(1, 4, generator=draw)
    order = torch.tensor([2, 0, 3, 1, 4])
    twice = torch.tensor([0, 1, 2, 3, 3, 4])
    hidden = torch.arange(5).unsqueeze(-1) == 4
    after = [
        attention(2 * q, k, v, mask),
        attention(q, k + other, v, mask),
        attention(q, k[order], v[order], mask[:, order]),
        attention(q, k[twice], v[twice], mask[:, twice]),
        attention(q, k.where(~hidden, other), v.where(~hidden, other), mask),
    ]
    return [torch.allclose(result, before, atol=1e-6) for result in after]


# --- 3.3 ------------------------------------------------------------------------------------------


def solution_3_3() -> list[float]:
    """Divide by √4 = 2, take the exponentials of what is shown, divide by their sum, and mix."""
    powers = [math.exp(2 / 2), math.exp(2 / 2), math.exp(0 / 2)]
    weights = [power / sum(powers) for power in powers]
    return [*weights, 0.0, 10 * weights[0] + 20 * weights[1] + 0 * weights[2]]


def row_with(divisor: float = 2.0, hidden: bool = True, late: bool = False) -> list[float]:
    """Compute the same with another divisor, without the mask, or with the mask too late."""
    powers = [math.exp(score / divisor) for score in (2, 2, 0, 8)]
    if hidden and not late:
        powers[3] = 0.0
    weights = [power / sum(powers) for power in powers]
    if late:
        weights[3] = 0.0
    mixed = sum(w * value for w, value in zip(weights, (10, 20, 0, 100), strict=True))
    return [*weights, mixed]


# --- 3.5 ------------------------------------------------------------------------------------------


def test_3_5(implementation):
    q = torch.randn(2, 5, 4)
    k = torch.randn(2, 7, 4)
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[:, 4:] = False  # the last three keys are padding
    mask[0] = False  # and query 0 may attend to nothing
    weights = implementation(q, k, mask)
    assert not weights[..., 4:].any(), "a hidden key has weight"
    assert not weights[:, 0].any(), "a row without keys is not zeros"
    sums = weights[:, 1:].sum(-1)
    torch.testing.assert_close(sums, torch.ones(2, 4))

    # The scores are 2 and 0. Divided by √4 they are 1 apart, so one weight is e times the other.
    query = torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    keys = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    large, small = implementation(query, keys, None).flatten().tolist()
    assert math.isclose(large / small, math.e, rel_tol=1e-4), "the scores are not divided by √d"

    assert implementation(300 * q, k, None).isfinite().all(), "exp overflows"
    assert implementation(q.half(), k.half(), mask).isfinite().all(), "float16 overflows"


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="3.1",
        title="The attention weights",
        minutes=20,
        difficulty=2,
        trains="scores, scale, mask and softmax, each on the right axis",
        target="attention_weights",
        check="check_attention_weights",
        task="""
Write `attention_weights`, the factor in front of $V$ in the equation above.

- `q` is `... q d_head` and `k` is `... k d_head`. The axes in front may be none, a batch, or a
  batch and heads.
- `mask` broadcasts to `... q k`, and `True` means *may attend*. It may be `None`.
- Every row sums to 1, except that of a query which may attend to no key: it is a row of zeros, and
  not of `nan`.
- float16 must work as well as float32.
""",
        hints=(
            "Three steps make the weights, and each is one line. Every query meets every key in a "
            "dot product, divided by √d. Keys that are hidden get the score -∞, because the "
            "exponential of -∞ is exactly 0. A softmax over the keys makes each row sum to 1. A "
            "row that holds nothing but -∞ needs a fourth step.",
            'The scores are `einsum(q, k, "... q d_head, ... k d_head -> ... q k")`, and they keep '
            "this shape to the end. `mask.any(-1, keepdim=True)` is `... q 1`: True for a query "
            "that may attend to something.",
        ),
        why="""
Keys are hidden *before* the softmax, so the other weights of the row are shared out among the keys
that remain. Set to 0 after the softmax, a row would sum to less than 1, and a sentence would come
out smaller the more padding its batch gives it.

-∞ does what -1e9 only seems to do. -1e9 does not fit into float16, whose largest number is 65,504,
and in a row without any key it gives every padded position the same weight. The price of -∞ is
that such a row is 0/0: your fourth step replaces it, and one `nan` can no longer ruin a training
run.
""",
    ),
    Predict(
        id="3.2",
        title="What attention does not see",
        minutes=10,
        difficulty=1,
        trains="which changes of its input change the result of attention",
        form="five truth values",
        task="""
One query attends to five words, the last of which is hidden by the mask. Does the result stay the
**same** (`True`) or not (`False`), when

1. the query is doubled,
2. one and the same vector is added to every key,
3. keys, values and mask are put into another order, all in the same way,
4. a word that is shown is there twice, with its key and its value,
5. the hidden word is replaced by another?

Write down your five answers first. Then run the cell below.
""",
        solution=solution_3_2,
        mistakes={
            "Item 2: q·(k + c) = q·k + q·c. The same number is added to all scores of the query, "
            "and softmax compares differences only.": [False, False, True, False, True],
            "Item 4: the word gets two shares of the weight, and the others get less.": [
                False,
                True,
                True,
                True,
                True,
            ],
            "Item 1: twice the query means twice the difference between any two scores, so the "
            "largest weight grows.": [True, True, True, False, True],
        },
        hints=(
            "Softmax gives the same weights when one number is added to all scores of a row. Which "
            "of the changes does only that? And which change nothing but the order of a sum?",
            "`q` is `1 d_head`, `k` and `v` are `k d_head`, and the result is `1 d_head`. The axis "
            "`k` is summed over: no number of the result belongs to a place in it.",
        ),
        why="""
What is the same for all keys cancels in the softmax. This is why the bias of the keys, in chapter
4, is the one parameter of the model that never gets a gradient.

The result is a sum over a *set* of words, so it does not depend on their order: without the
positions of chapter 2, a sentence would be a bag of words. But it counts how often a word is there.
That is why padding must be hidden: fifty rows of `<pad>` are fifty words, and each takes its share.
""",
    ),
    ByHand(
        id="3.3",
        title="A row of weights, on paper",
        minutes=10,
        difficulty=1,
        trains="scale, mask, softmax and mixing, in this order",
        form="five numbers: the four weights and the mixed value",
        task="""
A query $(2, 1, 0, 1)$ attends to four words. The last one is hidden by the mask.

| word | key | value |
|---|---|---|
| 0 | $(1, 0, 3, 0)$ | 10 |
| 1 | $(0, 2, 1, 0)$ | 20 |
| 2 | $(0, 0, 5, 0)$ | 0 |
| 3 (hidden) | $(3, 1, 0, 1)$ | 100 |

Compute the four weights and the mixed value on paper, with two decimals. You need $e = 2.72$ and
nothing else.
""",
        solution=solution_3_3,
        mistakes={
            "These are the weights of scores that are not divided by √d, here √4 = 2.": (
                row_with(divisor=1.0)
            ),
            "These are the weights of scores that are divided by d = 4: the divisor is √d.": (
                row_with(divisor=4.0)
            ),
            "Word 3 is hidden: it must not take part in the sum of the exponentials.": (
                row_with(late=True)
            ),
            "Word 3 is hidden: its weight is 0.": row_with(hidden=False),
        },
        hints=(
            "First the four dot products. Then divide each by √d; d is the number of features, not "
            "of words. The hidden word leaves before the softmax.",
            "The scores are `1 k` = 1×4, and after scaling they are 1, 1, 0 and 4. Three of them "
            "are shown. The weights are `1 k` too, and the mixed value is one number.",
        ),
        why="""
The hidden word agreed best with the query, and its value was the largest. It left no trace, neither
in the weights nor in the sum.

Had it left after the softmax instead of before, it would have taken 89 % of the row along: the
three other weights would sum to 0.11. Nothing crashes when that happens, and the loss still falls.
""",
    ),
    FindBug(
        id="3.4",
        title="It trains, but it is wrong",
        minutes=15,
        difficulty=2,
        trains="from what a model does wrong to the line that is wrong",
        target="attention_weights",
        bugs=(
            Bug(
                "ch03_attention.weights_masked_after_softmax",
                "The model trains and its loss falls. But what it makes of a sentence depends on "
                "the batch: beside a long sentence, which means more padding, its vectors come out "
                "smaller.",
            ),
            Bug(
                "ch03_attention.weights_softmax_over_queries",
                "The model trains and its loss falls. But when it translates word by word, with a "
                "single query at a time, every key gets the weight 1.",
            ),
            Bug(
                "ch03_attention.weights_mask_added",
                "The loss of the decoder falls much faster than it should, and its translations "
                "are nonsense. In the attention map, hidden keys are only a little paler.",
            ),
            Bug(
                "ch03_attention.weights_scaled_by_d",
                "The model trains slowly. With 64 features, all words of the attention map are "
                "equally pale, whatever the sentence.",
            ),
        ),
        task="""
{symptom}

Find the mistake in the function below and repair it. The result must pass
`check_attention_weights`, so it must also give zeros to a query that may attend to nothing.
""",
        hints=(
            "Take two queries and three keys, hide one key, and look at the weights. What do the "
            "rows sum to? Which weights are 0? Are they the numbers that you get on paper?",
            "Every step keeps the shape `... q k`: scores, hidden scores, weights. A row, the last "
            "axis, belongs to one query.",
        ),
        why="""
No exception, a falling loss, and a wrong function: most mistakes with attention look like this.
What finds them is a property that holds for every input. The rows sum to 1, a hidden key has the
weight 0, and padding changes nothing.
""",
    ),
    WriteTest(
        id="3.5",
        title="A test that finds what others did wrong",
        minutes=25,
        difficulty=3,
        trains="turning what a function promises into claims that can fail",
        target="attention_weights",
        check="check_attention_weights",
        at_least=8,
        given="import math\n\nimport torch",
        task="""
Write a test of `attention_weights`. It gets an implementation, calls it as
`implementation(q, k, mask)`, and raises an error if the implementation is wrong; `assert` is
enough.

Eleven implementations that people have really written will be tried. Your test must accept what is
right and refuse **at least 8 of the 11**. Use properties and numbers that you know, rather than
another implementation to compare with.
""",
        solution=test_3_5,
        hints=(
            "Read the docstring of `attention_weights` and the three properties of this chapter as "
            "claims. What do rows sum to? What is a hidden key's weight? What does a query without "
            "keys get? Then think of numbers that do not fit: large scores, float16.",
            "Take sizes that are all different, such as `q` 2×5×4 and `k` 2×7×4, with a mask 5×7, "
            "so that an axis that is swapped cannot go unnoticed. For the scale you need one pair "
            "of weights that you know: two scores that are 1 apart after scaling.",
        ),
        why="""
A test is worth what it refuses. Each line of yours is a claim about *every* input, and each of the
eleven mistakes breaks at least one: a row that does not sum to 1, a hidden key with a weight, a
ratio that is not $e$, a number that is not finite. The checks of this course are built in the same
way, and a check that refuses none of the known mistakes is not accepted.
""",
    ),
]
