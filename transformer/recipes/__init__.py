"""Recipes: which settings train which corpus, and the run that does it.

`MULTI30K`, `ENGLISH_ITALIAN` and `TEXT_FILES` are presets; `read_recipe` reads one from a file,
with the corpus that it is for. `Techniques` are what helps when there is little data. `fit` trains
a corpus into a folder, and `trained_translator` returns the folder of the course's own translator.
"""

from transformer.recipes.course import trained_translator
from transformer.recipes.fine_tuning import FINE_TUNING, fine_tune
from transformer.recipes.fit import fast_trainer, fit
from transformer.recipes.presets import (
    ENGLISH_ITALIAN,
    MULTI30K,
    PRESETS,
    TEXT_FILES,
    Decoding,
    Preset,
)
from transformer.recipes.recipe_files import Recipe, read_recipe, recipe_names, settings_of
from transformer.recipes.resuming import SavedRun, corpus_hash, is_same_run, read_run
from transformer.recipes.run_folder import checkpoints, holds_run, only_run
from transformer.recipes.techniques import Techniques

__all__ = [
    "ENGLISH_ITALIAN",
    "FINE_TUNING",
    "MULTI30K",
    "PRESETS",
    "TEXT_FILES",
    "Decoding",
    "Preset",
    "Recipe",
    "SavedRun",
    "Techniques",
    "checkpoints",
    "corpus_hash",
    "fast_trainer",
    "fine_tune",
    "fit",
    "holds_run",
    "is_same_run",
    "only_run",
    "read_recipe",
    "read_run",
    "recipe_names",
    "settings_of",
    "trained_translator",
]
