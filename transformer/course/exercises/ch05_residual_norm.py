"""The exercises of chapter 5: residual connections and layer norm."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from transformer.course.exercise import Bug, ByHand, Exercise, FindBug, WriteBlock, WriteTest

# --- 5.3 ------------------------------------------------------------------------------------------

X = (1.0, 1.0, 5.0, 5.0)
GAIN = (1.0, 1.0, 2.0, 0.5)
BIAS = (0.0, 1.0, 0.0, 0.0)


def normed(x: Sequence[float], count: int = 4, power: float = 0.5) -> list[float]:
    """Normalise on paper; another count than d, or power than the root's, is a mistake."""
    mean = sum(x) / len(x)
    variance = sum((number - mean) ** 2 for number in x) / count
    return [(number - mean) / variance**power for number in x]


def solution_5_3(
    layers: int = 2, adds: str = "x", count: int = 4, power: float = 0.5
) -> list[float]:
    """Normalise, then go through two layers of post-norm and of pre-norm with f(y) = 2y."""
    scaled = zip(GAIN, normed(X, count, power), BIAS, strict=True)
    post = list(X)
    pre = list(X)
    for _ in range(layers):
        post = normed([number + 2 * number for number in post], count, power)
        branch = normed(pre, count, power)
        path = pre if adds == "x" else branch
        pre = [a + 2 * b for a, b in zip(path, branch, strict=True)]
    return [*(g * number + b for g, number, b in scaled), post[0], post[-1], pre[0], pre[-1]]


def changed_places() -> list[float]:
    """Take pre-norm for post-norm, and the other way round."""
    right = solution_5_3()
    return [*right[:4], *right[6:], *right[4:6]]


# --- 5.5 ------------------------------------------------------------------------------------------


def test_5_5(implementation: Callable[..., Tensor]) -> None:
    x = 3 * torch.randn(2, 5, 4) + 1
    out = implementation(x, torch.ones(4), torch.zeros(4), 1e-5)
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, 5), atol=1e-4, rtol=0)
    alone = implementation(x[1:, 2:3], torch.ones(4), torch.zeros(4), 1e-5)
    torch.testing.assert_close(alone, out[1:, 2:3])  # a word does not depend on other words

    # From paper: the mean is 3 and the standard deviation 2.
    row = torch.tensor([1.0, 1.0, 5.0, 5.0])
    gain = torch.tensor([1.0, 1.0, 2.0, 0.5])
    bias = torch.tensor([0.0, 1.0, 0.0, 0.0])
    want = torch.tensor([-1.0, 0.0, 2.0, 0.5])
    torch.testing.assert_close(implementation(row, gain, bias, 1e-5), want, atol=1e-4, rtol=0)

    # The variance is 1e-6, so inside the root eps outweighs it: 0.001 / √0.000011.
    tiny = torch.tensor([-0.001, -0.001, 0.001, 0.001])
    last = implementation(tiny, torch.ones(4), torch.zeros(4), 1e-5)[3].item()
    assert math.isclose(last, 0.001 / math.sqrt(1.1e-5), rel_tol=0.01), "eps is inside the root"


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="5.1",
        title="Layer norm",
        minutes=10,
        difficulty=1,
        trains="mean and variance over the right axis, and eps in its place",
        target="layer_norm",
        check="check_layer_norm",
        task=r"""
Write the function `layer_norm(x, gain, bias, eps=1e-5)`:

$$\frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} \odot g + b$$

- `x` is `... d_model`: any number of axes may stand in front of the features.
- `gain` and `bias` have `d_model` numbers each.
- Each vector has its own mean $\mu$ and its own variance $\sigma^2$, and the variance divides by
  $d$.
- Do not call `F.layer_norm`.
""",
        hints=(
            "Subtract the mean of each vector first. The variance is the mean of the squares of "
            "what is left. PyTorch's `std` and `var` divide by d - 1 unless you pass "
            "`correction=0`.",
            "`x` is `... d_model`, and the mean is `... 1` if you pass `keepdim=True`. Without it "
            "the mean of a batch is `b t`, which broadcasts along the wrong axis, or not at all.",
        ),
        why=r"""
A standard deviation that divides by $d - 1$ makes all numbers too small by a factor of
$\sqrt{(d-1)/d}$: 13 % at $d = 4$, 2 % at 24, 0.1 % at 512. A model trained with it is as good as
any. But weights that were trained elsewhere then give almost the right results, and the cause of a
difference that small is hard to find.

With $\varepsilon$ beside $\sigma$ instead of inside the root, a vector of zeros is divided by
$10^{-5}$ and not by $\sqrt{10^{-5}}$, and its gradient is 316 times as large.
""",
    ),
    WriteBlock(
        id="5.2",
        title="Post-norm",
        minutes=10,
        difficulty=1,
        trains="the order of sublayer, dropout, sum and norm",
        target="PostNorm",
        check="check_residual",
        options={"placement": "post"},
        task=r"""
Write the module `PostNorm(d_model, dropout=0.0)`:

$$\operatorname{LayerNorm}(x + \operatorname{Dropout}(\operatorname{sublayer}(x)))$$

- It has `norm`, a `LayerNorm` of this chapter, and `dropout`, an `nn.Dropout`.
- `forward(x, sublayer)` gets `x`, `b t d_model`, and a function `sublayer` that keeps this shape.
- The class attribute `final` stays as it is.
""",
        hints=(
            "Work from the inside to the outside: call the sublayer, drop a part of what it "
            "returned, add x itself, and normalise the sum. Only one of these steps knows about "
            "training and evaluation, and `nn.Dropout` takes care of it.",
            "Every step keeps `b t d_model`. `LayerNorm(d_model)` normalises the last axis.",
        ),
        why="""
Dropout belongs to what the sublayer *added*. If it were on the sum, then with a rate of 0.1 every
feature of x would have to survive 12 draws in a row on its way through 12 sublayers, and only 28 %
would. The residual is there so that x itself always comes through.

You can tell the two placements apart without reading code: pass a sublayer that returns zeros.
Pre-norm returns x, and post-norm the norm of x.
""",
    ),
    ByHand(
        id="5.3",
        title="Two layers on paper",
        minutes=10,
        difficulty=1,
        trains="the formula of the norm, and what its place does to the size of numbers",
        form="eight numbers: four of part 1, two of part 2, two of part 3",
        task=r"""
Take the four features $x = (1, 1, 5, 5)$, and leave out $\varepsilon$.

1. What is $\operatorname{LayerNorm}(x)$ with the gain $(1, 1, 2, 0.5)$ and the bias
   $(0, 1, 0, 0)$? (four numbers)

Now every gain is 1 and every bias 0, and the sublayer doubles what it gets: $f(y) = 2y$. Apply
**two** layers, one after the other, and give the first and the last of the four features of the
result,

2. with post-norm, $\operatorname{LayerNorm}(x + f(x))$,
3. with pre-norm, $x + f(\operatorname{LayerNorm}(x))$, without a norm at the end of the stack.
""",
        solution=solution_5_3,
        mistakes={
            "The variance divides by d = 4. You have divided by d - 1 = 3, as torch.std does.": (
                solution_5_3(count=3)
            ),
            "It divides by the variance, 4: divide by its root, 2.": solution_5_3(power=1.0),
            "Parts 2 and 3 are those of one layer: apply two.": solution_5_3(layers=1),
            "In pre-norm the sum takes x as it came, not the normed x.": solution_5_3(adds="norm"),
            "Pre-norm and post-norm have changed places.": changed_places(),
        },
        hints=(
            "The mean of x is 3, and each feature is 2 away from it. Multiplying all features by "
            "the same number does not change what the norm returns.",
            "Every vector has `d_model` = 4 features, and the mean and the variance are one "
            "number each. The norm of any vector $(a, a, b, b)$ with a < b is $(-1, -1, 1, 1)$.",
        ),
        why="""
After two layers, post-norm still has features of size 1. Pre-norm has 9, and every further layer of
this kind adds 2: nothing on its main path ever makes a number smaller. So a stack of pre-norm
layers ends with one more norm.

It also means that in pre-norm a layer counts for less the later it comes. The first layer here
changes 5 to 7, and the 24th changes 51 to 53.
""",
    ),
    FindBug(
        id="5.4",
        title="Around the sublayer",
        minutes=10,
        difficulty=2,
        trains="probing a module with a sublayer that you choose",
        target="PostNorm",
        bugs=(
            Bug(
                "ch05_residual_norm.post_norm_drops_the_sum",
                "Without dropout it is right, and in eval mode too. In training with dropout, even "
                "a sublayer that returns zeros gives another result at each call, and deep stacks "
                "train badly.",
            ),
            Bug(
                "ch05_residual_norm.post_norm_drops_in_eval",
                "The loss falls as it should. But after `model.eval()` the same sentence still "
                "gets another translation at each call.",
            ),
            Bug(
                "ch05_residual_norm.post_norm_without_sum",
                "In a stack of 24 layers the numbers have a healthy size, and every layer gets a "
                "gradient. But at the top all words of a sentence have the same vector.",
            ),
            Bug(
                "ch05_residual_norm.post_norm_with_final_norm",
                "Each layer gives what PyTorch's layer with the same weights gives. A stack of six "
                "does not, and it has a gain and a bias too many.",
            ),
        ),
        task="""
{symptom}

Find the mistake in the class below and repair it. The result must pass `check_residual`: in train
mode and in eval mode, and with the right layer at the end of a stack.
""",
        hints=(
            "Choose sublayers whose results you know: one that returns zeros, and one that returns "
            "its input. Set dropout to 0.9, and compare train mode with eval mode. Look at "
            "`final` as well.",
            "All steps keep `b t d_model`. With a sublayer of zeros the result must be `norm(x)`, "
            "in both modes and at any dropout.",
        ),
        why="""
A sublayer of zeros is a probe: whatever it shows comes from the wrapper alone. Replace the part
that you do not suspect by the simplest thing that fits, and what remains is small enough to be
understood.

And test both modes. Dropout that is left on in evaluation, as `F.dropout` without
`training=self.training` is, spoils every translation a little, and no loss in training can show it.
""",
    ),
    WriteTest(
        id="5.5",
        title="A test for a norm",
        minutes=20,
        difficulty=3,
        trains="choosing inputs at which a small mistake becomes large",
        target="layer_norm",
        check="check_layer_norm",
        at_least=3,
        given="import math\n\nimport torch",
        task="""
Write a test of `layer_norm`. It gets an implementation, calls it as
`implementation(x, gain, bias, eps)`, and raises an error if the result is wrong; `assert` is
enough. Do not call PyTorch's own layer norm.

Four implementations that people have really written will be tried. Your test must accept what is
right and refuse **at least 3 of the 4**.
""",
        solution=test_5_5,
        hints=(
            "Use a vector whose norm you know from paper, with a gain and a bias that are not 1 "
            "and 0. A narrow vector makes a wrong divisor large. For eps, use a vector that is so "
            "small that eps matters.",
            "The result has the shape of `x`, `... d_model`. Take `d_model` = 4, where d and d - "
            "1 differ most visibly, and `x` 2×5×4, whose vectors must not influence each other.",
        ),
        why=r"""
At a width of 512 and with numbers around 1, two of the four mistakes change the result by less than
0.1 %, and a test with a generous tolerance accepts them. At a width of 4 the wrong divisor is 13 %
off. And at numbers of size 0.001, $\varepsilon$ beside $\sigma$ gives 0.99 where 0.30 is right.
So a test needs inputs that are chosen for the mistake, next to random ones.
""",
    ),
]
