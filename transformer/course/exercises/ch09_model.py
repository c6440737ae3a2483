"""The exercises of chapter 9: the whole model."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from transformer.course.exercise import (
    Bug,
    ByHand,
    Exercise,
    FindBug,
    Predict,
    WriteBlock,
    WriteTest,
)
from transformer.model import Config, Transformer

# --- 9.2 ------------------------------------------------------------------------------------------


def solution_9_2(
    heads: int = 1, bias: int = 1, tables: int = 1, decoder_attentions: int = 2
) -> list[int]:
    """Count the parameters of each part, with switches for usual mistakes."""
    attention = heads * 4 * (24 * 24 + bias * 24)
    feed_forward = (24 * 48 + bias * 48) + (48 * 24 + bias * 24)
    norm = 2 * 24
    encoder = 2 * (attention + feed_forward + 2 * norm)
    decoder = 2 * (decoder_attentions * attention + feed_forward + 3 * norm)
    return [attention, feed_forward, encoder, decoder, encoder + decoder + tables * 40 * 24 + 40]


# --- 9.3 ------------------------------------------------------------------------------------------


def solution_9_3() -> list[bool]:
    """Compute the loss of one batch, go backward, and see which parameters have a gradient."""
    torch.manual_seed(0)
    config = Config(40, d_model=24, n_heads=4, n_layers=2, d_ff=48, dropout=0.0)
    model = Transformer(config).eval()
    src = torch.tensor([[10, 11, 12, 13, 14, 15, 16, 2], [20, 21, 22, 23, 24, 2, 0, 0]])
    tgt = torch.tensor([[1, 30, 31, 32, 33, 34, 2], [1, 36, 37, 38, 2, 0, 0]])
    logits = model(src, tgt[:, :-1])
    F.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten(), ignore_index=0).backward()

    rows = model.embedding.weight.grad
    assert rows is not None
    key_bias = model.encoder.layers[0].get_parameter("self_attention.w_k.bias").grad
    positions = model.positions.table.grad
    gradients = [rows[12], rows[39], rows[0], positions, key_bias]
    return [gradient is not None and bool(gradient.abs().max() > 1e-6) for gradient in gradients]


# --- 9.5 ------------------------------------------------------------------------------------------


def test_9_5(implementation: Callable[[Config], Transformer]) -> None:
    config = Config(40, d_model=24, n_heads=4, n_layers=2, d_ff=48, dropout=0.0)
    model = implementation(config)
    src = torch.tensor([[10, 11, 12, 13, 14, 15, 16, 2]])
    tgt = torch.tensor([[1, 30, 31, 32, 33, 34]])
    tables = [p for p in model.parameters() if p.shape == (40, 24)]
    assert len(tables) == 1, "the table is not shared"

    logits = model(src, tgt)
    assert logits.shape == (1, 6, 40)
    assert logits.min() < 0, "these are probabilities"
    torch.testing.assert_close(model.decode(tgt, model.encode(src), src), logits)
    padded = torch.cat([src, torch.zeros_like(src)], dim=1)
    torch.testing.assert_close(model(padded, tgt), logits, atol=1e-5, rtol=1e-4)

    other = tgt.clone()
    other[:, 5] = 17
    for mode in (True, False):
        model.train(mode)
        torch.testing.assert_close(model(src, other)[:, :5], logits[:, :5])

    # One layer attends to a set: only positions tell it that two words have changed places.
    shallow = implementation(replace(config, n_layers=1))
    exchanged = tgt[:, [0, 2, 1, 3, 4, 5]]
    moved = (shallow(src, exchanged) - shallow(src, tgt))[:, -1]
    assert moved.abs().max() > 1e-3, "the target has no positions"

    try:
        model(src + 30, tgt)
    except ValueError:
        return
    raise AssertionError("an id outside the vocabulary was accepted")


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="9.1",
        title="The whole model",
        minutes=40,
        difficulty=3,
        trains="putting all parts together from memory",
        target="Transformer",
        check="check_model",
        keep=("embed",),
        task="""
Write `Transformer`; only `embed`, which adds positions to the embedded ids, is given. The class has
about twenty lines.

- `__init__` makes `config`, `embedding` (a `TokenEmbedding`), `positions` (a `PositionalEncoding`
  with room for `config.max_len`), `dropout` (an `nn.Dropout`), `encoder`, `decoder`, and `bias`, a
  parameter of `vocab_size` zeros. `NORMS[config.norm]` is the class of the residuals. At the end it
  calls `self.apply(init_weights)`.
- `encode` returns the memory of the source ids, `b k d_model`.
- `target_mask` returns the mask of the decoder's self-attention, `b 1 t t`. It hides the future and
  padding.
- `decoder_states` returns the decoder's output, `b t d_model`, from target ids, memory and source
  ids.
- `logits` returns $x E^\\top + b$, `... vocab`, where $E$ is the table of the embedding.
- `decode` returns the logits from target ids, memory and source ids. `forward` returns them from
  source ids and target ids.
""",
        hints=(
            "Draw the picture of the chapter first: ids, vectors, memory, states, logits. Each "
            "arrow is a method of one or two lines. `padding_mask` and `causal_mask` of chapter 8 "
            "make the masks from the ids.",
            "`Encoder` and `Decoder` take n_layers, d_model, n_heads, d_ff, dropout and the class "
            "of the residuals. The source mask is `b 1 1 k` and used twice: in `encode` and in "
            "`decoder_states`. The target mask is `t t & b 1 1 t` = `b 1 t t`.",
        ),
        why="""
The masks are made here, from the ids, and nowhere else. A layer that made its own would need to
know about padding, and one that made it only in training would be the best-hidden leak of all.

`logits` uses the table of the embedding itself, not a copy: the two uses train one parameter. And
the model returns logits: with a softmax at its end, the loss would apply another one. The first
loss would be $\\ln(\\text{vocab})$ almost exactly, and it could fall by 1 at most, because
probabilities between 0 and 1 make nearly equal logits.
""",
    ),
    ByHand(
        id="9.2",
        title="How many parameters?",
        minutes=10,
        difficulty=1,
        trains="what each part holds, and what is shared",
        form="five whole numbers",
        tolerance=1e-4,
        task="""
A model has a vocabulary of 40, `d_model` 24, 4 heads, `d_ff` 48 and 2 layers on each side. All
linear layers have a bias, a norm has a gain and a bias, the model is post-norm, and one table
serves three purposes. How many parameters have

1. one multi-head attention,
2. one feed-forward block,
3. the encoder,
4. the decoder,
5. the whole model?
""",
        solution=solution_9_2,
        mistakes={
            "Linear layers have biases: 24×24 weights and 24 biases.": solution_9_2(bias=0),
            "The heads do not have a 24×24 matrix each. They share one: head by head, 6 of its "
            "rows.": solution_9_2(heads=4),
            "A decoder layer has two attentions: to the target, and to the source.": (
                solution_9_2(decoder_attentions=1)
            ),
            "Source, target and logits share one table of 40×24.": solution_9_2(tables=3),
        },
        hints=(
            "An attention has four linear layers, a feed-forward block has two. An encoder layer "
            "has two sublayers and a norm for each, a decoder layer three. What remains are the "
            "table and one number for each token.",
            "A linear layer from n to m has n·m + m parameters: 24·24 + 24 = 600 for each of the "
            "four in attention, and 24 → 48 → 24 in the feed-forward block. A norm has 2·24.",
        ),
        why="""
The number of heads is nowhere in the count: more heads cut the same 24 features into thinner
slices. And a decoder layer is half as large again as an encoder layer, because it attends twice.

Counting is a test. If the tables were not shared, the model would have 27,304 parameters instead of
25,384, and it would still train. At the paper's size the difference is 38 million.
""",
    ),
    Predict(
        id="9.3",
        title="Which parameters learn from a batch?",
        minutes=10,
        difficulty=2,
        trains="what it means that one table is read forwards and backwards",
        form="five truth values",
        task="""
A new model with a vocabulary of 40 reads two pairs, shorter rows padded with id 0. Cross-entropy
ignores labels that are padding. After one backward pass, does it have a **gradient that is not 0**
(up to rounding)?

1. The row of the table for a word that occurs only in a source.
2. The row of the table for a word that occurs nowhere in the batch.
3. The row of the table for `<pad>`.
4. The table of positions.
5. The bias of the keys in the first encoder layer.

Write down your five answers first. Then run the cell below.
""",
        solution=solution_9_3,
        mistakes={
            "Item 2: the table is read backwards, too. Every word has a score at every position, "
            "and training pushes down the scores of all that are not the label.": [
                True,
                False,
                False,
                False,
                False,
            ],
            "Item 3: hidden as a key and ignored as a label, `<pad>` still has a score at every "
            "position, which is pushed down.": [True, True, False, False, False],
            "Item 4: the positions are computed from sines and cosines. They are a buffer, not a "
            "parameter.": [True, True, True, True, False],
            "Item 5: a bias of the keys adds one number to all scores of a query, and the softmax "
            "cancels it.": [True, True, True, False, True],
        },
        hints=(
            "The table is used in three places. In which of them does the loss depend on *all* of "
            "its rows? For item 5 remember chapter 3: what happens when the same vector is added "
            "to every key?",
            "Backwards, the states `b t d_model` meet the table `vocab d_model` and give logits "
            "`b t vocab`. The softmax sums over `vocab`.",
        ),
        why="""
With a table of its own for the source, this batch would train 13 of the 40 rows, those of the words
that it holds. In a shared table every row gets a gradient in every step, because the softmax pushes
down all words but the label. So a row can look trained before its word was ever read, and the score
of `<pad>` falls at every position.

Two things get none. Positions are computed once. The bias of the keys gets only rounding errors,
below $10^{-8}$ in this model; a test that asks for a gradient in every parameter must except it.
""",
    ),
    FindBug(
        id="9.4",
        title="All parts are right",
        minutes=20,
        difficulty=2,
        trains="from what a whole model does wrong to the place where parts are joined",
        target="Transformer",
        bugs=(
            Bug(
                "ch09_model.causal_in_training_only",
                "The validation loss is far below the training loss from the first epoch on, but "
                "the translations are poor. In `eval()`, replacing the last token of a target "
                "moves the logits of the first position.",
            ),
            Bug(
                "ch09_model.attends_to_padding",
                "A sentence alone and the same sentence beside a longer one get different logits, "
                "although `encode` gives the same memory for both.",
            ),
            Bug(
                "ch09_model.target_without_positions",
                "With one layer on each side, the model gives the same logits after `<s> a b c` "
                "and after `<s> b a c`.",
            ),
            Bug(
                "ch09_model.logits_divided_in_training",
                "Training and its loss look normal. But sampling at temperature 1 hardly ever "
                "gives two different translations: the search, which calls `decode`, gets logits "
                "about five times as large as those that the loss was computed from, with "
                "`d_model` = 24.",
            ),
            Bug(
                "ch09_model.tying_announced_only",
                "The model trains and translates. With a vocabulary of 40 and `d_model` = 24 it "
                "has 26,384 parameters, and on paper there are 25,384.",
            ),
        ),
        task="""
{symptom}

The layers are right; the mistake is in how they are put together. Find it in the class below and
repair it. The result must pass `check_model`.
""",
        hints=(
            "Follow the ids from the call to the logits, once as in training (`forward`) and once "
            "as in translation (`encode`, then `decode`). Where do masks and positions come in, "
            "and which table makes the logits?",
            "The ids are `b k` and `b t`. The memory is `b k d_model`, the source mask `b 1 1 k`, "
            "the target mask `b 1 t t`, the states `b t d_model`, the logits `b t vocab`.",
        ),
        why="""
Every layer of this model passes its own check, and the model is still wrong. What finds such
mistakes are properties of the whole: no output depends on later tokens, in train mode or in eval
mode; padding and neighbours change nothing; the order of the target matters; training and
translation compute the same logits.
""",
    ),
    WriteTest(
        id="9.5",
        title="A test for a whole model",
        minutes=30,
        difficulty=3,
        trains="properties of the whole that no part can have",
        target="Transformer",
        check="check_model",
        at_least=5,
        given="from dataclasses import replace",
        task="""
Write a test of `Transformer`. It gets an implementation, makes a model with
`implementation(Config(...))`, and raises an error if the model is wrong. You may call the model,
`encode` and `decode`, and look at its parameters.

Seven implementations that people have really written will be tried. Your test must accept what is
right and refuse **at least 5 of the 7**.
""",
        solution=test_9_5,
        hints=(
            "Replace the last target token, in both modes. Pad the source. Exchange two target "
            "tokens in a model of one layer. Compare the model with `encode` and `decode`. Count "
            "the parameters with 40 rows. Can a logit be below 0? What should id 45 do in a "
            "vocabulary of 40?",
            "Take `Config(40, d_model=24, n_heads=4, n_layers=2, d_ff=48, dropout=0.0)`, a source "
            "`b k` = 1×8 and a target `b t` = 1×6; the logits are 1×6×40. With dropout 0, train "
            "and eval mode must agree.",
        ),
        why="""
A small model is enough to find all seven mistakes, and untrained weights will do: what an output
may depend on is a matter of structure, not of training. These tests take a fraction of a second. It
takes hours to find the same mistakes in a learning curve.
""",
    ),
]
