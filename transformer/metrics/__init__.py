"""Scores of a translated test set: how close the hypotheses are to the reference translations.

- `bleu`: shared word n-grams, 0 to 100. Papers report it, but it depends on how words are split.
- `chrf`: shared character n-grams, 0 to 100. It gives credit for a right stem with a wrong ending.
- `exact_match`: the share of hypotheses that equal their reference. It means something only where
  there is one right translation, as in the embedded corpus.
- `scores`: BLEU and chrF with the signatures of sacrebleu, which say how they were computed. A
  score without its signature cannot be compared.
- `moses_tokens`: the form of text in which papers on Multi30k score.
- `paired_bootstrap`: whether two systems differ by more than the choice of test sentences explains.
- `mean_and_spread`: the scores of several seeds.
- `minimum_risk`: of several translations, the one that is most like the others.

BLEU, chrF and the bootstrap are those of the package sacrebleu, which this one depends on: it is
small, and a score is comparable only if the program that its signature names has computed it.
"""

from transformer.metrics.corpus_scores import (
    bleu,
    bleu_metric,
    check_aligned,
    chrf,
    exact_match,
    moses_tokens,
    scores,
)
from transformer.metrics.risk import minimum_risk, sentence_chrf
from transformer.metrics.significance import Difference, mean_and_spread, paired_bootstrap

__all__ = [
    "Difference",
    "bleu",
    "bleu_metric",
    "check_aligned",
    "chrf",
    "exact_match",
    "mean_and_spread",
    "minimum_risk",
    "moses_tokens",
    "paired_bootstrap",
    "scores",
    "sentence_chrf",
]
