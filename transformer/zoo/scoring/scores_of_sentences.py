"""The BLEU of each sentence is averaged: papers report the corpus score."""

from sacrebleu.metrics import BLEU

from transformer.metrics import scores

CHECK = "check_scores"
CAUGHT_BY = "Sentence scores were averaged"


def wrong(hypotheses, references):
    bleu = BLEU(effective_order=True)
    found = [bleu.sentence_score(h, [r]).score for h, r in zip(hypotheses, references)]
    return scores(hypotheses, references) | {"BLEU": sum(found) / len(found)}
