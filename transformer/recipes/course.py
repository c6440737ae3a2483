"""The translator of the course: trained once, and kept in the cache folder."""

import hashlib
import os
import sys
from pathlib import Path

from transformer.corpora import english_italian
from transformer.files import atomic_write, cache_dir, folder_lock
from transformer.recipes.fit import fit
from transformer.recipes.presets import ENGLISH_ITALIAN, Decoding
from transformer.recipes.resuming import read_run, sizes_of
from transformer.recipes.run_folder import STAMP, checkpoints, complete, holds_run
from transformer.recipes.techniques import Techniques

REVISION = 1  # raise it when a change of the code changes the translator


def recipe_hash() -> str:
    """Return a hash of what the translator is made by: its preset, and the revision of the code.

    Settings that are younger than this hash count only if they are not the default ones.
    """
    text = repr((REVISION, ENGLISH_ITALIAN))
    for later in (Techniques(), Decoding()):
        name = type(later).__name__.lower()
        text = text.replace(f", {name}={later!r}", "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trained_translator(name: str = "en-it") -> Path:
    """Return the folder of the English→Italian translator; train it first if it is not there.

    Training takes two or three minutes on two cores. A translator of another preset or revision is
    trained anew. A translator that somebody else trained there is kept under another name. Several
    processes may ask at once: one trains, the others wait.
    """
    folder = cache_dir() / name
    stamp = folder / STAMP
    with folder_lock(folder):
        complete(folder)
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != recipe_hash():
            if not stamp.is_file():
                keep_another(folder)
            fit(english_italian(), folder, ENGLISH_ITALIAN)
            atomic_write(stamp, recipe_hash().encode())
    return folder


def keep_another(folder: Path) -> None:
    """Rename a folder if it holds a run that is not an unfinished one of the course."""
    if not holds_run(folder) or is_unfinished(folder):
        return
    names = (folder.with_name(f"{folder.name}-{number}") for number in range(2, 10**6))
    other = next(path for path in names if not path.exists())
    os.replace(folder, other)
    print(
        f"{folder} held a translator that is not the course's: it is now {other}", file=sys.stderr
    )


def is_unfinished(folder: Path) -> bool:
    """Return whether the last checkpoint in a folder is of the course's own run."""
    try:
        found = read_run(checkpoints(folder)[-1]).preset
    except (IndexError, ValueError):
        return False
    same_sizes = sizes_of(found) == sizes_of(ENGLISH_ITALIAN)
    return same_sizes and found.training == ENGLISH_ITALIAN.training
