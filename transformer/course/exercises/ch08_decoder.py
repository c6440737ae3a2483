"""The exercises of chapter 8: the decoder and its masks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from transformer.course.exercise import Bug, Exercise, FindBug, Predict, WriteBlock, WriteTest
from transformer.decoder import Decoder, causal_mask

# --- 8.3 ------------------------------------------------------------------------------------------


def solution_8_3() -> list[int]:
    """Replace a word and count the outputs that move, six times."""
    torch.manual_seed(0)
    decoder = Decoder(n_layers=2, d_model=24, n_heads=4, d_ff=48).eval().requires_grad_(False)
    x = torch.randn(1, 6, 24)
    memory = torch.randn(1, 8, 24)
    words = torch.tensor([[[[True] * 6 + [False] * 2]]])  # the source: six tokens and two <pad>
    past = causal_mask(6)

    def replaced(vectors: Tensor, position: int) -> Tensor:
        other = vectors.clone()
        other[:, position] = torch.randn(24)
        return other

    def first_layer_only(x: Tensor) -> Tensor:
        first, second = decoder.layers
        return second(first(x, memory, past, words), memory, None, words)

    before = decoder(x, memory, past, words)
    target = replaced(x, 2)
    pairs = [
        (decoder(target, memory, past, words), before),
        (decoder(target, memory, None, words), decoder(x, memory, None, words)),
        (decoder(target, memory, ~past, words), decoder(x, memory, ~past, words)),
        (first_layer_only(target), first_layer_only(x)),
        (decoder(x, replaced(memory, 3), past, words), before),
        (decoder(x, replaced(memory, 7), past, words), before),
    ]
    return [int(((new - old).abs().amax(-1) > 1e-4).sum()) for new, old in pairs]


# --- 8.5 ------------------------------------------------------------------------------------------


def test_8_5(implementation: Callable[..., nn.Module]) -> None:
    layer = implementation(12, 3, 20)
    x = torch.randn(2, 5, 12)
    memory = torch.randn(2, 7, 12)
    past = torch.ones(5, 5, dtype=torch.bool).tril()
    words = torch.tensor([[[[True] * 5 + [False] * 2]]])
    other = x.clone()
    other[:, 4] = torch.randn(2, 12)

    for mode in (True, False):
        layer.train(mode)
        before = layer(x, memory, past, words)
        after = layer(other, memory, past, words)
        torch.testing.assert_close(after[:, :4], before[:, :4], msg="the future leaks in")

    alone = layer(x, memory[:, :5], past)
    torch.testing.assert_close(before, alone, msg="padding of the source changes the result")
    assert (layer(x, -memory, past) - layer(x, memory, past)).abs().max() > 0.01, (
        "no source is read"
    )

    order: list[str] = []
    for name in ("self_attention", "cross_attention", "feed_forward"):
        part = getattr(layer, name)
        part.register_forward_hook(lambda *_, name=name: order.append(name))
    layer(x, memory, past, words)
    assert order == ["self_attention", "cross_attention", "feed_forward"], order


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="8.1",
        title="The causal mask",
        minutes=5,
        difficulty=1,
        trains="who may attend to whom, as a matrix of truth values",
        target="causal_mask",
        check="check_causal_mask",
        task="""
Write `causal_mask`.

- The result is a boolean tensor `q k` of `t` × `t`. `True` means *may attend*.
- Query $q$ may attend to key $k$ if $k \\le q$: to the past and to itself.
- It is made on `device`, which may be `None`.
""",
        hints=(
            "The allowed pairs form a triangle. Write the matrix for t = 3 on paper, one row for "
            "each query: which corner is empty? PyTorch has two functions that keep a triangle.",
            "`torch.ones(t, t, dtype=torch.bool, device=device)` is `q k`, and `tril` keeps the "
            "lower triangle with its diagonal.",
        ),
        why="""
The diagonal belongs to the mask. Input $i$ is the token *before* the one that position $i$ is to
predict, because the target is shifted by one; so a position may read its own input. Without the
diagonal no position would attend to the newest word, and the first row would be empty.

It is a mask of truth values and not of 0 and $-\\infty$, so that it can be joined with a padding
mask by `&`. PyTorch's own layers use the opposite polarity: there `True` hides. Passing the one for
the other raises no error.
""",
    ),
    WriteBlock(
        id="8.2",
        title="A layer of the decoder",
        minutes=25,
        difficulty=2,
        trains="three sublayers, two kinds of attention, two masks",
        target="DecoderLayer",
        check="check_decoder_layer",
        task="""
Write `DecoderLayer`: its `__init__` and its `forward`.

- `__init__` makes `self_attention` and `cross_attention`, each a
  `MultiHeadAttention(d_model, n_heads)`, `feed_forward`, a `FeedForward(d_model, d_ff)`, and
  `residuals`, an `nn.ModuleList` of three `residual(d_model, dropout)`.
- `forward` takes `x`, which is `b t d_model`, `memory`, `b k d_model`, `tgt_mask`, which broadcasts
  to `b h t t`, and `src_mask`, which broadcasts to `b h t k`. Both masks may be `None`. It returns
  `b t d_model`.
- A `MultiHeadAttention` is called as `attention(x, memory, mask)`: queries come from the first,
  keys and values from the second.
""",
        hints=(
            "It is the encoder layer with one more sublayer in the middle. For each attention ask: "
            "where do the queries come from, where keys and values, and which mask has the same "
            "keys?",
            "In self-attention queries and keys are `b t d_model`, and the mask ends in `t t`. In "
            "cross-attention queries are `b t d_model` and keys `b k d_model`, and the mask ends "
            "in `t k` or `1 k`.",
        ),
        why="""
Each attention has the mask of its *keys*: target positions in self-attention, source words in
cross-attention. A test in which source and target have the same length cannot tell the two masks
apart, so take different ones.

Self-attention comes first, so that a position knows what has been written when it asks the source
what to write next. In the other order the layer trains as well, but weights trained elsewhere would
give nonsense in it.
""",
    ),
    Predict(
        id="8.3",
        title="How far does a word reach?",
        minutes=10,
        difficulty=1,
        trains="following a mask through several layers",
        form="six whole numbers from 0 to 6",
        task="""
A decoder of two layers reads six target positions, numbered 0 to 5, and a memory of eight, of which
the last two are `<pad>` and hidden by the source mask. How many of the **six outputs change** when

1. target position 2 is replaced, with the causal mask,
2. target position 2 is replaced, without a target mask,
3. target position 2 is replaced, with the causal mask inverted (`~mask`),
4. target position 2 is replaced, with the causal mask in the first layer and none in the second,
5. position 3 of the memory is replaced, with the causal mask,
6. position 7 of the memory is replaced, with the causal mask?

Write down your six answers first. Then run the cell below.
""",
        solution=solution_8_3,
        mistakes={
            "Item 1: the output at position 2 itself depends on its input, so four change: 2, 3, "
            "4 and 5.": [3, 6, 3, 6, 6, 0],
            "Item 3: an inverted mask hides a position from itself. But the residual adds the "
            "input of position 2 to its output.": [4, 6, 2, 6, 6, 0],
            "Item 4: after the first layer, positions 2 to 5 have changed. In the second, all "
            "positions attend to them.": [4, 6, 3, 4, 6, 0],
            "Item 5: the causal mask belongs to self-attention. The source has no future to hide: "
            "every target position attends to all of its words.": [4, 6, 3, 6, 3, 0],
        },
        hints=(
            "For each question, write down which positions have changed after the first layer. In "
            "the second layer, a position changes if it has changed already, or if it attends to "
            "one that has. Do not forget the residual.",
            "The target mask is `q k`, 6×6: column 2 shows which queries see position 2. The "
            "source mask is `1 1 1 k`, with k = 8, the same for all queries.",
        ),
        why="""
A causal mask is only as good as the layer in which it is missing: one layer without it is enough,
and position 0 knows the last word. With an inverted mask the positions know the future and nothing
of the past: the training loss is excellent, and the model cannot write a sentence.

Counting what moves is the best test of any mask. It needs no other implementation, and it tests the
effect instead of the numbers in a matrix.
""",
    ),
    FindBug(
        id="8.4",
        title="Too good to be true",
        minutes=15,
        difficulty=2,
        trains="from what a decoder does wrong to the line that is wrong",
        target="DecoderLayer",
        bugs=(
            Bug(
                "ch08_decoder.layer_causal_in_training_only",
                "Training looks normal. But the validation loss is much lower than the training "
                "loss, and when one word of a target is replaced in `eval()`, the outputs before "
                "it move.",
            ),
            Bug(
                "ch08_decoder.layer_cross_attends_to_itself",
                "The loss falls, but not far, and the translations are fluent sentences that have "
                "nothing to do with the source: all sources get the same.",
            ),
            Bug(
                "ch08_decoder.layer_cross_attention_first",
                "The model trains and translates. But loaded with the weights of a model that "
                "works, it writes nonsense, although every name and every shape fits.",
            ),
            Bug(
                "ch08_decoder.layer_attends_to_padding",
                "The model translates. But the same sentence gets another translation when its "
                "batch also holds a longer one.",
            ),
            Bug(
                "ch08_decoder.layer_sees_the_future",
                "In training the loss falls to almost 0 within minutes. When it writes word by "
                "word, the same model writes nonsense.",
            ),
        ),
        task="""
{symptom}

Find the mistake in the layer below and repair it. The result must pass `check_decoder_layer`.
""",
        hints=(
            "List what the layer is given: `x`, `memory`, two masks and its mode. What should each "
            "of them change, and what not? Change one at a time and look at the outputs.",
            "Self-attention has queries, keys and mask `b t d_model`, `b t d_model` and `t t`. "
            "Cross-attention has `b t d_model`, `b k d_model` and `1 k`. Which of these meets "
            "which in the code below?",
        ),
        why="""
A loss that is too low deserves as much suspicion as one that is too high. Random digits cannot be
predicted better than $\\ln 10 = 2.30$; a decoder that does so has seen the answer. The mode is part
of the test, because the model that is validated and that translates is the one in `eval()`.
""",
    ),
    WriteTest(
        id="8.5",
        title="A test that finds a leak",
        minutes=25,
        difficulty=3,
        trains="testing masks by their effect",
        target="DecoderLayer",
        check="check_decoder_layer",
        at_least=4,
        task="""
Write a test of `DecoderLayer`. It gets an implementation, makes a layer with
`implementation(d_model, n_heads, d_ff)`, calls it as `layer(x, memory, tgt_mask, src_mask)`, and
raises an error if the implementation is wrong.

Six implementations that people have really written will be tried. Your test must accept what is
right and refuse **at least 4 of the 6**. You may use the attributes `self_attention`,
`cross_attention`, `feed_forward` and `residuals`. To see where your test fails, call it in a cell
of its own: `test_8_5(DecoderLayer)`.
""",
        solution=test_8_5,
        hints=(
            "Replace the last target position: which outputs must stay as they were, in train mode "
            "and in eval mode? Hide two words of the memory: what is the result equal to? Replace "
            "the whole memory: must the result change? For the order of the parts, "
            "`register_forward_hook` tells you when a part runs.",
            "Take `x` 2×5×12, `memory` 2×7×12, a target mask 5×5 and a source mask 1×1×1×7. With "
            "the last two columns of the source mask hidden, the result must be that of "
            "`memory[:, :5]`.",
        ),
        why="""
Four of the six mistakes are found by asking what an output may depend on: not on later positions,
in either mode, not on padding, but on the source. These are claims about every input, and two calls
are enough to refute one.

The fifth, cross-attention before self-attention, depends on the same things as the right layer. It
takes a look inside, or numbers from elsewhere to compare with. The sixth, one residual for three
sublayers, gives the right result in a new layer, whose gains are all 1: count the parameters.
""",
    ),
]
