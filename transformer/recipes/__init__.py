"""Recipes: which settings train which corpus, and the run that does it.

`MULTI30K`, `ENGLISH_ITALIAN` and `TEXT_FILES` are presets; `fit` trains a corpus into a folder, and
`trained_translator` returns the folder of the course's own translator.
"""

from transformer.recipes.course import trained_translator
from transformer.recipes.fine_tuning import FINE_TUNING, fine_tune
from transformer.recipes.fit import fast_trainer, fit
from transformer.recipes.presets import ENGLISH_ITALIAN, MULTI30K, PRESETS, TEXT_FILES, Preset
from transformer.recipes.resuming import SavedRun, corpus_hash, is_same_run, read_run
from transformer.recipes.run_folder import checkpoints, holds_run, only_run

__all__ = [
    "ENGLISH_ITALIAN",
    "FINE_TUNING",
    "MULTI30K",
    "PRESETS",
    "TEXT_FILES",
    "Preset",
    "SavedRun",
    "checkpoints",
    "corpus_hash",
    "fast_trainer",
    "fine_tune",
    "fit",
    "holds_run",
    "is_same_run",
    "only_run",
    "read_run",
    "trained_translator",
]
