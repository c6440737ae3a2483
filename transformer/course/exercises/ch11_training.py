"""The exercises of chapter 11: training."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from transformer.course.exercise import Bug, ByHand, Exercise, FindBug, WriteBlock, WriteTest
from transformer.training import label_smoothed_loss

# --- 11.4 -----------------------------------------------------------------------------------------

BITS = torch.tensor(
    [[4.0, 1.0, 2.0, 3.0, 4.0], [3.0, 3.0, 2.0, 2.0, 2.0], [4.0, 4.0, 1.0, 2.0, 3.0]]
)
LABELS = torch.tensor([1, 4, 0])


def bits(rows: slice, smoothing: float = 0.2) -> float:
    """Return the loss of some positions in bits a token; id 0 is padding."""
    logits = -math.log(2) * BITS[rows]
    return label_smoothed_loss(logits, LABELS[rows], 0, smoothing).item() / math.log(2)


def solution_11_4() -> list[float]:
    """Compute each position alone, then all three, then all three without smoothing."""
    return [bits(slice(0, 1)), bits(slice(1, 2)), bits(slice(0, 3)), bits(slice(0, 3), 0.0)]


# --- 11.6 -----------------------------------------------------------------------------------------


def test_11_6(implementation: Callable[..., Tensor]) -> None:
    # Eight words and padding, which has the id 3 here; id 0 is a word like any other.
    logits = torch.randn(2, 5, 9)
    labels = torch.tensor([[4, 8, 0, 2, 1], [6, 2, 3, 3, 3]])
    real = labels != 3

    # An even guess among 9 has the loss log 9, whatever the labels are.
    even = implementation(torch.zeros(2, 5, 9), labels, 3, 0.1)
    assert math.isclose(even.item(), math.log(9), rel_tol=1e-5), "not a mean over the real tokens"

    other = logits.clone()
    other[~real] = torch.randn(3, 9)
    before = implementation(logits, labels, 3, 0.1)
    torch.testing.assert_close(implementation(other, labels, 3, 0.1), before)

    # Certain and right: without smoothing the loss is 0, and with it, it is not.
    certain = 20.0 * torch.nn.functional.one_hot(labels, 9)
    assert implementation(certain, labels, 3, 0.0) < 0.01
    assert implementation(certain, labels, 3, 0.4) > 1

    # That padding is impossible costs nothing.
    never = logits.clone()
    never[..., 3] = -1000.0
    assert implementation(never, labels, 3, 0.1) < 10, "smoothing gives padding a share"

    assert implementation((100 * logits).half(), labels, 3, 0.1).isfinite(), "float16 overflows"


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="11.1",
        title="The loss",
        minutes=20,
        difficulty=2,
        trains="cross-entropy from logits, with smoothing and without padding",
        target="label_smoothed_loss",
        check="check_loss",
        task="""
Write `label_smoothed_loss`.

- `logits` are `... vocab`, `labels` are `...`. The result is one number, in nats a token.
- Positions whose label is `pad_id`, or PyTorch's −100, do not count, neither in the sum nor in the
  number by which it is divided. They get no gradient.
- The label gets `1 - smoothing`. `smoothing` is shared equally by all words of the
  vocabulary that are not `pad_id`, the label included.
- It is computed in float32, also from float16 logits.
""",
        hints=(
            "First select the positions that are real; then nothing has to be masked later. Their "
            "log-probabilities come from `log_softmax`. The loss is a weighted sum of two: the "
            "label's, and that of all words but padding.",
            "With `real = (labels != pad_id) & (labels != -100)`, `logits[real]` is `n vocab`. "
            "`gather` takes one log-probability from each "
            "row: its index must be `n 1`. A sum over vocab, without column `pad_id`, is `n`.",
        ),
        why="""
Each detail is a mistake that somebody has made. PyTorch's own `label_smoothing` gives padding a
share, so the model learns to expect it in mid-sentence. A sum that is divided by all positions
falls when there is more padding. And `exp` of a float16 logit overflows above 11, so the softmax is
computed in float32.

`log_softmax` is more than a logarithm after a softmax: it subtracts the largest logit first, so a
probability that is 0 in floating point still has a logarithm.
""",
    ),
    WriteBlock(
        id="11.2",
        title="The learning rate",
        minutes=10,
        difficulty=1,
        trains="warm-up and decay in one formula",
        target="learning_rate",
        check="check_schedule",
        task="""
Write `learning_rate`.

- `step` counts from 1.
- The rate rises linearly until it is `peak` at step `warmup`. Then it falls with the inverse square
  root: at four times `warmup` it is half of `peak`.
- `warmup` may be 0. Then the first step has the rate `peak`, and the fourth half of it.
""",
        hints=(
            "There are two curves that meet at `step = warmup`: a straight line through 0, and one "
            "over a square root. On each side of the meeting point, which of the two is smaller?",
            "`peak * min(rising, falling)`, where both are 1 at `step = warmup`: one is step / "
            "warmup, the other √(warmup / step). With `max(warmup, 1)` there is no division by 0.",
        ),
        why="""
Steps count from 1, so the first batch has a rate above 0. If they counted from 0, the first batch
would be read for nothing, and the paper's own formula would compute `0 ** -0.5`.

The decay is slow: after 100 times the warm-up the rate is still a tenth of the peak. An exponential
that halves every `warmup` steps would be $2^{99}$ times smaller than its peak by then.
""",
    ),
    WriteBlock(
        id="11.3",
        title="One step of training",
        minutes=30,
        difficulty=2,
        trains="the order of things in a training loop",
        target="Trainer.step",
        check="check_trainer",
        task="""
Write the method `Trainer.step`. It learns from one or several batches *together* and returns their
loss, as a float.

- Step number `self.steps + 1` has the rate `learning_rate(step, config.warmup, config.peak_lr)`,
  which is the `"lr"` of every group in `self.optimizer.param_groups`.
- The model is in train mode. `self.loss(model, batch, config.label_smoothing)` is the mean loss of
  a batch. Several batches must give the gradient of one batch that holds them all, so weigh each by
  its share of `n_tokens`.
- If the loss is not finite, raise a `FloatingPointError` that names the step, before any weight is
  changed.
- If `config.max_grad_norm` is finite, clip the whole gradient to it.
- Afterwards `self.steps` is one more, and `self.update_ema()` has been called.
""",
        hints=(
            "The chapter has the loop from top to bottom. For each batch there is one backward "
            "pass, which adds to the gradients; everything else happens once a step. What must be "
            "done before the first batch, and what after the last?",
            "With n tokens of N in a batch, `(n / N * loss).backward()`. All losses of a step add "
            "up to one number. `nn.utils.clip_grad_norm_(parameters, max_norm)` changes the "
            "gradients in place.",
        ),
        why="""
Gradients *add up* in PyTorch. Between batches of a step that is what you want; between steps it
must be undone, or every step repeats the direction of all before it. The rate, the clipping, Adam,
the counter and the average come once a step, however many batches it has.

A mean of means is not the mean. With 6 and 3 tokens, each token of the short batch would count
twice as much as one of the long batch, and how sentences are grouped would change what is learned.
""",
    ),
    ByHand(
        id="11.4",
        title="A smoothed loss on paper",
        minutes=10,
        difficulty=1,
        trains="cross-entropy, smoothing, and a mean that leaves padding out",
        form="four numbers, in bits",
        task="""
A model gives these probabilities at three positions. The vocabulary has five entries, and the label
of the last position is padding.

| position | `<pad>` | il | un | gatto | tappeto | label |
|---|---|---|---|---|---|---|
| 0 | 1/16 | 1/2 | 1/4 | 1/8 | 1/16 | il |
| 1 | 1/8 | 1/8 | 1/4 | 1/4 | 1/4 | tappeto |
| 2 | 1/16 | 1/16 | 1/2 | 1/4 | 1/8 | `<pad>` |

Count in bits: a word with the probability 1/2 costs 1 bit, with 1/4 it costs 2, and so on. The
smoothing is 0.2: the label gets 0.8, and 0.2 is shared by the four words, the label included.

Compute the loss of position 0, the loss of position 1, the loss of all three positions together,
and the same without smoothing.
""",
        solution=solution_11_4,
        mistakes={
            "Padding gets no share: 0.2 is shared by 4 words, 0.05 each.": [1.36, 2.08, 1.72, 1.5],
            "The mean is over the two tokens that are not padding.": [1.3, 2.05, 3.35 / 3, 1.0],
            "The label has its part of the 0.2, too: it gets 0.85 in all.": [
                1.4,
                0.8 * 2 + 0.2 / 3 * 7,
                (1.4 + 0.8 * 2 + 0.2 / 3 * 7) / 2,
                1.5,
            ],
            "It is the mean over the tokens, not their sum.": [1.3, 2.05, 3.35, 3.0],
        },
        hints=(
            "The loss of a position is 0.8 × the cost of the label + 0.05 × the costs of all four "
            "words. The probability of padding is in the table, but its cost is not counted.",
            "Position 0 costs 4, 1, 2, 3, 4 bits, so its loss is 0.8·1 + 0.05·(1 + 2 + 3 + 4). The "
            "mean has as many terms as there are labels that are not padding.",
        ),
        why="""
The loss of the batch is 1.675 bits a token, or 1.16 nats. Divided by three positions it would seem
to be 1.12 bits, and with more padding less still: a model would look better in worse batches.

With smoothing even the best model pays something: the entropy of the smoothed label, here 0.85 bits
a token. So compare losses only if they have the same smoothing.
""",
    ),
    FindBug(
        id="11.5",
        title="The curve looks strange",
        minutes=15,
        difficulty=2,
        trains="from a learning curve to the line that is wrong",
        target="Trainer",
        bugs=(
            Bug(
                "ch11_training.trainer_means_of_batches",
                "The validation loss of one and the same model on the same sentences depends on "
                "`max_tokens`, that is, on how the sentences are grouped into batches.",
            ),
            Bug(
                "ch11_training.trainer_ema_keeps_the_initial_weights",
                "The training loss falls as it should. The validation loss stays where it was at "
                "the first step, near the logarithm of the size of the vocabulary.",
            ),
            Bug(
                "ch11_training.trainer_validates_with_dropout",
                "Two validations in a row, with no training between them, give different losses, "
                "and both are worse than they should be.",
            ),
            Bug(
                "ch11_training.trainer_steps_schedule_per_micro_batch",
                "With `accumulate=4`, the warm-up of 1,000 steps is over after 250, and the run "
                "ends after a quarter of its steps. With `accumulate=1` all is well.",
            ),
            Bug(
                "ch11_training.trainer_without_clipping",
                "Now and then an unusual batch makes the loss jump, whatever `max_grad_norm` is "
                "set to.",
            ),
        ),
        task="""
{symptom}

The class below changes the chapter's `Trainer` in one place. Find the mistake and repair it. The
result must pass `check_trainer`.
""",
        hints=(
            "Which of the trainer's parts does the symptom speak of: the loss, the rate, the "
            "gradient, the average of the weights, or validation? Compare only this part with the "
            "chapter.",
            "A validation loss is a sum over all tokens of all batches, divided by their number. A "
            "step has one rate, one gradient and one update of the average, however many batches "
            "it is given.",
        ),
        why="""
Such mistakes raise no error, and the model learns all the same, only worse. Experiments that should
make no difference reveal them: the same sentences in other batches, the same step as two halves,
validation twice in a row, a setting at an extreme value.
""",
    ),
    WriteTest(
        id="11.6",
        title="A test for a loss",
        minutes=25,
        difficulty=3,
        trains="inputs for which the right loss is known in advance",
        target="label_smoothed_loss",
        check="check_loss",
        at_least=6,
        given="import math\n\nimport torch",
        task="""
Write a test of `label_smoothed_loss`. It gets an implementation, calls it as
`implementation(logits, labels, pad_id, smoothing)`, and raises an error if it is wrong.

Nine implementations that people have really written will be tried. Your test must accept what is
right and refuse **at least 6 of the 9**. Find inputs for which you know the loss, rather than
computing it in another way.
""",
        solution=test_11_6,
        hints=(
            "What is the loss of an even guess? Of a certain and right one, with smoothing and "
            "without? May it change when the logits at padding change? What if padding is "
            "impossible everywhere? Use a `pad_id` that is not 0, and a label that is.",
            "Take logits 2×5×9 and labels 2×5, three of which are padding. Logits that are all 0 "
            "are an even guess among 9, with the loss log 9 = 2.197 for any smoothing.",
        ),
        why="""
The even guess alone refutes three of the nine: a sum, a division by all positions, and a KL
divergence, which is smaller by the entropy of the smoothed label. It also tells you what the first
loss of a training run should be near.

A padding id of 3, and a real label 0, cost nothing and refute a fourth: code that was written for
another vocabulary.
""",
    ),
]
