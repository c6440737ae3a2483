"""The validation loss is a mean of means: a short batch counts as much as a full one."""

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "a mean over all tokens"


class wrong(Trainer):
    def validate(self, batches):
        losses = [super(wrong, self).validate([batch]) for batch in batches]
        return sum(losses) / len(losses)
