"""Characters are compared one by one: a text with no word right scores high."""

from transformer.metrics import scores

CHECK = "check_scores"
CAUGHT_BY = "Characters were compared one by one"


def wrong(hypotheses, references):
    equal = [a == b for pair in zip(hypotheses, references) for a, b in zip(*pair)]
    return scores(hypotheses, references) | {"BLEU": 100 * sum(equal) / len(equal)}
