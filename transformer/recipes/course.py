"""The translator of the course: trained once, and kept in the cache folder."""

import hashlib
from pathlib import Path

from transformer.corpora import english_italian
from transformer.files import atomic_write, cache_dir, folder_lock
from transformer.recipes.fit import fit
from transformer.recipes.presets import ENGLISH_ITALIAN

REVISION = 1  # raise it when a change of the code changes the translator


def recipe_hash() -> str:
    """Return a hash of what the translator is made by: its preset, and the revision of the code."""
    return hashlib.sha256(repr((REVISION, ENGLISH_ITALIAN)).encode()).hexdigest()[:16]


def trained_translator(name: str = "en-it") -> Path:
    """Return the folder of the English→Italian translator; train it first if it is not there.

    Training takes two to four minutes on two cores. A translator of another preset or revision is
    trained anew. Several processes may ask at once: one trains, the others wait.
    """
    folder = cache_dir() / name
    stamp = folder / "recipe_hash"
    with folder_lock(folder):
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != recipe_hash():
            fit(english_italian(), folder, ENGLISH_ITALIAN)
            atomic_write(stamp, recipe_hash().encode())
    return folder
