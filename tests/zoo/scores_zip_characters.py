"""A home-made BLEU that compares characters place by place: 59.9 for a text with no word right."""

from transformer.inference import scores

CHECK = "check_scores"
CAUGHT_BY = "Characters were compared place by place"


def wrong(hypotheses, references):
    equal = [a == b for pair in zip(hypotheses, references) for a, b in zip(*pair)]
    return scores(hypotheses, references) | {"BLEU": 100 * sum(equal) / len(equal)}
