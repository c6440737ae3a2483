"""The pairs of a corpus as ids; those that nothing can be learned from are skipped and counted."""

from tokenizers import Tokenizer

from transformer.corpora import Corpus
from transformer.data import BOS, EOS, Pair, problem_of
from transformer.texts import most_characters

Skipped = tuple[int, str]
"""The index of a pair, and what is wrong with it."""


def usable_pairs(
    tokenizer: Tokenizer, corpus: Corpus, split: str, longest: int
) -> tuple[list[Pair], str]:
    """Return the pairs of a split as ids, and a sentence on those that are left out, or "".

    A pair is left out if a side is blank, has no known character or more than `longest` tokens.
    Sources end with </s>, targets begin with <s> and end with </s>. Raises ValueError if no pair is
    left.
    """
    pairs = {"train": corpus.train, "val": corpus.val}[split]
    found: list[Pair] = []
    skipped: list[Skipped] = []
    limit = most_characters(tokenizer.get_vocab(), longest)
    for start in range(0, len(pairs), 10_000):  # so that encodings do not fill the memory
        part = pairs[start : start + 10_000]
        sides = [[text if len(text) <= limit else "" for text in side] for side in zip(*part)]
        rows = [[e.ids for e in tokenizer.encode_batch(side)] for side in sides]
        for i, (src, tgt) in enumerate(zip(*rows, strict=True)):
            problem = first_problem(tokenizer, part[i], (src, tgt), limit, longest)
            if problem:
                skipped.append((start + i, problem))
            else:
                found.append(([*src, EOS], [BOS, *tgt, EOS]))
    sentence = report(corpus, split, skipped)
    if not found:
        raise ValueError(f"no pair of {corpus.name}'s {split} split is left: {sentence}")
    return found, sentence


def first_problem(
    tokenizer: Tokenizer, pair: tuple[str, str], ids: Pair, most_characters: int, longest: int
) -> str:
    """Return what is wrong with a pair, or ""."""
    for side, text, row, extra in zip(("source", "target"), pair, ids, (1, 2), strict=True):
        if len(text) > most_characters:
            return f"its {side} has {len(text):,} characters, max_len is {longest} tokens"
        if problem := problem_of(tokenizer, text, row):
            return f"its {side} {problem}"
        if len(row) + extra > longest:
            return f"its {side} has {len(row) + extra} tokens, max_len is {longest}"
    return ""


def report(corpus: Corpus, split: str, skipped: list[Skipped]) -> str:
    """Return how many pairs are skipped, where the first one is and why; "" if there are none."""
    if not skipped:
        return ""
    first, problem = skipped[0]
    total = len({"train": corpus.train, "val": corpus.val}[split])
    count = f"{len(skipped):,} of {total:,} pairs of {split} are skipped"
    return f"{count}; the first is {corpus.where(split, first)}: {problem}"
