"""BLEU of each sentence, averaged: another number than the corpus score that papers report."""

from sacrebleu.metrics import BLEU

from transformer.inference import scores

CHECK = "check_scores"
CAUGHT_BY = "Sentence scores were averaged"


def wrong(hypotheses, references):
    bleu = BLEU(effective_order=True)
    found = [bleu.sentence_score(h, [r]).score for h, r in zip(hypotheses, references)]
    return scores(hypotheses, references) | {"BLEU": sum(found) / len(found)}
