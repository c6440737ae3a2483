"""The exercises of chapter 12: inference."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from transformer.course.exercise import Bug, ByHand, Exercise, FindBug, WriteBlock, WriteTest
from transformer.inference import IncrementalDecoder, best_of
from transformer.model import Config, Transformer

# --- 12.3 -----------------------------------------------------------------------------------------


def search_with(find: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the chapter's `beam_search`, with `find` as its `beam_hypotheses`."""

    def search(m, src, beam_size=5, length_penalty=1.0, max_len=64, decoder=IncrementalDecoder):
        if min(beam_size, max_len) < 1:
            raise ValueError(f"{beam_size=} and {max_len=} must be at least 1")
        if len(src) == 0:
            return src[:, :0].long(), torch.zeros(0)
        return best_of(find(m, src, beam_size, length_penalty, max_len, decoder), m.config.pad_id)

    return search


# --- 12.4 -----------------------------------------------------------------------------------------

TREE = {
    "": {"un": 0.50, "c'è": 0.40},
    "un": {"gatto": 0.60, "cane": 0.20},
    "c'è": {"un": 0.80, "una": 0.15},
    "un gatto": {"</s>": 0.70, "nero": 0.20},
    "c'è un": {"gatto": 0.80, "cane": 0.15},
    "c'è un gatto": {"</s>": 0.80, "nero": 0.10},
}
Found = list[tuple[float, int, str]]  # probability, length with </s>, and text


def beam(size: int) -> Found:
    """Search the tree with a beam, and return the hypotheses that ended."""
    alive: Found = [(1.0, 0, "")]
    ended: Found = []
    while alive:
        longer = [
            (p * q, n + 1, f"{text} {word}".strip())
            for p, n, text in alive
            for word, q in TREE.get(text, {}).items()
        ]
        best = sorted(longer, reverse=True)[:size]
        ended += [found for found in best if found[2].endswith("</s>")]
        alive = [found for found in best if not found[2].endswith("</s>")]
    return ended


def solution_12_4(marks: int = 1) -> list[str | float]:
    """Search with one hypothesis and with two, and rank by the mean log-probability."""
    (_, _, greedy), *_ = beam(1)
    shorter, longer = beam(2)
    ranks = [math.log(p) / (n - 1 + marks) for p, n, _ in (shorter, longer)]
    winner = (shorter, longer)[ranks.index(max(ranks))][2]
    texts = [text.removesuffix(" </s>") for text in (greedy, winner)]
    return [texts[0], shorter[0], longer[0], *ranks, texts[1]]


# --- 12.6 -----------------------------------------------------------------------------------------


def test_12_6(implementation: Callable[..., Tensor]) -> None:
    config = Config(12, d_model=24, n_heads=4, n_layers=1, d_ff=48, dropout=0.5)
    for _ in range(8):
        model = Transformer(config).train().requires_grad_(False)
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
        model.bias[0] = 2.0  # <pad> is likely, and so is </s>
        model.bias[2] = 2.0
        src = torch.randint(3, 12, (20, 6))
        ids = implementation(model, src, 8)
        assert model.training, "the model was left in eval mode"
        for row in ids.tolist():
            words = row[: row.index(2)] if 2 in row else row
            assert not set(words) & {0, 1}, "<pad> or <s> was written as a word"
            assert not any(row[len(words) + 1 :]), "something follows </s>"

        # Let the model read what it wrote: at every position its own token is the most probable.
        read = torch.cat([torch.ones(20, 1, dtype=torch.int64), ids[:, :-1]], dim=1)
        logits = model.eval()(src, read)
        logits[..., :2] = -math.inf
        written = ids != 0
        assert torch.equal(logits.argmax(-1)[written], ids[written]), "another token is better"


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="12.1",
        title="One position, with a cache",
        minutes=25,
        difficulty=2,
        trains="what a new position needs of the old ones",
        target="decode_position",
        check="check_decode_position",
        task="""
Write `decode_position`. It runs a `DecoderLayer` for one new position.

- `x` is `(b beam) 1 d_model`: a beam of hypotheses for each of b sentences; it may be 1. The result
  has the same shape, and is the last row of what the layer makes of the whole target.
- `attention.project_kv(y)` returns keys and values of `y`. `cache.append(k, v)` adds them to the
  cache and returns those of all positions so far. `cache.source` is a pair, keys and values of the
  source, `b h k d_head`.
- `attention.attend(y, k, v, mask)` attends from `y` to keys and values that are there already.
- Self-attention needs no mask. Cross-attention gets `src_mask`, `b 1 1 k`.
- The layer has `residuals`, `self_attention`, `cross_attention` and `feed_forward`.
""",
        hints=(
            "It is the forward pass of chapter 8: three sublayers, each in its residual. Only the "
            "place that keys and values come from is different. In self-attention the new position "
            "adds its own before it attends.",
            "The source's keys are `b h k d_head` and there are several hypotheses a sentence, so "
            "for cross-attention turn `(b beam) 1 d_model` into `b beam d_model`, the queries of "
            "one sentence, and back.",
        ),
        why="""
No causal mask is needed because there is nothing in the cache from the future. The keys must be
made from what the *sublayer* is given, which in pre-norm is the normed vector. So the new position
is appended inside the function that the residual calls.

At width 24 and 8 tokens written, the cache of a layer holds 2·8·24 = 384 numbers for the target.
Without it, all of them would be computed again in every step.
""",
    ),
    WriteBlock(
        id="12.2",
        title="Greedy search",
        minutes=20,
        difficulty=1,
        trains="the loop that reads each new token back in",
        target="greedy_search",
        check="check_greedy",
        task="""
Write `greedy_search`. The chapter does it in one line, by `generate`. Write the loop yourself, and
come back to `generate` when you have seen what it saves.

- `src` is `b k`. The result is `b t`: at every step the most probable token, without `<s>`, with
  `</s>` where it is reached, and nothing but padding after it.
- `t` is at most `max_len`, and at most `model.config.max_len`. The loop ends when all sentences
  have ended.
- `<pad>` and `<s>` are never written: `mask_special_tokens(logits, model.config)`.
- Dropout is off, and the model is left as it was: `with inference_context(model):`.
- `decoder(model, src)` makes a decoder. Its `step(ids)` reads one token in each row, `b`, and
  returns the logits of the next, `b vocab`. You may also do without it and call `model.encode` once
  and `model.decode` at every step.
""",
        hints=(
            "Begin with `<s>` in every row. In each step: read the newest token of every row, rule "
            "out two tokens, take the largest logit, and keep it. Remember which rows have ended; "
            "from then on they get padding.",
            "The newest ids are `b`, their logits `b vocab`, and `argmax(-1)` is `b` again. "
            "`ids.masked_fill(done, pad_id)` with `done`, `b`, keeps the rows that have ended "
            "quiet. At the end `torch.stack(written, dim=1)` is `b t`.",
        ),
        why="""
The result for a sentence does not depend on the others of its batch, because a row that has ended
gets only padding, and no row attends to another. `generate` goes further and drops such rows, so
that nothing more is computed for them.

Two lines are often forgotten, and neither raises an error. Without `eval()` dropout changes every
translation. Without `train()` afterwards, the next epoch trains without dropout.
""",
    ),
    WriteBlock(
        id="12.3",
        title="Beam search",
        minutes=45,
        difficulty=3,
        trains="keeping the best hypotheses, those that go on and those that have ended",
        target="beam_hypotheses",
        check="check_beam_search",
        inside=search_with,
        task="""
Write `beam_hypotheses`, the loop of beam search; `beam_search`, below, calls it.

- The result is a list for each sentence of `src`, `b k`, to which `collect` adds its finished
  hypotheses.
- At every step each hypothesis is extended by every token, and log-probabilities are added. Among
  the best `beam_size` extensions of a sentence, those that end are collected; the best
  `beam_size` of those that do not end go on.
- A sentence is complete when `beam_size` of its hypotheses have ended. After `max_len` tokens, or
  `config.max_len` if that is less, all that remain are collected.
- `<pad>` and `<s>` are never written, dropout is off, and the model is left as it was.
- `make(model, src)` makes a decoder with `step(ids)`, `reorder(rows)` and
  `best_extensions(log_probs, scores, k)`: scores, rows and tokens of the k best extensions, `b c`.
""",
        hints=(
            "Begin with one hypothesis for each sentence. A step has five parts: "
            "log-probabilities, the 2·`beam_size` best extensions, collecting what has ended, "
            "choosing what goes on (give what has ended the score -∞), and moving the cache with "
            "it.",
            "`written` is `r t`, with a row for each hypothesis of each sentence; `scores` is "
            "`b beam`. The extensions are `b c` with c = 2·`beam_size` or fewer, `written[rows]` "
            "is `b c t`, and what goes on is `b beam t`, flattened to `(b beam) t`.",
        ),
        why="""
Twice `beam_size` extensions are enough: each hypothesis has only one that ends, so at least
`beam_size` of them can go on. What ends is put aside at once. It must not be extended, and it must
not be lost, because it may still be the best.

Log-probabilities are added, not logits: two rows of logits have no common zero, so sums of them
cannot be compared. And when hypotheses change places, the cache must change with them. Without
`reorder` every translation continues with the past of another, and the words still look plausible.
""",
    ),
    ByHand(
        id="12.4",
        title="Two beams on paper",
        minutes=10,
        difficulty=1,
        trains="greedy search, beam search and the length penalty",
        form="a list: a text, four numbers, a text",
        tolerance=0.003,
        task="""
*There is a cat* is to be translated. These are the probabilities of the next word; rare words are
left out.

| written so far | next word |
|---|---|
| (nothing) | un 0.50 · c'è 0.40 |
| un | gatto 0.60 · cane 0.20 |
| c'è | un 0.80 · una 0.15 |
| un gatto | `</s>` 0.70 · nero 0.20 |
| c'è un | gatto 0.80 · cane 0.15 |
| c'è un gatto | `</s>` 0.80 · nero 0.10 |

1. What does greedy search write (without `</s>`)?
2. A beam of two finishes two translations. What is the probability of the shorter one,
3. and that of the longer one?
4. What is the mean log-probability a token ($\\alpha = 1$) of the shorter one,
5. and that of the longer one? Count `</s>` as a token. You need $\\ln 0.21 = -1.561$ and
   $\\ln 0.2048 = -1.586$.
6. Which of the two does beam search return with $\\alpha = 1$ (without `</s>`)?
""",
        solution=solution_12_4,
        mistakes={
            "`</s>` is a token, with a probability of its own, and counts in the length.": (
                solution_12_4(marks=0)
            ),
            "With α = 1 the two means are compared, not the probabilities: the longer one has "
            "the larger mean.": [*solution_12_4()[:5], "un gatto"],
            "Greedy search takes the most probable word at every step: first `un`.": [
                "c'è un gatto",
                *solution_12_4()[1:],
            ],
        },
        hints=(
            "Greedy search never looks at the second word of a line. A beam of two keeps the two "
            "best beginnings by the *product* of their probabilities, and a beginning that has "
            "ended is put aside, not extended.",
            "After two words the beam holds *c'è un* with 0.32 and *un gatto* with 0.30. The "
            "shorter translation has 3 tokens, the longer one 4.",
        ),
        why="""
Without a penalty *un gatto* would win, 0.21 against 0.2048: every further token multiplies by a
number below 1, so plain probability favours the short. A mean a token does not: $e^{-0.52} = 0.59$
against $e^{-0.40} = 0.67$.

The beam could choose because it had *kept* the short one. A search that dropped what has ended
would find only long translations, and one that stopped at the first `</s>` only short ones.
""",
    ),
    FindBug(
        id="12.5",
        title="Cached is not uncached",
        minutes=20,
        difficulty=2,
        trains="what a cache holds, and what must move with it",
        target="IncrementalDecoder",
        bugs=(
            Bug(
                "ch12_inference.incremental_position_zero",
                "With a cache the model writes other translations than without it, and worse ones. "
                "The logits of the first step agree; from the second on, they differ.",
            ),
            Bug(
                "ch12_inference.incremental_forgets",
                "With a cache the model writes nonsense. The logits after `<s> a b c` and after "
                "`<s> x y c` are the same: only the last token and its position seem to count.",
            ),
            Bug(
                "ch12_inference.incremental_attends_to_padding",
                "With a cache, the same sentence gets another translation when its batch also "
                "holds a longer one. Without a cache it does not.",
            ),
            Bug(
                "ch12_inference.incremental_keeps_old_order",
                "Greedy search finds the same with the cache as without. Beam search does not, and "
                "its scores are not the log-probabilities of what it returns.",
            ),
            Bug(
                "ch12_inference.incremental_keeps_the_wrong_mask",
                "One sentence is translated as it should be, and so are several of one length. "
                "When sentences differ in length, some translations go wrong from the step on in "
                "which another sentence has reached `</s>`.",
            ),
        ),
        task="""
{symptom}

The class below changes the chapter's `IncrementalDecoder` in one place. Find the mistake and repair
it. The result must pass `check_incremental`.
""",
        hints=(
            "List the state that the decoder keeps between steps: the position, the source mask, "
            "and in each layer the keys and values of source and target. Which of it must change "
            "in a step, which in `reorder`, and which never?",
            "With b sentences and a beam, the target's keys are `(b beam) h t d_head`, the "
            "source's `b h k d_head` and the mask `b 1 1 k`. In `reorder` the rows are `b beam`; "
            "the first of a line, divided by the beam, is the sentence.",
        ),
        why="""
*Cached equals uncached*, at every step, is the one property that finds all of these. It is worth
more than a look at translations: with a wrong position or a lost mask many are still right.

A cache has three kinds of content, and they move differently. The target's keys belong to a
hypothesis, the source's keys and mask belong to a sentence, and the position is the same for all.
""",
    ),
    WriteTest(
        id="12.6",
        title="A test for a search",
        minutes=25,
        difficulty=3,
        trains="properties of a translation that hold for any weights",
        target="greedy_search",
        check="check_greedy",
        at_least=4,
        task="""
Write a test of `greedy_search`. It gets an implementation, calls it as
`implementation(model, src, max_len)`, and raises an error if it is wrong. Make a small
`Transformer` with random weights; no training is needed.

Five implementations that people have really written will be tried. Your test must accept what is
right and refuse **at least 4 of the 5**.
""",
        solution=test_12_6,
        hints=(
            "What may follow `</s>`? What may never be written? In which mode must the model be "
            "afterwards? And if the model reads what it wrote, in `eval()`, which token is the "
            "most probable at each position? Dropout 0.5 makes sure that you see when it is on.",
            "Take `src` 20×6 and `max_len` 8. A random model hardly ever writes `<pad>` or `</s>` "
            "by itself: raise their entries in `model.bias`, and try several models. Read back, "
            "`<s>` and `ids[:, :-1]` are `b t`, and the logits `b t vocab` have their largest "
            "value at `ids`.",
        ),
        why="""
Reading the result back takes a single pass, needs no second search, and tests every token: each
must be the most probable after those before it. It works because of the causal mask, by which one
pass computes what step-by-step decoding computes.

Make rare things likely. With its bias at 0, an untrained model may write no `</s>` at all, and a
search that never stops would pass. One random model is not enough for this; eight are.
""",
    ),
]
