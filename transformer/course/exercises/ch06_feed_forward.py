"""The exercises of chapter 6: the feed-forward block."""

import torch

from transformer.course.exercise import (
    Bug,
    ByHand,
    Exercise,
    FindBug,
    Predict,
    WriteBlock,
    WriteTest,
)
from transformer.feed_forward import FeedForward

# --- 6.2 ------------------------------------------------------------------------------------------

W_1 = ((1.0, 0.0, -1.0), (1.0, -1.0, 2.0))
B_1 = (0.0, 1.0, 3.0)
W_2 = ((2.0, 1.0), (1.0, -1.0), (4.0, 4.0))
B_2 = (0.5, 1.0)


def solution_6_2(active: bool = True, bias: float = 1.0, twice: bool = False) -> list[float]:
    """Widen two features to three, set the negative ones to 0, return to two; then count."""
    x = torch.tensor([1.0, -2.0])
    hidden = x @ torch.tensor(W_1) + bias * torch.tensor(B_1)
    if active:
        hidden = hidden.relu()
    result = hidden @ torch.tensor(W_2) + bias * torch.tensor(B_2)
    if twice:
        result = result.relu()
    parameters = 24 * 48 + 48 + 48 * 24 + 24
    return [*hidden.tolist(), *result.tolist(), float(parameters)]


def counted_without_biases() -> list[float]:
    """Compute with the biases, and forget them in the count."""
    return [*solution_6_2()[:-1], 2.0 * 24 * 48]


# --- 6.3 ------------------------------------------------------------------------------------------


def solution_6_3() -> list[bool]:
    """Change the input of a new block in five ways."""
    draw = torch.Generator().manual_seed(0)
    x, other = torch.randn(2, 2, 8, 24, generator=draw)
    block = FeedForward(24, 48)
    order = torch.tensor([3, 1, 4, 0, 7, 5, 2, 6])
    padded = torch.cat([x[:, :6], other[:, 6:]], dim=1)
    pairs = [
        (block(x[:, order]), block(x)[:, order]),
        (block(padded)[:, :6], block(x)[:, :6]),
        (block(2 * x), 2 * block(x)),
        (block(-x), -block(x)),
        (block(x + other), block(x) + block(other)),
    ]
    return [torch.allclose(got, wanted, atol=1e-5) for got, wanted in pairs]


# --- 6.5 ------------------------------------------------------------------------------------------


def test_6_5(implementation: type[FeedForward]) -> None:
    block = implementation(6, 14)
    x = torch.randn(2, 5, 6)
    out = block(x)
    assert out.shape == x.shape

    word_by_word = [block(x[:, t : t + 1]) for t in range(5)]
    torch.testing.assert_close(torch.cat(word_by_word, dim=1), out)

    # A linear map with a bias gives f(x) + f(-x) = 2 f(0), whatever its weights.
    at_zero = block(torch.zeros_like(x))
    assert not torch.allclose(out + block(-x), 2 * at_zero, atol=1e-4), "nothing is nonlinear"

    assert (out < 0).any() and (out > 0).any(), "the result may have either sign"


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="6.1",
        title="The feed-forward block",
        minutes=10,
        difficulty=1,
        trains="two linear layers, and the activation between them",
        target="FeedForward",
        check="check_feed_forward",
        task=r"""
Write the module `FeedForward(d_model, d_ff, activation=F.relu)`:

$$\operatorname{FFN}(x) = \max(0,\; x W_1 + b_1)\, W_2 + b_2$$

- `w_1` is linear, from `d_model` to `d_ff`, and `w_2` is linear, from `d_ff` to `d_model`. Each has
  a bias. Their weights start from Xavier's uniform distribution, their biases at 0.
- `forward` gets `x`, `b t d_model`, and keeps its shape. Every vector is transformed by itself.
- The residual is not part of this block: chapter 5 adds it from outside.
""",
        hints=(
            "Widen, activate, narrow: three calls, from the inside to the outside. Keep the "
            "activation as an attribute, so that another one can be passed in.",
            "`x` is `b t d_model`, the hidden features are `b t d_ff`, and the result is "
            "`b t d_model`. `nn.Linear` works on the last axis and leaves all others alone.",
        ),
        why="""
The activation stands *between* the matrices. Without it, two matrices in a row are one matrix, and
a width of 2,048 achieves nothing. After the second matrix it would do harm: what the block adds to
the residual could never be negative, so no layer could take back what an earlier one has written.

No axis of time occurs in your code. So the same block serves a sentence of any length, and a single
token in chapter 12.
""",
    ),
    ByHand(
        id="6.2",
        title="Three hidden features",
        minutes=10,
        difficulty=1,
        trains="the equation of the block, and where its parameters are",
        form="six numbers: three hidden features, two features of the result, the parameters",
        task=r"""
A block with `d_model` = 2 and `d_ff` = 3 has the weights, for a row vector $x$ as in the equation,

$$W_1 = \begin{pmatrix} 1 & 0 & -1 \\ 1 & -1 & 2 \end{pmatrix} \quad b_1 = (0, 1, 3)
\qquad W_2 = \begin{pmatrix} 2 & 1 \\ 1 & -1 \\ 4 & 4 \end{pmatrix} \quad b_2 = (0.5, 1)$$

and gets the word $x = (1, -2)$.

1. What are the three hidden features, after the ReLU?
2. What are the two features of the result?
3. How many parameters does a block with `d_model` = 24 and `d_ff` = 48 have, biases included?
""",
        solution=solution_6_2,
        mistakes={
            "The hidden features are those before the ReLU: negative ones become 0.": (
                solution_6_2(active=False)
            ),
            "The biases are missing, b_1 before the ReLU and b_2 at the end.": (
                solution_6_2(bias=0.0)
            ),
            "A ReLU follows the second matrix too: it stands only between the two.": (
                solution_6_2(twice=True)
            ),
            "The count lacks the biases: 48 of the first layer and 24 of the second.": (
                counted_without_biases()
            ),
        },
        tolerance=0.001,
        hints=(
            "A hidden feature is the dot product of x with a *column* of the first matrix, plus "
            "its bias. A feature that is 0 adds nothing to the result, so only some rows of the "
            "second matrix are needed.",
            "`x` is 1×2, the hidden features are 1×3, the result is 1×2. The matrices of part 3 "
            "are 24×48 and 48×24.",
        ),
        why=r"""
Two of the three hidden features were silent, and their rows of $W_2$ were not used at all, not even
the large $(4, 4)$. For another word, another selection is active. So the block is a different
linear map for each pattern of active features, and that is all its nonlinearity.

With 2,376 parameters the block is about as large as the attention of the same width, which has
2,400. In the paper `d_ff` is four times `d_model`, and the block has two thirds of an encoder
layer's parameters.
""",
    ),
    Predict(
        id="6.3",
        title="What a new block does to its input",
        minutes=10,
        difficulty=2,
        trains="what the block does word by word, and which part of it is not linear",
        form="five truth values",
        given="import torch",
        task="""
`block = FeedForward(24, 48)` is new, so its biases are still 0. `x` and `y` are 2×8×24: two
sentences of eight words. True or false, apart from rounding?

1. If the words of `x` are put into another order, the results are the same rows in this new order.
2. If the last two words of each sentence are replaced by others, the results of the first six stay
   as they are.
3. `block(2 * x)` equals `2 * block(x)`.
4. `block(-x)` equals `-block(x)`.
5. `block(x + y)` equals `block(x) + block(y)`.

Write down your five answers first. Then run the cell below.
""",
        solution=solution_6_3,
        mistakes={
            "Item 3: without biases, doubling x doubles what goes into the ReLU, and max(0, 2h) is "
            "2 max(0, h).": [True, True, False, False, False],
            "Item 4: for -x, exactly those hidden features are active that were silent for x.": [
                True,
                True,
                True,
                True,
                False,
            ],
            "Item 5: the ReLU of a sum is not the sum of the ReLUs, for example max(0, 1 - 1) and "
            "max(0, 1) + max(0, -1).": [True, True, True, False, True],
            "Items 1 and 2: no word sees another word in this block.": [
                False,
                False,
                True,
                False,
                False,
            ],
        },
        hints=(
            "Everything but the ReLU is linear while the biases are 0. So ask each time what "
            "happens to max(0, h) if h is doubled, if it changes sign, and if it is a sum.",
            "`x` is `b t d_model`, and only the last axis is used in a product. The axis `t` is "
            "left alone, like the batch.",
        ),
        why="""
Items 1 and 2 are why padding needs no mask here: a padded word is transformed like any other, and
nobody sees the result. Attention is the only part of the model in which words meet.

Item 3 holds for a new block only. Once training has moved the biases, a hidden feature becomes
active beyond some threshold of its own, and the size of a vector matters. Items 4 and 5 are what
attention cannot do with its values: the answer for a sum is not the sum of the answers, so the
block can decide *both of these, but not one alone*.
""",
    ),
    FindBug(
        id="6.4",
        title="Two matrices and a mistake",
        minutes=10,
        difficulty=2,
        trains="from what a model cannot do to what its block lacks",
        target="FeedForward",
        bugs=(
            Bug(
                "ch06_feed_forward.mixes_positions",
                "The loss of the decoder is better than it should be, though its causal mask is "
                "right. And in the encoder, a sentence gets other vectors if the batch pads it to "
                "another length.",
            ),
            Bug(
                "ch06_feed_forward.without_activation",
                "The model trains, a little worse than expected. Whether `d_ff` is 48 or 4,800 "
                "makes no difference to what it can learn.",
            ),
            Bug(
                "ch06_feed_forward.activated_twice",
                "The model trains, a little worse than expected. In a pre-norm stack, the features "
                "on the main path are pushed upwards by every one of these blocks.",
            ),
        ),
        task="""
{symptom}

Find the mistake in the class below and repair it. The result must pass `check_feed_forward`.
""",
        hints=(
            "Three questions decide it. Does a word's result depend on another word? Does "
            "`block(-x)` differ from `-block(x)`? Can the result be negative?",
            "`x` is `b t d_model`. A mean, a norm or a sum over the axis `t` has no place here; "
            "the activation is at `b t d_ff` and nowhere else.",
        ),
        why="""
Even a harmless mean over the sentence is a way for the future to leak: in training, word 0 of the
target then knows something about word 7, and the decoder learns to rely on it. When it translates,
word 7 is not there yet. A causal mask protects attention only; every other block must keep the
words apart by itself.
""",
    ),
    WriteTest(
        id="6.5",
        title="A test for one word at a time",
        minutes=15,
        difficulty=2,
        trains="testing what a block must not do",
        target="FeedForward",
        check="check_feed_forward",
        at_least=2,
        given="import torch",
        task="""
Write a test of `FeedForward`. It gets a class, calls `implementation(d_model, d_ff)`, and raises an
error if the block is wrong; `assert` is enough. Use properties of the result only: do not look at
`w_1` and `w_2`.

Three classes that people have really written will be tried. Your test must accept what is right and
refuse **at least 2 of the 3**.
""",
        solution=test_6_5,
        hints=(
            "Give it a sentence as a whole, and then word by word. Then ask what a block could "
            "never do if it were linear, and what it could never do if a ReLU came last.",
            "`x` is `b t d_model` = 2×5×6, and `x[:, t : t + 1]` is one word of each sentence, "
            "2×1×6. The result has the shape of `x`.",
        ),
        why="""
You tested this block without knowing a single weight. A linear map has $f(x) + f(-x) = 2 f(0)$, for
all weights and biases; a block that keeps words apart gives the same whole and in parts; a result
without a negative number ends in a ReLU. Such properties still hold after training and after a
change of the initialisation.
""",
    ),
]
