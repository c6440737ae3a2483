"""The exercises of chapter 2: positional encoding."""

from collections.abc import Callable

import torch
from torch import Tensor

from transformer.course.exercise import Bug, Exercise, FindBug, Predict, WriteBlock, WriteTest
from transformer.positional_encoding import sinusoidal_positions

# --- 2.3 ------------------------------------------------------------------------------------------


def solution_2_3() -> list[bool]:
    """Compare lengths, dot products, distances and means of rows."""
    table = sinusoidal_positions(16, 24)
    lengths = table.norm(dim=-1)
    from_start = (table - table[0]).norm(dim=-1)
    words = torch.randn(8, 24, generator=torch.Generator().manual_seed(0))
    question = words[[1, 0, 2, 3, 4, 5, 6, 7]]
    return [
        torch.allclose(lengths, lengths[0]),
        torch.allclose(table[:, :12], sinusoidal_positions(16, 12)),
        torch.allclose(table[0] @ table[3], table[10] @ table[13]),
        bool(from_start[5] > from_start[4]),
        torch.allclose((words + table[:8]).mean(0), (question + table[:8]).mean(0), atol=1e-6),
    ]


# --- 2.5 ------------------------------------------------------------------------------------------


def test_2_5(implementation: Callable[..., Tensor]) -> None:
    table = implementation(50, 6)
    assert table.shape == (50, 6)
    first = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    torch.testing.assert_close(table[0], first)  # sin 0 and cos 0, in turn

    # A sine and its cosine are a point on a circle, at every position.
    radii = table[:, 0::2] ** 2 + table[:, 1::2] ** 2
    torch.testing.assert_close(radii, torch.ones(50, 3))

    # Three numbers from a calculator: the frequencies are 1, 10000^(-2/6) and 10000^(-4/6).
    torch.testing.assert_close(
        table[1, 0::2], torch.tensor([0.84147, 0.04640, 0.00215]), atol=1e-4, rtol=0
    )

    assert implementation(3, 5).shape == (3, 5), "an odd width has one sine more"


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="2.1",
        title="The table of waves",
        minutes=15,
        difficulty=2,
        trains="from a formula with two indices to a table without loops",
        target="sinusoidal_positions",
        check="check_positions",
        task=r"""
Write `sinusoidal_positions(n_positions, d_model)`, the table `t d_model` of the equation above:

$$P_{t,\,2i} = \sin(\omega_i t) \qquad P_{t,\,2i+1} = \cos(\omega_i t)
\qquad \omega_i = 10000^{-2i/d_\text{model}}$$

- Row 0 is position 0. Sines and cosines alternate: $0, 1, 0, 1, \dots$ in row 0.
- An odd width is allowed. It ends with a sine, whose cosine has no place.
- Compute the angles in double precision, and return `float32`.
- No loops.
""",
        hints=(
            "There are half as many frequencies as features. Make them first, from the even "
            "numbers 0, 2, 4, … Then every position times every frequency gives all angles at "
            "once. Two assignments put the sines and the cosines into an empty table.",
            "`even` is `d_model / 2` numbers, rounded up, and so is `frequency`. The angles are "
            '`t i`, `einsum(positions, frequency, "t, i -> t i")`. `table[:, 0::2]` has the same '
            "shape; `table[:, 1::2]` has one column fewer if the width is odd.",
        ),
        why=r"""
A sine and its cosine share one frequency, so together they are the tip of a clock hand. That is
what makes a shift by three positions the same rotation everywhere. If each of the features had a
frequency of its own, as in code that writes the exponent as $i/d_\text{model}$ for every feature
$i$, the table would look almost the same in a picture. But the dot product of two rows would depend
on where they are, and not only on their distance.

Interleaved or in halves is a mere convention for a new model, since the next layer can learn from
either. For weights that were trained elsewhere it is not: each feature would be read by the wrong
weights.
""",
    ),
    WriteBlock(
        id="2.2",
        title="Adding positions",
        minutes=10,
        difficulty=1,
        trains="buffers, slices along the right axis, and refusing what does not fit",
        target="PositionalEncoding",
        check="check_positional_encoding",
        task="""
Write the module `PositionalEncoding(d_model, max_len)`.

- Its constructor computes `table`, `t d_model` with `max_len` rows. The table must move with the
  model when it is sent to a GPU, but it is neither trained nor saved.
- `forward(x, start=0)` gets `x`, `b t d_model`, and adds the rows start, start + 1, … to the words
  of every sentence.
- Positions beyond the table raise a `ValueError` that names the length and `max_len`.
""",
        hints=(
            "A module has three places for a tensor. A parameter is trained and moves, a plain "
            "attribute does neither, and a buffer moves without being trained: "
            "`register_buffer`, with `persistent=False` so that it is not saved. In `forward`, "
            "only a slice of the table is needed.",
            "`x` is `b t d_model`, so the number of words is `x.shape[1]`. The slice of the table "
            "is `t d_model`, and it broadcasts over the batch.",
        ),
        why="""
Code with time in front, `t b d_model`, slices the table by `x.size(0)`; PyTorch's tutorial
*Language Modeling with nn.Transformer* does so, and there it is right. With the batch in front, the
same line runs without an error, and gives every word of sentence 3 the position 3. Write the axis
that you mean, and test with a batch whose size is not the number of words.

A slice of a tensor never complains: `table[18:23]` of 20 rows has two. For a batch of one word the
sum would even broadcast. That is why the length is compared before the slice is taken.
""",
    ),
    Predict(
        id="2.3",
        title="What two positions have in common",
        minutes=10,
        difficulty=2,
        trains="which properties of the table the model can rely on",
        form="five truth values",
        task=r"""
Take `sinusoidal_positions` with 24 features, that is 12 clock hands. True or false?

1. All rows have the same length $\sqrt{P_t \cdot P_t}$.
2. Its first 12 columns are the table for 12 features.
3. The dot product of rows 0 and 3 equals that of rows 10 and 13.
4. Row 5 is further away from row 0 than row 4 is.
5. Take the eight word vectors of *there is a cat on the mat* `</s>`. Swap the first two, *is there
   a cat …*, and add the same eight rows of positions to both sentences. The **mean** over the eight
   sums is the same for both.

Write down your five answers first. Then run the cell below.
""",
        solution=solution_2_3,
        mistakes={
            "Item 2: the frequencies are 10000^(-2i/d_model), so they depend on the width. With "
            "half the features, every second hand is left, not the first half of them.": [
                True,
                True,
                True,
                False,
                True,
            ],
            "Item 4: a fast hand that went almost all the way round is close to its start again. "
            "After 5 positions the first hand is nearer than after 4.": [
                True,
                False,
                True,
                True,
                True,
            ],
            "Item 5: the mean of a sum is the sum of the means, and neither mean depends on the "
            "order.": [True, False, True, False, False],
            "Item 3: every hand turns at a constant speed. The dot product is the sum of the "
            "cosines of the angles between hands, and these depend on the distance only.": [
                True,
                False,
                False,
                False,
                True,
            ],
        },
        hints=(
            "Each pair of features is a clock hand of length 1. Rows compare hand by hand: the dot "
            "product of two hands is the cosine of the angle between them. The first hand turns by "
            "1 radian per position, and a full turn is 6.28 radians.",
            "A row is `d_model` = 24 numbers, or 12 hands with two numbers each. The mean over "
            "the words goes from `t d_model` to `d_model`, and a sum has no order.",
        ),
        why=r"""
Every row has length $\sqrt{12}$, and dot products depend on distance alone: no position is special.
But similarity does not fade steadily. The distances from row 0 are 1.1, 2.0, 2.5 and 2.6 for the
first four rows, then 2.5 and 2.4 for rows 5 and 6, because the fastest hand comes round.

The last answer is why positions have to come *before* attention. Adding them and taking a plain
mean would achieve nothing: the order is lost again. What can use them is a layer in which one
row's position decides how much of another row is taken, and that is the next chapter.
""",
    ),
    FindBug(
        id="2.4",
        title="Right in training, wrong in use",
        minutes=10,
        difficulty=2,
        trains="thinking of the other ways in which a module will be called",
        target="PositionalEncoding",
        bugs=(
            Bug(
                "ch02_positional_encoding.encoding_ignores_start",
                "Training goes well, and so does the loss on the validation set. But translations, "
                "which are generated one token at a time, are wrong from the second word on.",
            ),
            Bug(
                "ch02_positional_encoding.encoding_along_the_batch",
                "The model treats sentences as bags of words. And a translation depends on the "
                "place of its sentence in the batch: put first or third, it comes out differently.",
            ),
            Bug(
                "ch02_positional_encoding.encoding_too_short",
                "All is well up to `max_len` tokens. Longer sentences do not raise an error, but "
                "their end is translated as if the words there had no order.",
            ),
            Bug(
                "ch02_positional_encoding.encoding_left_behind",
                "All tests pass on the CPU. On a GPU, `model.to('cuda')` is followed by an error "
                "in the first step: tensors are on two devices.",
            ),
            Bug(
                "ch02_positional_encoding.encoding_learned",
                "The model has more parameters than the paper's formulas say, and after training "
                "the positions are no longer sines. Rows near `max_len`, which hardly any sentence "
                "reached, are as they were.",
            ),
        ),
        task="""
{symptom}

Find the mistake in the class below and repair it. The result must pass
`check_positional_encoding`, so it must also work from any `start`, refuse positions beyond the
table, and move with the model.
""",
        hints=(
            "Give it zeros, so that only positions are left. Is row t of every sentence row t of "
            "the table? And row start + t with a `start`? What happens just beyond the table, and "
            "what does `list(module.parameters())` show?",
            "`x` is `b t d_model` and the table `t d_model`. What is added has the axis `t` of "
            "`x`; it is the slice from `start` to `start + t`.",
        ),
        why="""
In training the module always sees a whole sentence that begins at 0, on one device, with a length
below the limit. Every one of these mistakes is invisible there. Ask of a layer how else it will be
called: with one token, with another device, with too much, in a batch of another size.
""",
    ),
    WriteTest(
        id="2.5",
        title="A test for waves",
        minutes=15,
        difficulty=2,
        trains="testing a formula by its properties, and by two or three numbers from paper",
        target="sinusoidal_positions",
        check="check_positions",
        at_least=3,
        given="import torch",
        task="""
Write a test of `sinusoidal_positions`. It gets an implementation and calls it as
`implementation(n_positions, d_model)`. It raises an error if the table is wrong; `assert` is
enough.

Four tables that people have really written will be tried. Your test must accept what is right and
refuse **at least 3 of the 4**. Do not copy the formula into the test, or you may copy a mistake
along with it: use row 0, a property that holds in every row, and numbers from a calculator.
""",
        solution=test_2_5,
        hints=(
            "Row 0 is known without a calculator. For all other rows: what do the square of a sine "
            "and the square of its cosine sum to? And which widths must work?",
            "The table is `t d_model`. `table[:, 0::2]` and `table[:, 1::2]` are both `t i` with "
            "i = `d_model / 2`: column i of one belongs to column i of the other.",
        ),
        why=r"""
Row 0 finds tables that begin with position 1, and those with all sines first. It cannot find a
wrong frequency, since $\sin 0 = 0$ at every frequency. For that you need a property of the other
rows: $\sin^2 + \cos^2 = 1$ holds only if both have the same angle. And only a call with an odd
width finds the fourth mistake, which is a crash.
""",
    ),
]
