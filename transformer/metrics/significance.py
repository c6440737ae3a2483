"""Whether a difference of scores means something: over test sentences, and over seeds."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from sacrebleu.metrics import CHRF
from sacrebleu.significance import PairedTest

from transformer.metrics.corpus_scores import bleu_metric, check_aligned


class Difference(NamedTuple):
    """Scores of two systems, ours minus the other's, and p: how easily chance explains it.

    `interval` is half the width of the 95 % interval of our score over resampled test sets.
    """

    score: float
    other: float
    difference: float
    p: float
    interval: float


def paired_bootstrap(
    hypotheses: Sequence[str],
    others: Sequence[str],
    references: Sequence[str],
    tokenize: str = "13a",
    samples: int = 1000,
) -> dict[str, Difference]:
    """Compare two systems' translations of one test set, by BLEU and by chrF.

    Test sets are drawn from the sentences with replacement, `samples` times, the same for both
    systems. A p below 0.05 is usually called significant. The same arguments give the same result.
    Raises the errors of `bleu`. Source: Koehn 2004, as sacrebleu computes it.
    """
    check_aligned(hypotheses, references)
    check_aligned(others, references)
    test = PairedTest(
        [("other", list(others)), ("ours", list(hypotheses))],
        {"BLEU": bleu_metric(tokenize), "chrF": CHRF()},
        [list(references)],
        test_type="bs",
        n_samples=samples,
    )
    _, found = test()
    return {"BLEU": difference(*found["BLEU"]), "chrF": difference(*found["chrF2"])}


def difference(other, ours) -> Difference:
    """Return what sacrebleu found on two systems, rounded as it prints it.

    For two equal scores it finds a small p, because no resample differs more than they do; p is 1.
    """
    return Difference(
        score=round(ours.score, 2),
        other=round(other.score, 2),
        difference=round(round(ours.score, 2) - round(other.score, 2), 2),
        p=round(float(ours.p_value), 4) if ours.score != other.score else 1.0,
        interval=round(float(ours.ci), 2),
    )


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of the scores of several seeds, and their standard deviation (n - 1).

    The spread of a single score is 0. Raises ValueError if there is none.
    """
    if not values:
        raise ValueError("there is no score to take the mean of")
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
