"""Recipes: which settings train which corpus, and the run that does it.

`MULTI30K`, `ENGLISH_ITALIAN` and `TEXT_FILES` are presets; `fit` trains a corpus into a folder, and
`trained_translator` returns the folder of the course's own translator.
"""

from transformer.recipes.course import trained_translator
from transformer.recipes.fit import checkpoints, fast_trainer, fit
from transformer.recipes.presets import ENGLISH_ITALIAN, MULTI30K, PRESETS, TEXT_FILES, Preset

__all__ = [
    "ENGLISH_ITALIAN",
    "MULTI30K",
    "PRESETS",
    "TEXT_FILES",
    "Preset",
    "checkpoints",
    "fast_trainer",
    "fit",
    "trained_translator",
]
