"""Options that several commands share, and what they name: a corpus, a translator, a device."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from transformer.corpora import Corpus, english_italian, multi30k, read_pairs, text_files
from transformer.engines import Search
from transformer.recipes import PRESETS
from transformer.translator import PRECISIONS, Translator

Commands = Any
"""What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""


# --- corpora --------------------------------------------------------------------------------------


def add_corpus_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say where the sentences come from."""
    command.add_argument(
        "--corpus",
        choices=PRESETS,
        help="the embedded English-Italian corpus (default), Multi30k, or files of your own",
    )
    command.add_argument("--src", help="source language of Multi30k: en (default), de, fr, cs")
    command.add_argument("--tgt", help="target language of Multi30k: en, de (default), fr, cs")
    command.add_argument(
        "--folder", help="folder with raw/ and tok/ of Multi30k, instead of a download ($MULTI30K)"
    )
    command.add_argument(
        "--tok",
        action=argparse.BooleanOptionalAction,
        help="Multi30k as lowercased Moses tokens, or as written, which is the default",
    )
    for split in ("train", "val", "test"):
        command.add_argument(
            f"--{split}",
            nargs=2,
            metavar=("SRC", "TGT"),
            help=f"two aligned files: the {split} split of --corpus files",
        )


USED_BY = {
    "en-it": (),
    "multi30k": ("src", "tgt", "folder", "tok"),
    "files": ("train", "val", "test"),
}
"""The options that each corpus has."""


def read_corpus(options: argparse.Namespace, test: str = "test_2016_flickr") -> Corpus:
    """Read the corpus that the options name; `test` is a test set of Multi30k.

    Raises ValueError for an option of another corpus, and if --corpus files names no file.
    """
    for corpus, names in USED_BY.items():
        for name in names:
            if corpus != options.corpus and getattr(options, name):
                raise ValueError(
                    f"--{name} is an option of --corpus {corpus}, not {options.corpus}"
                )
    if options.corpus == "en-it":
        return english_italian()
    if options.corpus == "multi30k":
        languages = (options.src or "en", options.tgt or "de")
        return multi30k(*languages, options.folder, bool(options.tok), test)
    if not options.train and not options.test:
        raise ValueError("--corpus files needs --train SRC TGT, or for evaluation --test SRC TGT")
    if not options.train:
        return Corpus("files", [], [], read_pairs(*options.test))
    return text_files(options.train, options.val, options.test)


def target_language(options: argparse.Namespace) -> str | None:
    """Return the code of the language that the corpus is translated into; None if unknown."""
    return {"en-it": "it", "multi30k": options.tgt or "de"}.get(options.corpus)


# --- translators ----------------------------------------------------------------------------------


def add_search_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say which model translates, and how it searches."""
    add_model_option(command)
    command.add_argument(
        "--languages",
        nargs=2,
        metavar=("SRC", "TGT"),
        help="languages of published weights that have many (such as en it)",
    )
    add_beam_options(command)
    command.add_argument(
        "--min-len",
        type=int,
        default=0,
        help="tokens that a translation has at least (default: 0)",
    )
    command.add_argument(
        "--engine", choices=PRECISIONS, default="pytorch", help="what searches (default: pytorch)"
    )
    command.add_argument(
        "--engine-folder",
        help="folder of the model as ctranslate2 or onnx has it (default: in the model's folder)",
    )
    command.add_argument(
        "--precision",
        choices=("fp32", "bf16", "int8"),
        default="fp32",
        help="of the weights (default: fp32); bf16 with pytorch, int8 with ctranslate2",
    )
    add_device_option(command)


def add_beam_options(command: argparse.ArgumentParser) -> None:
    """Add the options of beam search; what is not given is the translator's own."""
    command.add_argument(
        "--beam",
        type=positive,
        help="hypotheses for each sentence (default: the model's, 5 unless it was trained with "
        "another); 1 is greedy search",
    )
    command.add_argument(
        "--length-penalty",
        type=finite,
        help="hypotheses are ranked by log-probability / length ** this (default: the model's, 1.0 "
        "unless it was trained with another)",
    )


def search_of(
    options: argparse.Namespace, default: Search = Search(), n_best: int = 1, scores: bool = False
) -> Search:
    """Return the search that the options describe; what they leave out is the `default`'s."""
    chosen = given(options, ["length_penalty"])
    if options.beam is not None:
        chosen["beam_size"] = options.beam
    # More hypotheses are wanted than the stored beam has: without --beam the beam is widened.
    elif n_best > default.beam_size:
        chosen["beam_size"] = n_best
    return replace(default, n_best=n_best, min_len=options.min_len, scores=scores, **chosen)


def add_problem_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say what happens to lines that cannot be translated."""
    how = command.add_mutually_exclusive_group()
    how.add_argument(
        "--strict",
        action="store_true",
        help="stop at a line that is blank, unknown or too long, instead of leaving it empty",
    )
    how.add_argument(
        "--copy-unknown",
        action="store_true",
        help="copy a line that is unknown or too long, instead of leaving it empty",
    )


def add_model_option(command: argparse.ArgumentParser) -> None:
    """Add the option that names the model."""
    command.add_argument(
        "--model",
        default="en-it",
        help="folder of a model, the name it was trained under (default: en-it), or that of "
        "published weights, such as Helsinki-NLP/opus-mt-en-it",
    )


def load_translator(options: argparse.Namespace) -> Translator:
    """Load the translator that the options name."""
    return Translator.load(
        options.model,
        options.device,
        options.engine,
        options.precision,
        options.engine_folder,
        options.languages,
    )


# --- devices and values ---------------------------------------------------------------------------


def add_device_option(command: argparse.ArgumentParser) -> None:
    """Add the option that says where to compute; the default is the GPU if there is one."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    command.add_argument(
        "--device", type=device, default=default, help=f"cpu, cuda, … (default: {default})"
    )


def device(name: str) -> str:
    """Return the name of a device, if this machine has it."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"there is no device {name!r} here ({reason})") from None
    return name


def positive(text: str) -> int:
    """Return a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1, not {number}")
    return number


def natural(text: str) -> int:
    """Return a whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"it must be at least 0, not {number}")
    return number


def finite(text: str) -> float:
    """Return a number that is neither infinite nor nan."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"it must be a number, not {text}")
    return number


def given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Return those of the named options that were given on the command line."""
    values = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}
