"""The embedded corpus: the sentences of the grammar, drawn into splits.

Besides training, validation and test pairs there is a *compositional* test set. Its sentences
combine an adjective or a verb with a noun that it meets in no other split, so a model that only
memorises fails on them.
"""

import random
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import TypeVar

from transformer.corpora.corpus import Corpus
from transformer.corpora.grammar import CONSTRUCTIONS, Sentences
from transformer.corpora.phrases import WordPair

T = TypeVar("T")
BETWEEN = "\t"  # English and Italian of one text


def english_italian(seed: int = 0, train: int = 100_000, held_out: int = 1_000) -> Corpus:
    """Return the embedded corpus: `train` training pairs, `held_out` in each other split.

    The other splits are val, test and more["compositional"]; no two pairs are equal. The same
    arguments give the same pairs, in the same order, on every machine.
    Raises ValueError if a number of pairs is negative, or more than the grammar has.
    """
    for name, n in (("train", train), ("held_out", held_out)):
        if not isinstance(n, int) or n < 0:
            raise ValueError(f"{name} must be a whole number of pairs, 0 or more; got {n!r}")
    rng = random.Random(seed)
    groups = [in_columns(construction()) for construction in CONSTRUCTIONS]
    combinations = dict.fromkeys(pairs for _, of_texts in groups for pairs in of_texts)
    held = choose_held_out(dict.fromkeys(chain.from_iterable(combinations)), rng)
    new = {pairs for pairs in combinations if not held.isdisjoint(pairs)}
    seen = [[text for text, pairs in zip(*group) if pairs not in new] for group in groups]
    unseen = [[text for text, pairs in zip(*group) if pairs in new] for group in groups]
    known = in_pairs(draw_evenly(seen, train + 2 * held_out, rng))
    return Corpus(
        name="en-it",
        train=known[:train],
        val=known[train : train + held_out],
        test=known[train + held_out :],
        more={"compositional": in_pairs(draw_evenly(unseen, held_out, rng))},
        lowercase=True,
    )


def in_columns(sentences: Sentences) -> tuple[list[str], list[tuple[WordPair, ...]]]:
    """Return sentences as texts in both languages, and the word pairs of each.

    Half a million tuples would keep Python's garbage collector busy for longer than they take to
    make; it does not look at texts.
    """
    texts: list[str] = []
    of_texts: list[tuple[WordPair, ...]] = []
    known: dict[tuple[WordPair, ...], tuple[WordPair, ...]] = {}
    for en, it, pairs in sentences:
        texts.append(en + BETWEEN + it)
        of_texts.append(known.setdefault(pairs, pairs))
    return texts, of_texts


def in_pairs(texts: list[str]) -> list[tuple[str, str]]:
    """Return texts in both languages as pairs."""
    parts = (text.partition(BETWEEN) for text in texts)
    return [(en, it) for en, _, it in parts]


def choose_held_out(pairs: Iterable[WordPair], rng: random.Random, most: int = 24) -> set[WordPair]:
    """Return at most `most` pairs to hold out, and for each word at most a quarter of its pairs."""
    pairs = list(pairs)
    partners = Counter(word for pair in pairs for word in pair)
    left = {word: n // 4 for word, n in partners.items()}
    chosen: set[WordPair] = set()
    for word, noun in rng.sample(pairs, len(pairs)):
        if len(chosen) < most and left[word] and left[noun]:
            chosen.add((word, noun))
            left[word] -= 1
            left[noun] -= 1
    return chosen


def draw_evenly(groups: list[list[T]], n: int, rng: random.Random) -> list[T]:
    """Return `n` members in random order, as many from each group, or all that a small one has.

    Raises ValueError if the groups together have fewer.
    """
    drawn: list[T] = []
    for i, group in enumerate(sorted(groups, key=len)):
        share = (n - len(drawn)) // (len(groups) - i)
        drawn += rng.sample(group, min(share, len(group)))
    if len(drawn) < n:
        raise ValueError(f"the grammar has {len(drawn):,} such pairs; {n:,} were asked for")
    rng.shuffle(drawn)
    return drawn
