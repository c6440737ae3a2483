"""max_grad_norm is a setting that nothing reads."""

import math
from dataclasses import replace

from transformer.training import Trainer

CHECK = "check_trainer"
CAUGHT_BY = "Clipping is left out"


class wrong(Trainer):
    def __init__(self, model, config):
        super().__init__(model, replace(config, max_grad_norm=math.inf))
