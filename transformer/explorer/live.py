"""The live page: a folder for a web server, in which the model runs in the browser."""

from pathlib import Path

from transformer.translator import Translator


def write_live(translator: Translator, folder: str | Path, sentence: str) -> Path:
    """Write the folder."""
    raise NotImplementedError
