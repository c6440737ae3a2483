"""The check of the scores that a translation gets."""

from collections.abc import Callable

import torch
from sacrebleu.metrics import BLEU, CHRF

from transformer.checks.harness import Suspects, agree, call, check, expect

REFERENCES = [
    "the cat is on the mat .",
    "i love you very much .",
    "there is a house behind the tree .",
]
HYPOTHESES = [
    "the cat sits on the mat .",
    "i love you much .",
    "there is a house behind the tree .",
]


def score_suspects() -> Suspects:
    """Return the usual mistakes of a BLEU."""
    lines = list(zip(HYPOTHESES, REFERENCES, strict=True))
    equal = [a == b for pair in lines for a, b in zip(*pair, strict=False)]
    one = BLEU(effective_order=True)
    means = [one.sentence_score(hypothesis, [reference]).score for hypothesis, reference in lines]
    marked = [[f"<s> {text} </s>" for text in texts] for texts in (HYPOTHESES, REFERENCES)]
    share = BLEU().corpus_score(HYPOTHESES, [REFERENCES]).score / 100
    characters = "Characters were compared one by one: BLEU counts n-grams of words."
    special = "<s> and </s> were counted as words that are always right."
    values = {
        characters: 100 * sum(equal) / len(equal),
        "Sentence scores were averaged: BLEU is of the whole corpus.": sum(means) / len(means),
        special: BLEU().corpus_score(marked[0], [marked[1]]).score,
        "It is a share of 1: BLEU is given in points of 100.": share,
    }
    return {cause: lambda value=value: torch.tensor(value) for cause, value in values.items()}


@check("equal to sacrebleu, 0 for no word right, whole corpus, signatures")
def check_scores(fn: Callable, *, device: torch.device | str = "cpu") -> None:
    """Check a function of (hypotheses, references) that gives "BLEU", "chrF" and "signatures"."""
    got = call(fn, HYPOTHESES, REFERENCES)
    for name, metric in {"BLEU": BLEU(), "chrF": CHRF()}.items():
        want = torch.tensor(metric.corpus_score(HYPOTHESES, [REFERENCES]).score)
        found = torch.tensor(float(got[name]))
        agree(found, want, f"{name} of three sentences", score_suspects(), 1e-2)
    nothing = call(fn, ["uno due tre quattro cinque"], ["the cat is on the mat"])["BLEU"]
    expect(nothing == 0, f"a translation with no word right has {nothing:.1f} BLEU")
    versions = all("version" in signature for signature in got["signatures"])
    cause = "take them from sacrebleu"
    expect(versions, f"the signatures do not say how the scores were computed: {cause}")
