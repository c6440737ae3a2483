"""The last cell of chapter 12: translate with the learner's model, and say who wrote it."""

import importlib

import torch

from transformer.course.commands import chosen
from transformer.course.exercise import WriteBlock
from transformer.course.exercises import exercise
from transformer.course.folder import Folder, find
from transformer.course.home import use_folder
from transformer.course.lessons import LESSONS
from transformer.course.rows import share
from transformer.course.running import examine
from transformer.translator import Translator

LAST = next(one.number for one in LESSONS if one.module == "inference")
"""The last chapter of which the translator is made."""


def translate_with(package: str, text: str) -> str:
    """Translate with a learner's model and search, print who wrote them, return the translation.

    The weights are those of the trained translator. Raises ValueError if they do not fit.
    """
    use_folder(package)
    translation = translated(package, text)
    folder = find(next(iter(importlib.import_module(package).__path__)))
    percent = share(examine(folder, blocks_of_the_translator(folder)))
    print(f"{text} → {translation}, {percent} % yours")
    return translation


def blocks_of_the_translator(folder: Folder) -> list[str]:
    """List the blocks of the chapters that end with the search; later ones are not used."""
    blocks = [name for name in chosen(folder, ()) if isinstance(exercise(name), WriteBlock)]
    return [name for name in blocks if exercise(name).chapter <= LAST]


def translated(package: str, text: str) -> str:
    """Translate a sentence with the learner's modules and the trained weights."""
    model_module, inference, data = (
        importlib.import_module(f"{package}.{name}") for name in ("model", "inference", "data")
    )
    trained = Translator.load("en-it")
    model = model_module.Transformer(trained.model.config)
    try:
        model.load_state_dict(trained.model.state_dict())
    except RuntimeError:
        raise ValueError(
            "the trained weights do not fit your model: its layers must have the names of the "
            "library's, such as w_q or feed_forward"
        ) from None
    model.eval()
    src = torch.tensor(data.encode(trained.tokenizer, [text]))
    ids, _ = inference.beam_search(model, src, beam_size=5)
    return data.decode(trained.tokenizer, ids.tolist())[0]
