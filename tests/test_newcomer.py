"""What a newcomer looks for is where its name says, and `help()` explains it in a sentence."""

import importlib
import inspect
import pydoc
import re

import pytest

GUESSES = {
    "BLEU": "transformer.metrics.bleu",
    "the loss that the trainer uses": "transformer.training.label_smoothed_loss",
    "the default settings for Multi30k": "transformer.recipes.MULTI30K",
    "the folder of downloads and trained models": "transformer.files.cache_dir",
    "the engine that runs CTranslate2": "transformer.engines.ctranslate2.CTranslate2Engine",
    "how the weights start": "transformer.model.init_weights",
}
each_guess = pytest.mark.parametrize("name", GUESSES.values(), ids=GUESSES.keys())


def find(name: str) -> object:
    """Return what a dotted name stands for, as `from module import name` would."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def first_line(thing: object) -> str:
    """Return the first line that `help()` says about something, or about its class."""
    text = inspect.getdoc(thing)
    assert text is not None, f"help({thing!r}) has no docstring"
    return text.splitlines()[0]


def is_sentence(line: str) -> bool:
    """Return whether a line is a sentence of several words, and not a generated signature."""
    ends = line.endswith((".", ":")) or re.search(r"\.\s", line)
    return (
        line[0].isupper() and bool(ends) and len(line.split()) >= 4 and "(" not in line.split()[0]
    )


@each_guess
def test_it_is_where_its_name_says(name: str) -> None:
    assert find(name) is not None


@each_guess
def test_help_begins_with_a_sentence(name: str) -> None:
    thing = find(name)
    assert is_sentence(first_line(thing))
    assert first_line(thing) in pydoc.plain(pydoc.render_doc(thing))


def test_what_is_no_sentence_is_seen() -> None:
    assert is_sentence("Return the BLEU of a whole test set.")
    for line in (
        "TrainingConfig(steps: int = 1)",
        "bleu",
        "A short one.",
        "return what is asked for.",
    ):
        assert not is_sentence(line)


def test_the_trainer_uses_the_loss_that_was_found() -> None:
    from transformer import training

    default = inspect.signature(training.Trainer).parameters["loss"].default
    assert "label_smoothed_loss" in inspect.unwrap(default).__code__.co_names


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path) -> None:
    from transformer.files import cache_dir

    monkeypatch.setenv("TRANSFORMER_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path


def test_the_settings_of_multi30k_can_be_read() -> None:
    from transformer.recipes import MULTI30K
    from transformer.training import TrainingConfig

    assert isinstance(MULTI30K.training, TrainingConfig)
    assert "max_tokens=2048" in repr(MULTI30K)
