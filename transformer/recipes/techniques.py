"""Techniques that help when there are few sentences to train on; each is off by default.

Each is plugged into chapter 11's `Trainer` from above: as a loss, as a change of the batches, or as
another average of the weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial

from transformer.data import Pair
from transformer.fast_training import Loss, chunked_loss
from transformer.model import Transformer
from transformer.recipes.averaging import CheckpointMean
from transformer.recipes.consistency import r_drop_loss, simcut_loss
from transformer.recipes.cooldown import Cooldown
from transformer.recipes.lexicon import start_from_lexicon
from transformer.recipes.muon import Muon
from transformer.recipes.sampled_softmax import sampled_loss, sampled_outputs
from transformer.recipes.target_vocab import OutputsOf, keep_targets, kept_outputs, target_loss
from transformer.recipes.word_dropout import with_word_dropout
from transformer.training import Trainer


@dataclass(frozen=True)
class Techniques:
    """Which techniques a run uses, and how strongly; 0 leaves one out.

    - `simcut`: the weight of SimCut's consistency loss, with a share `simcut_p` of the tokens cut.
      Source: Gao et al. 2022 (they use 3 and 0.05).
    - `r_drop`: the weight of R-Drop's consistency loss. Source: Liang et al. 2021 (they use 5).
    - `bpe_dropout`: the probability that a merge of subwords is left out, drawn anew for every
      batch. Source: Provilkov et al. 2020 (they use 0.1).
    - `word_dropout`: the share of the tokens that are read as <unk>, the same in both passes of
      SimCut and R-Drop. Source: Gal and Ghahramani 2016; Sennrich and Zhang 2019.
    - `lexicon`: how much of a source token's first embedding comes from its translations, which are
      counted before the first step. Source: Brown et al. 1993, for the counting.
    - `min_count`: how often a token must be in the training targets to be kept in the output layer.
      Source: Jean et al. 2015, for output layers of fewer words (1 keeps all that are there).
    - `sampled_softmax`: the tokens that a step draws for its softmax, beside those that are labels
      in its batch. Source: Jean et al. 2015.
    - `both_directions`: the first steps, which learn to translate in both directions. Source: Ding
      et al. 2021 (they use a third of all steps).
    - `average_last`: the checkpoints whose mean is the model, instead of a moving average. Source:
      Vaswani et al. 2017, section 6.1.
    - `cooldown`: the share of the run, at its end, in which the learning rate falls to 0. Source:
      Hägele et al. 2024 (they use 0.2).
    - `muon`: how many times Adam's learning rate Muon has, which then trains the matrices of the
      layers. Source: Jordan et al. 2024; Liu et al. 2025 (they use 1).
    - `patience`: validations in a row without a lower loss after which a run ends.

    Raises ValueError for a value that makes no sense, and for two consistency losses at once.
    """

    simcut: float = 0.0
    simcut_p: float = 0.05
    r_drop: float = 0.0
    bpe_dropout: float = 0.0
    word_dropout: float = 0.0
    lexicon: float = 0.0
    min_count: int = 0
    sampled_softmax: int = 0
    both_directions: int = 0
    average_last: int = 0
    cooldown: float = 0.0
    muon: float = 0.0
    patience: int = 0

    def __post_init__(self):
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{each.name} must be at least 0, not {value!r}")
        for name in ("simcut_p", "bpe_dropout", "word_dropout", "cooldown"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, not {getattr(self, name)!r}")
        if self.lexicon > 1:
            raise ValueError(f"lexicon must be at most 1, not {self.lexicon!r}")
        if self.simcut and self.r_drop:
            raise ValueError("simcut and r_drop are two forms of one idea: one must be 0")
        if self.min_count and self.both_directions:
            raise ValueError("min_count must be 0: both_directions needs the whole output layer")

    def prepare(self, model: Transformer, pairs: Sequence[Pair]) -> None:
        """Give a new model what it starts with."""
        if self.lexicon:
            start_from_lexicon(model, pairs, self.lexicon)
        if self.min_count:
            keep_targets(model, pairs, self.min_count)

    def loss(self) -> Loss:
        """Return the loss to train with; in eval mode it is the plain one, or `target_loss`."""
        outputs: OutputsOf = kept_outputs
        loss: Loss = target_loss if self.min_count else chunked_loss
        if self.sampled_softmax:
            outputs = partial(sampled_outputs, n_sampled=self.sampled_softmax)
            loss = partial(sampled_loss, n_sampled=self.sampled_softmax)
        if self.simcut:
            loss = simcut_loss(self.simcut, self.simcut_p, outputs)
        if self.r_drop:
            loss = r_drop_loss(self.r_drop, outputs)
        return with_word_dropout(loss, self.word_dropout) if self.word_dropout else loss

    def trainer(self) -> Callable[..., Trainer]:
        """Return what makes the trainer: `Trainer`, or one with another average."""
        return partial(CheckpointMean, self.average_last) if self.average_last else Trainer

    def hook_into(self, trainer: Trainer) -> Cooldown:
        """Let the trainer's optimizer call the cooldown, which is returned, and then Muon.

        Muon comes second because the cooldown sets its learning rate, too.
        """
        cooldown = Cooldown(self.cooldown)
        trainer.optimizer.register_step_pre_hook(cooldown)
        if self.muon:
            trainer.optimizer.register_step_pre_hook(Muon(trainer.model, self.muon))
        return cooldown
