"""Presets: for each corpus the vocabulary, the sizes of the model, and how to train it."""

import math
from dataclasses import dataclass, field
from typing import Any

from transformer.model import Config
from transformer.recipes.techniques import Techniques
from transformer.training import TrainingConfig


@dataclass(frozen=True)
class Decoding:
    """How a model is best searched: what its translator does unless told otherwise.

    Hypotheses are ranked by log-probability / length ** `length_penalty`; a `beam_size` of 1 is
    greedy search. Raises ValueError for what cannot be searched.
    """

    beam_size: int = 5
    length_penalty: float = 1.0

    def __post_init__(self):
        if self.beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, not {self.beam_size}")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty must be a number, not {self.length_penalty}")


@dataclass(frozen=True)
class Preset:
    """Hold all settings of a run.

    `sizes` are changes to `Config.tiny`. The run ends after `training.steps` or after `minutes` of
    training, whichever comes first. `decoding` is stored with the model.
    """

    vocab_size: int
    training: TrainingConfig
    sizes: dict[str, Any] = field(default_factory=dict)
    minutes: float = math.inf
    techniques: Techniques = field(default_factory=Techniques)
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self):
        if not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, not {self.minutes!r}")

    def model_config(self, vocab_size: int) -> Config:
        """Return the model's config for a vocabulary that may have come out smaller than wanted."""
        return Config.tiny(vocab_size, **self.sizes)


ENGLISH_ITALIAN = Preset(
    vocab_size=600,
    sizes={"n_layers": 2, "dropout": 0.1},
    training=TrainingConfig(
        steps=1_000,  # about one epoch
        max_tokens=1024,
        warmup=100,
        peak_lr=3e-3,
        label_smoothing=0.0,  # the grammar has one translation for every sentence
        ema_decay=0.99,
        validate_every=100,
    ),
)
MULTI30K = Preset(
    vocab_size=10_000,
    training=TrainingConfig(max_tokens=2048, warmup=800),
    minutes=30.0,
)
TEXT_FILES = MULTI30K
PRESETS = {"en-it": ENGLISH_ITALIAN, "multi30k": MULTI30K, "files": TEXT_FILES}
