"""Minimum Bayes risk: of several translations of a sentence, the one most like all of them.

The most probable translation need not be a good one; one that agrees with many others seldom is a
bad one. Source: Kumar and Byrne 2004; Eikema and Aziz 2020.
"""

from collections import Counter
from collections.abc import Sequence

ORDER = 6
"""The longest n-grams of characters that are compared, as in sacrebleu's chrF."""
BETA = 2
"""How many times as much as precision recall counts."""

Grams = list[Counter[str]]
"""Of each length from 1 to `ORDER`, how often each n-gram occurs."""


def minimum_risk(candidates: Sequence[str]) -> int:
    """Return the index of the candidate with the highest mean chrF against all candidates.

    A candidate that occurs twice counts twice, so samples are weighed by their probability. Of
    equals the first is chosen. Raises ValueError if there is no candidate.
    """
    if not candidates:
        raise ValueError("there is no candidate to choose from")
    different = list(dict.fromkeys(candidates))
    weights = Counter(candidates)
    grams = [n_grams(text) for text in different]
    gains = [
        sum(weights[text] * chrf_of(mine, others) for text, others in zip(different, grams))
        for mine in grams
    ]
    best = max(range(len(different)), key=gains.__getitem__)
    return candidates.index(different[best])


def sentence_chrf(hypothesis: str, reference: str) -> float:
    """Return chrF of one sentence, from 0 to 100, as sacrebleu has it. Source: Popović 2015."""
    return chrf_of(n_grams(hypothesis), n_grams(reference))


def n_grams(text: str) -> Grams:
    """Count the n-grams of characters in a text without its spaces."""
    letters = "".join(text.split())
    return [
        Counter(letters[i : i + n] for i in range(len(letters) - n + 1))
        for n in range(1, ORDER + 1)
    ]


def chrf_of(hypothesis: Grams, reference: Grams) -> float:
    """Return chrF of counted n-grams; lengths that one side is too short for do not count."""
    precisions = []
    recalls = []
    for mine, wanted in zip(hypothesis, reference, strict=True):
        if mine and wanted:
            shared = sum(min(count, wanted[gram]) for gram, count in mine.items() if gram in wanted)
            precisions.append(shared / mine.total())
            recalls.append(shared / wanted.total())
    if not sum(precisions):
        return 0.0
    precision = sum(precisions) / len(precisions)
    recall = sum(recalls) / len(recalls)
    factor = BETA**2
    return 100 * (1 + factor) * precision * recall / (factor * precision + recall)
