"""<s> and </s> stay in the text: two words of every sentence are always right."""

from transformer.metrics import scores

CHECK = "check_scores"
CAUGHT_BY = "<s> and </s> were counted"


def wrong(hypotheses, references):
    return scores(*([f"<s> {text} </s>" for text in texts] for texts in (hypotheses, references)))
