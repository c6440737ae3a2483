"""The exercises of chapter 7: the encoder."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from transformer.course.exercise import (
    Bug,
    ByHand,
    Exercise,
    FindBug,
    Predict,
    WriteBlock,
    WriteTest,
)
from transformer.encoder import Encoder
from transformer.residual_norm import PreNorm

# --- 7.2 ------------------------------------------------------------------------------------------

WORDS = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 6.0]])
SHARES = torch.tensor([1.0, 3.0, 4.0])  # the exponentials of the scores of `a`


def solution_7_2() -> list[list[float]]:
    """Attend to the two words that are shown, add, then let the hidden unit write, and add."""
    x = WORDS[0] + mixed(SHARES[:2])
    return [x.tolist(), (x + written(x)).tolist()]


def mixed(shares: Tensor) -> Tensor:
    return shares / shares.sum() @ WORDS[: len(shares)]


def written(x: Tensor) -> Tensor:
    """Return what the feed-forward block writes: one hidden unit, into the last feature."""
    unit = (x @ torch.tensor([1.0, -1.0, 1.0, 0.0]) - 2).relu()
    return unit * torch.tensor([0.0, 0.0, 0.0, 1.0])


def with_padding() -> list[list[float]]:
    x = WORDS[0] + mixed(SHARES)
    return [x.tolist(), (x + written(x)).tolist()]


def without_first_residual() -> list[list[float]]:
    x = mixed(SHARES[:2])
    return [x.tolist(), (x + written(x)).tolist()]


def without_second_residual() -> list[list[float]]:
    x = WORDS[0] + mixed(SHARES[:2])
    return [x.tolist(), written(x).tolist()]


# --- 7.3 ------------------------------------------------------------------------------------------


def solution_7_3() -> list[bool]:
    """Compute the memory of five words before and after each change."""
    torch.manual_seed(0)
    encoder = Encoder(n_layers=2, d_model=24, n_heads=4, d_ff=48).eval()
    x = torch.randn(1, 5, 24)
    padding = torch.randn(1, 3, 24)
    longer = torch.cat([x, padding], dim=1)
    mask = torch.tensor([[[[True] * 5 + [False] * 3]]])
    order = torch.tensor([3, 0, 4, 1, 2])
    other = x.clone()
    other[:, 4] = torch.randn(24)
    with torch.no_grad():
        before = encoder(x)
        pairs = [
            (encoder(longer, mask)[:, :5], before),
            (encoder(longer)[:, :5], before),
            (encoder(x[:, order]), before[:, order]),
            (encoder(other)[:, 0], before[:, 0]),
        ]
        encoder.layers = nn.ModuleList(reversed(encoder.layers))
        pairs.append((encoder(x), before))
    return [torch.allclose(after, wanted, atol=1e-5) for after, wanted in pairs]


# --- 7.5 ------------------------------------------------------------------------------------------


def test_7_5(implementation: Callable[..., Any]) -> None:
    x = torch.randn(2, 5, 12)
    mask = torch.tensor([[[[True, True, True, False, False]]]])

    # Padding changes nothing, and every parameter is learned.
    layer = implementation(12, 3, 20)
    alone = layer(x[:, :3])
    torch.testing.assert_close(layer(x, mask)[:, :3], alone, atol=1e-5, rtol=1e-4)
    (alone * torch.randn(alone.shape)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert name.endswith("w_k.bias") or parameter.grad.any(), f"{name} is never learned"

    # A new post-norm layer ends with a norm, so each of its vectors has the mean 0.
    assert alone.mean(-1).abs().max() < 1e-5, "the output is not normalised"

    # Where neither sublayer adds anything, pre-norm gives back its input.
    silent = implementation(12, 3, 20, 0.0, PreNorm)
    for linear in (silent.self_attention.w_o, silent.feed_forward.w_2):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    torch.testing.assert_close(silent(x), x)

    # The second residual belongs to the feed-forward block, which is silent: its norm is not used.
    nn.init.normal_(silent.self_attention.w_o.weight)
    before = silent(x)
    nn.init.normal_(silent.residuals[1].norm.gain)
    torch.testing.assert_close(silent(x), before)

    noisy = implementation(12, 3, 20, 0.5).train()
    assert not torch.equal(noisy(x), noisy(x)), "dropout is never applied"


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="7.1",
        title="A layer of the encoder",
        minutes=20,
        difficulty=2,
        trains="two sublayers with their residuals, and a mask that is handed on",
        target="EncoderLayer",
        check="check_encoder_layer",
        task="""
Write `EncoderLayer`: its `__init__` and its `forward`.

- `__init__` makes three attributes. `self_attention` is a `MultiHeadAttention(d_model, n_heads)`,
  `feed_forward` is a `FeedForward(d_model, d_ff)`, and `residuals` is an `nn.ModuleList` of two
  `residual(d_model, dropout)`, where `residual` is the class `PostNorm` or `PreNorm`.
- `forward` takes `x`, which is `b t d_model`, and a mask that broadcasts to `b h q k`, or `None`.
  It returns `b t d_model`.
- A residual is called as `residual(x, sublayer)`. It calls `sublayer` on `x`, or on the norm of
  `x`, and adds the result.
""",
        hints=(
            "Each sublayer goes through a residual of its own. A residual wants a function of one "
            "vector, and self-attention takes queries, memory and mask: wrap it in a `lambda`, in "
            "which queries and memory are the same.",
            "`self.residuals[0](x, lambda x: self.self_attention(x, x, mask))` is `b t d_model`, "
            "and so is what `self.residuals[1]` makes of it. `feed_forward` needs no `lambda`.",
        ),
        why="""
The layer never asks whether it is post-norm or pre-norm: the class that it was given knows where
its norm stands. The argument of the `lambda` matters for this. In pre-norm it is the *normed*
vector; a layer that closes over the outer `x` would attend to numbers that were never normed.

There are two residuals because there are two norms to learn. One residual used twice would have the
right shapes, pass every test of shapes, and share one gain and one bias between two sublayers.
""",
    ),
    ByHand(
        id="7.2",
        title="One layer, one word, on paper",
        minutes=10,
        difficulty=1,
        trains="attention, then feed-forward, each added to its input",
        form="two lists of four numbers: the vector of `a` after each sublayer",
        task="""
The batch holds *a cat* and a `<pad>`, which the mask hides. The features are *article*, *noun*,
*masculine* and *un*, as in the chapter; norms and the matrices of attention are left out.

| word | vector | score for the query *a* |
|---|---|---|
| *a* | $(2, 0, 0, 0)$ | $0$ |
| *cat* | $(0, 2, 2, 0)$ | $\\ln 3$ |
| `<pad>` (hidden) | $(0, 0, 0, 6)$ | $\\ln 4$ |

The values are the vectors themselves. The feed-forward block has one hidden unit,
$\\max(0,\\ \\text{article} - \\text{noun} + \\text{masculine} - 2)$, and writes it into *un*.

Compute the vector of *a* after the attention sublayer and after the whole layer.
""",
        solution=solution_7_2,
        mistakes={
            "`<pad>` is hidden: it takes no part in the sum of the exponentials.": with_padding(),
            "The attention sublayer has a residual: its result is added to the vector of `a`.": (
                without_first_residual()
            ),
            "The feed-forward block has a residual, too: it adds to its input.": (
                without_second_residual()
            ),
            "Attention comes first: before it, the vector of `a` does not know that a masculine "
            "noun follows, and the unit is 0.": [[2.5, 1.5, 1.5, 0.0], [2.5, 1.5, 1.5, 0.0]],
        },
        hints=(
            "There are two steps, and each is added to its input. First take the weights of the "
            "two words that are shown, mix their vectors, and add the mixture to the vector of "
            "*a*. Then compute the unit from the sum.",
            "The exponentials of the scores are 1 and 3, so the weights are 1/4 and 3/4. The "
            "mixture, the sum and the result are vectors of 4 numbers.",
        ),
        why="""
The unit is 0.5, and *un* is written into the vector of *a*. Attention moved *masculine* there;
feed-forward combined it with *article*. In the other order nothing would have been written: the
vector of *a* alone gives the unit $2 - 0 + 0 - 2 = 0$.

With the padding in, *un* would be 3.25, and 3 of that would come from a `<pad>`. Its size would
depend on how long the other sentences of the batch are.
""",
    ),
    Predict(
        id="7.3",
        title="What the memory depends on",
        minutes=10,
        difficulty=1,
        trains="what a stack of layers keeps from attention, and what it does not",
        form="five truth values",
        task="""
An encoder of two layers reads the five words of *i love you very much*, as vectors of 24 features
**without positions**. Does the memory stay the **same** (`True`) or not (`False`)?

1. Three `<pad>` are appended and hidden by the mask. (Compare the five rows of the words.)
2. Three `<pad>` are appended, and there is no mask.
3. The words are put into another order. (Compare the row of each word with its row before.)
4. The last word is replaced. (Compare the row of the first word.)
5. The two layers change places, so that the second runs first.

Write down your five answers first. Then run the cell below.
""",
        solution=solution_7_3,
        mistakes={
            "Item 1: hidden keys have the weight 0 in every layer, so no row of a word can depend "
            "on them, neither in the first layer nor later.": [False, False, True, False, False],
            "Item 3: attention is a sum over a set, and the other parts treat each position on its "
            "own. Without positions the rows only change places.": [
                True,
                False,
                False,
                False,
                False,
            ],
            "Item 4: an encoder has no causal mask. The first word attends to the last.": [
                True,
                False,
                True,
                True,
                False,
            ],
            "Item 5: both layers have the same form, but each has weights of its own, and the "
            "second reads what the first has written.": [True, False, True, False, True],
        },
        hints=(
            "What each part does to a word is either the same whatever the other words are, or it "
            "is a weighted sum over all words that are shown. Which changes can such a sum notice?",
            "`x` is `1 t d_model` with t = 5, or 8 with padding; the mask is `1 1 1 k`. Every "
            "layer keeps `1 t d_model`, so what holds for the rows of one layer holds for the "
            "next.",
        ),
        why="""
The order of the words is invisible to a whole encoder, not only to one attention: a stack of parts
that cannot see the order cannot see it either. Chapter 2 is the only place where it comes in.

The same argument makes padding safe. If no layer lets a word attend to padding, the memory of a
sentence does not depend on its batch. It takes the mask in *every* layer, as exercise 7.4 shows.
""",
    ),
    FindBug(
        id="7.4",
        title="Six layers, and something is missing",
        minutes=15,
        difficulty=2,
        trains="from what a stack does wrong to the line that is wrong",
        target="Encoder",
        bugs=(
            Bug(
                "ch07_encoder.stack_masks_first_layer_only",
                "With one layer all is well. With six, the memory of a sentence depends on its "
                "batch: beside a longer sentence, which means padding, its five vectors differ by "
                "a tenth from those of the sentence alone.",
            ),
            Bug(
                "ch07_encoder.stack_of_one_layer",
                "The model runs six layers and trains, but the file of its weights is too small. "
                "At d_model=24, n_heads=4 and d_ff=48 the encoder has 4,872 parameters, whatever "
                "`n_layers` is; on paper six layers have 29,232.",
            ),
            Bug(
                "ch07_encoder.stack_runs_the_last_layer",
                "Six layers take six times as long as one and translate no better. After a day of "
                "training, the weights of the first five are still those that they started with.",
            ),
        ),
        task="""
{symptom}

Find the mistake in the stack below and repair it. The result must pass `check_encoder`.
""",
        hints=(
            "Print something small in every layer: the mask that it gets, the `id` of its "
            "parameters, or how far its input is from the output of the layer before.",
            "`x` is `b t d_model` before and after every layer, so no shape can tell whether a "
            "layer was skipped. The mask is `b 1 1 k` for all layers.",
        ),
        why="""
A stack is a loop of two lines, and each of its mistakes leaves all shapes right. What finds them
are three facts about the whole: padding changes nothing, six layers have six times the parameters
of one, and after one backward pass every parameter has a gradient (but for the bias of the keys,
which the softmax cancels).

Test with at least two layers. With one, all three stacks of this exercise are right.
""",
    ),
    WriteTest(
        id="7.5",
        title="A test for a layer",
        minutes=30,
        difficulty=3,
        trains="testing how parts are put together, without another implementation",
        target="EncoderLayer",
        check="check_encoder_layer",
        at_least=5,
        given="import torch\n\nfrom transformer.residual_norm import PreNorm",
        task="""
Write a test of `EncoderLayer`. It gets an implementation, makes layers with
`implementation(d_model, n_heads, d_ff, dropout, residual)`, of which the last two may be left out,
and raises an error if the implementation is wrong.

Eight implementations that people have really written will be tried. Your test must accept what is
right and refuse **at least 5 of the 8**. You may use the attributes `self_attention`,
`feed_forward` and `residuals`; a residual has a `norm` with `gain` and `bias`.
""",
        solution=test_7_5,
        hints=(
            "What does padding change? Does every parameter get a gradient? What is the mean of a "
            "vector that comes out of a new post-norm layer? If both sublayers add nothing, what "
            "should pre-norm give back? Do two calls in train mode agree with dropout 0.5?",
            "Take `x` 2×5×12 with 3 heads, and a mask 1×1×1×5. To silence a sublayer, set its last "
            "linear layer, `self_attention.w_o` or `feed_forward.w_2`, to zeros: then a pre-norm "
            "layer maps `b t d_model` to the same `b t d_model`.",
        ),
        why="""
At the start gains are 1 and biases 0, so a new layer hides mistakes: two norms that changed places
give exactly the same output. Training reveals them, much too late. So a test sets the weights
itself, to something that makes the answer known, such as a sublayer that adds nothing, or different
for each part, so that a mix-up shows.

Gradients test what outputs cannot: a parameter without one is a part that is not used.
""",
    ),
]
