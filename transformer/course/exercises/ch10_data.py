"""The exercises of chapter 10: data."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

from transformer.course.exercise import Bug, ByHand, Exercise, FindBug, WriteBlock, WriteTest
from transformer.data import Pair, pad

# --- 10.3 -----------------------------------------------------------------------------------------


def solution_10_3() -> list[str | int]:
    """Learn three merges from seven words, and split a new word with them."""
    words = Counter("un una uno uno luna luna luna".split())
    spelled = {word: list(word) for word in words}
    merges: list[str | int] = []
    alluna = list("alluna")
    for _ in range(3):
        counts: Counter[tuple[str, str]] = Counter()
        for word, n in words.items():
            for pair in pairwise(spelled[word]):
                counts[pair] += n
        best = max(counts, key=counts.__getitem__)
        spelled = {word: merged(tokens, best) for word, tokens in spelled.items()}
        alluna = merged(alluna, best)
        merges.append("".join(best))
    return [*merges, len(alluna)]


def merged(tokens: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Return the tokens with every occurrence of the pair replaced by one token."""
    found: list[str] = []
    for token in tokens:
        if found and (found[-1], token) == pair:
            found[-1] += token
        else:
            found.append(token)
    return found


# --- 10.5 -----------------------------------------------------------------------------------------


def test_10_5(implementation: Callable[[list[Pair], int], list[list[Pair]]]) -> None:
    draw = random.Random(0)
    pairs = [([i] * draw.randint(1, 20), [i] * draw.randint(1, 20)) for i in range(200)]
    groups = implementation(list(pairs), 80)
    assert sorted(pair for group in groups for pair in group) == sorted(pairs)

    real = sum(len(side) for pair in pairs for side in pair)
    padded = 0
    for group in groups:
        src = pad([pair[0] for pair in group])
        tgt = pad([pair[1] for pair in group])
        assert max(src.numel(), tgt.numel()) <= 80, "a batch is too large"
        padded += src.numel() + tgt.numel()
    assert real / padded > 0.7, "too much of a batch is padding"
    assert len(groups) < 1.5 * real / 80, "the batches are nearly empty"


EXERCISES: list[Exercise] = [
    WriteBlock(
        id="10.1",
        title="A rectangle of ids",
        minutes=10,
        difficulty=1,
        trains="padding at the end, with the given id, without changing the rows",
        target="pad",
        check="check_pad",
        task="""
Write `pad`.

- `rows` is a list of lists of ids, of different lengths.
- The result is a tensor `b t` of `int64`, where `t` is the length of the longest row. Shorter rows
  are filled with `pad_id` **at the end**.
- The rows of the caller stay as they are.
""",
        hints=(
            "Find the longest row first. Then build new rows, each followed by as many padding ids "
            "as it lacks, and make one tensor of them.",
            "A row of n ids and `[pad_id] * (width - n)` together have `width` ids, so the tensor "
            "is `b t` with t = width.",
        ),
        why="""
Padding stands at the end, so that the first word is at position 0 in every batch. On the left it
would shift the positions of a sentence by as much as its batch needs.

New rows are built because the old ones are used again in the next epoch. `row += [pad_id]` changes
the caller's list: the pairs would grow from epoch to epoch, and padding would count as length.
""",
    ),
    WriteBlock(
        id="10.2",
        title="Batches by length",
        minutes=25,
        difficulty=2,
        trains="a budget of tokens that includes padding",
        target="batches_by_length",
        check="check_batches",
        task="""
Write `batches_by_length`. A pair is a list of source ids and a list of target ids.

- The result is a list of batches, each a list of pairs. Every pair is in exactly one of them.
- On either side, number of pairs × longest row is at most `max_tokens`: padding counts. A pair that
  is longer than `max_tokens` gets a batch of its own.
- Pairs of similar length are put together, so that there is little padding, and a batch is closed
  only when the next pair does not fit.
""",
        hints=(
            "Sort the pairs by length, then fill one batch after the other. Before a pair is "
            "added, ask how wide the batch would be with it, and how many tokens it would have.",
            "If `width` is the longest row of either side, the new pair's included, a batch of n "
            "pairs becomes (n + 1) rows of `width` tokens: it fits if `width * (n + 1)` is at most "
            "`max_tokens`.",
        ),
        why="""
Memory and time follow the size of the rectangle, not the number of words in it. If only real tokens
were counted, ten pairs of one word and one of fifty would count as 60 tokens and take 550.

Sort *pairs*. Two sides that are sorted separately look like perfect batches, with hardly any
padding, and every sentence has the translation of another.
""",
    ),
    ByHand(
        id="10.3",
        title="Three merges on paper",
        minutes=10,
        difficulty=1,
        trains="byte-pair encoding: learning merges, and applying them",
        form="a list of three texts and a number",
        task="""
A tokenizer learns from these seven words, each of which is spelled in single letters at first:

> un · una · uno · uno · luna · luna · luna

Which tokens do the first three merges make, in order? And into how many tokens do these three
merges split the new word *alluna* (it lands on the moon)?

The answer is a list such as `["ab", "cd", "efg", 5]`.
""",
        solution=solution_10_3,
        mistakes={
            "A word counts as often as it occurs: luna three times, uno twice.": [
                "un",
                "una",
                "uno",
                4,
            ],
            "The merges are applied one after the other, in the order in which they were learned: "
            "first un, then una, then luna.": ["un", "una", "luna", 5],
            "A merge joins two neighbours, and both may be tokens of several letters.": [
                "un",
                "na",
                "lu",
                3,
            ],
        },
        hints=(
            "Count every pair of neighbours in every word, as often as the word occurs. Merge the "
            "most frequent pair everywhere, and count again: pairs with the new token are new.",
            "*u n* occurs 7 times. Then *luna* is spelled `l un a`, three tokens with two pairs of "
            "neighbours. For *alluna* apply the three merges in the same order.",
        ),
        why="""
*luna* became one token because it is frequent, *uno* stayed `un` + `o`, and the new word is
`a` + `l` + `luna`: three tokens, one of which the model knows well from other sentences. No word is
unknown as long as its letters are known.

The merges are learned from the training split only. A merge that was learned from a test sentence
would make this sentence shorter than any unseen text of its kind, and its score better.
""",
    ),
    FindBug(
        id="10.4",
        title="It depends on the batch",
        minutes=10,
        difficulty=2,
        trains="from strange batches to the line that makes them",
        target="pad",
        bugs=(
            Bug(
                "ch10_data.pad_changes_the_rows",
                "The first epoch is right. In the second, many sentences are longer than they "
                "were, though nobody has touched the corpus.",
            ),
            Bug(
                "ch10_data.pad_on_the_left",
                "A sentence alone is translated well. In a batch with longer ones, the same "
                "sentence gets another translation, although padding is hidden by the masks.",
            ),
            Bug(
                "ch10_data.pad_with_zero",
                "With this course's vocabulary all is well. With another, in which `<pad>` has the "
                "id 1 and *the* the id 0, short sentences end in *the the the*.",
            ),
        ),
        task="""
{symptom}

Find the mistake in the function below and repair it. The result must pass `check_pad`.
""",
        hints=(
            "Call it with rows of 5, 1 and 3 ids and a `pad_id` that is not 0. Look at the result, "
            "and at the rows that you passed in.",
            "The result is `b t` = 3×5. Where are the ids of a short row, what is beside them, and "
            "how long is that row afterwards?",
        ),
        why="""
All three versions have the right shape, and with rows of one length all three are right. So test
with rows that differ, with a padding id that is not the usual one, and look at the arguments after
the call as well as at the result.
""",
    ),
    WriteTest(
        id="10.5",
        title="A test for batches",
        minutes=20,
        difficulty=3,
        trains="testing with many random inputs instead of one chosen example",
        target="batches_by_length",
        check="check_batches",
        at_least=3,
        given="import random",
        task="""
Write a test of `batches_by_length`. It gets an implementation, calls it as
`implementation(pairs, max_tokens)`, and raises an error if the implementation is wrong.

Four implementations that people have really written will be tried. Your test must accept what is
right and refuse **at least 3 of the 4**.
""",
        solution=test_10_5,
        hints=(
            "Draw some hundreds of pairs of random lengths, and give each pair ids that occur in "
            "no other. Is every pair there, once, with its own target? Is a batch ever too large? "
            "How much of all batches is padding?",
            "A batch of n pairs is n × longest source and n × longest target. Compare the sum over "
            "all batches with the number of real ids: by length, little is lost.",
        ),
        why="""
The four claims come from the docstring: every pair once, on either side at most `max_tokens`,
padding included, similar lengths together. The last one has no exact number. A threshold that the
right function passes with room to spare, and a careless one misses by far, is enough: in the
chapter's picture the padding is below 5 % by length and above 25 % in file order.
""",
    ),
]
