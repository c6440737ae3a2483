"""The exercises of chapter 1: embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.course.exercise import Bug, ByHand, Exercise, FindBug, Predict, WriteBlock
from transformer.embeddings import TokenEmbedding

# --- 1.2 ------------------------------------------------------------------------------------------


def solution_1_2() -> list[int]:
    """Count the rows with a gradient for three losses, and compare two rows for a fourth."""
    ids = torch.tensor([[2, 3, 4, 5, 6, 7, 8, 1], [9, 10, 11, 12, 13, 1, 0, 0]])
    real = ids != 0
    embedding = TokenEmbedding(20, 24)
    x = embedding(ids)

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, embedding.weight, retain_graph=True)[0]

    logits = x @ embedding.weight.T
    losses = [
        x.square().sum(),
        x[real].square().sum(),
        F.cross_entropy(logits[real], ids[real]),
    ]
    rows = [int(gradient(loss).any(dim=1).sum()) for loss in losses]
    end, cat = gradient(x.sum())[[1, 5]]
    return [*rows, round((end.sum() / cat.sum()).item())]


# --- 1.3 ------------------------------------------------------------------------------------------

ROWS = {"cat": (1.0, 0.0, -0.5, 0.5), "mat": (0.5, 1.0, 0.0, -1.0), "on": (-1.0, 0.5, 0.5, -0.5)}


def solution_1_3(at_input: float = 2.0, at_output: float = 1.0) -> list[float]:
    """Multiply the row of *mat* by √4 = 2, then take its dot product with every row."""
    x = [at_input * number for number in ROWS["mat"]]
    logits = [sum(a * b for a, b in zip(x, row, strict=True)) for row in ROWS.values()]
    return [*x, *(at_output * logit for logit in logits)]


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="1.1",
        title="The table of embeddings",
        minutes=10,
        difficulty=1,
        trains="lookup, scale and initialisation, which only fit together",
        target="TokenEmbedding",
        check="check_embedding",
        task=r"""
Write `TokenEmbedding(vocab_size, d_model)`.

- It has one parameter, `weight`: the table, `vocab d_model`, with one row for each token of the
  vocabulary. Its numbers start as random numbers from $\mathcal{N}(0, 1/d_\text{model})$, so their
  standard deviation is $1/\sqrt{d_\text{model}}$.
- `forward` gets `ids`, whole numbers `b t`, and returns `b t d_model`: for each id its row, times
  $\sqrt{d_\text{model}}$.
- Do not write a loop, and do not build one-hot vectors.
""",
        hints=(
            "A lookup is an index into a tensor, and `F.embedding(ids, table)` is the same. The "
            "numbers 1/√d_model (in the constructor) and √d_model (in forward) belong together: "
            "their product is 1. `torch.randn` draws numbers of standard deviation 1.",
            "`weight` is `vocab d_model`, wrapped in `nn.Parameter`. `ids` is `b t`, and indexing "
            "puts a row of `d_model` numbers in the place of every id: `b t d_model`. The width "
            "is `self.weight.shape[-1]`.",
        ),
        why=r"""
What goes into the model has entries of size 1, next to positions of size 0.71. What stands in the
table has entries of size $1/\sqrt{d_\text{model}}$, as chapter 9 needs it when it reads the table
backwards to get logits of size 1. One table can serve both only because of the factor between them.

`nn.Embedding` draws its rows from $\mathcal{N}(0, 1)$. With the factor $\sqrt{512} = 22.6$ on top,
and the table tied to the output, a model of 8,000 words starts with a loss of about 86. To guess
would cost $\ln 8000 = 9.0$.
""",
    ),
    Predict(
        id="1.2",
        title="Which rows learn?",
        minutes=10,
        difficulty=1,
        trains="how a gradient finds the rows of a table, from the input and from the output",
        form="four numbers",
        task=r"""
A table has 20 rows with 24 features each. The batch, two sentences of eight tokens, is

| | | | | | | | |
|---|---|---|---|---|---|---|---|
| there | is | a | cat | on | the | mat | `</s>` |
| i | love | you | very | much | `</s>` | `<pad>` | `<pad>` |

The other six words of the vocabulary do not occur. `x` is the result of `TokenEmbedding`,
2×8×24. **How many of the 20 rows** get a gradient, if the loss is

1. the sum of the squares of all numbers of `x`,
2. the same, but only over the 14 tokens that are not `<pad>`,
3. the cross-entropy of the logits $xE^\top$ at these 14 tokens, with the same table $E$?
4. Now the loss is the plain sum of all numbers of `x`. How many **times as large** is the gradient
   of the row `</s>` as that of the row *cat*?

Write down your four numbers first. Then run the cell below.
""",
        solution=solution_1_2,
        mistakes={
            "Item 1: `<pad>` is a token like any other. Its row was looked up, so it is trained.": [
                13,
                13,
                20,
                2,
            ],
            "Item 1: count rows, not tokens. A word that occurs twice has one row.": [
                16,
                13,
                20,
                2,
            ],
            "Item 2: what is left out of the loss sends no gradient back, so `<pad>` gets none.": [
                14,
                14,
                20,
                2,
            ],
            "Item 3: the softmax compares the right word with all others. To make the others less "
            "likely, it moves their rows too.": [14, 13, 13, 2],
            "Item 4: the gradients of all places where a row was used are added up.": [
                14,
                13,
                20,
                1,
            ],
        },
        hints=(
            "A row gets a gradient if the loss depends on it. A lookup depends on the rows that "
            "are looked up, and on no other. On which rows does a softmax over all 20 words "
            "depend?",
            "`ids` is `b t` = 2×8 with 14 different ids: seven words and five words, `</s>` and "
            "`<pad>`. The logits are `b t vocab` = 2×8×20, one for each row of the table.",
        ),
        why="""
From the input, a rare word is trained only when it occurs. From the output, every word is trained
at every step, if only to be made less likely. A tied table has both, and this is one reason to tie
it.

Padding trains its own row as soon as a loss can see it: here it would be one eighth of all tokens.
That row is then tuned to a word which says nothing. Chapter 11 therefore leaves padding out of the
loss, and chapter 8 hides it from attention.
""",
    ),
    ByHand(
        id="1.3",
        title="In by the table, and out again",
        minutes=10,
        difficulty=1,
        trains="the two uses of a tied table, with and without the root",
        form="seven numbers: the four features of mat, then the logits of cat, mat and on",
        task=r"""
A table with $d_\text{model} = 4$ has these rows:

| word | row |
|---|---|
| cat | $(1, 0, -0.5, 0.5)$ |
| mat | $(0.5, 1, 0, -1)$ |
| on | $(-1, 0.5, 0.5, -0.5)$ |

1. Which vector $x$ does the embedding layer return for *mat*? (four numbers)
2. The same table is read backwards: $\text{logits} = x E^\top$. What are the logits of *cat*, *mat*
   and *on*? (three numbers)
""",
        solution=solution_1_3,
        mistakes={
            "The row comes as it is: the layer multiplies it by √d_model, here √4 = 2.": (
                solution_1_3(at_input=1.0)
            ),
            "The row is multiplied by d_model = 4: the factor is √d_model.": solution_1_3(
                at_input=4.0
            ),
            "The row is divided by √d: multiply.": solution_1_3(at_input=0.5),
            "The logits are multiplied by √d_model once more: at the output, the table's rows are "
            "used as they are.": solution_1_3(at_output=2.0),
            "The logits are divided by √d: that is attention's divisor, and the output has none.": (
                solution_1_3(at_output=0.5)
            ),
        },
        hints=(
            "First pick a row and multiply it by √d_model. Then compare the result with all three "
            "rows by dot products. The root is used on one of the two ways only.",
            "$x$ is `d_model` = 4 numbers, $E$ is `vocab d_model` = 3×4, and $x E^\\top$ is "
            "`vocab` = 3 numbers, one for each word.",
        ),
        why=r"""
*mat* went in, and *mat* has the highest logit, because a row agrees best with itself. A model with
a tied table thus starts with a tendency to repeat its input, which the layers in between unlearn.

The root is used at the input only. If it were used at the output as well, all logits would be
$\sqrt{512} = 22.6$ times as large: the softmax would give almost everything to one word, and the
model would be very sure of its guesses before it has learned anything.
""",
    ),
    FindBug(
        id="1.4",
        title="The wrong size",
        minutes=10,
        difficulty=2,
        trains="looking at the size of numbers, since no error reports it",
        target="TokenEmbedding",
        bugs=(
            Bug(
                "ch01_embeddings.embedding_not_scaled",
                "The model trains, but at first it hardly tells words apart. After the positions "
                "of chapter 2 are added, with 512 features, two different words at the same place "
                "have a cosine of 0.996. The same word at two places, 3 and 6, has only 0.83.",
            ),
            Bug(
                "ch01_embeddings.embedding_too_loud",
                "The loss begins at about 86 in a model with 512 features and 8,000 words, where "
                "guessing costs 9.0. It then falls steeply, which looks like success. Positions "
                "have almost no effect: the same word at two places has a cosine of 0.999.",
            ),
            Bug(
                "ch01_embeddings.embedding_too_quiet",
                "The first loss is as it should be. But the longer the vocabulary, the weaker the "
                "words: with 512 features and 8,000 words they are half as large as their "
                "positions, and with 37,000 words a quarter.",
            ),
        ),
        task="""
{symptom}

Find the mistake in the class below and repair it. The result must pass `check_embedding`.
""",
        hints=(
            "Make one with 1,000 words and 64 features. Compare two standard deviations with those "
            "of the definition: that of the table, and that of what `forward` returns.",
            "`weight` is `vocab d_model`, with standard deviation 1/√d_model. The result is "
            "`b t d_model`, with standard deviation 1, at every size of vocabulary and every "
            "width.",
        ),
        why=r"""
Shapes were right, the lookup was right, and only a factor was missing or too much. Such a mistake
is found by one line: print the standard deviation of what a layer returns, once, before training.
The first loss is the other line that is worth it. It should be near $\ln(\text{vocab})$, the cost
of guessing among all words; 86 instead of 9.0 means that something is very sure, and wrong.
""",
    ),
]
