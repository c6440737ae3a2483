"""Options that several commands share, and what they name: a corpus, a translator, a device."""

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from transformer.corpora import Corpus, english_italian, multi30k, read_pairs, text_files
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
        default="en-it",
        help="the embedded English-Italian corpus (default), Multi30k, or files of your own",
    )
    command.add_argument(
        "--src", default="en", help="source language of Multi30k: en (default), de, fr, cs"
    )
    command.add_argument(
        "--tgt", default="de", help="target language of Multi30k: en, de (default), fr, cs"
    )
    command.add_argument(
        "--folder", help="folder with raw/ and tok/ of Multi30k, instead of a download ($MULTI30K)"
    )
    command.add_argument(
        "--tok", action="store_true", help="Multi30k as lowercased Moses tokens, not as raw text"
    )
    for split in ("train", "val", "test"):
        command.add_argument(
            f"--{split}",
            nargs=2,
            metavar=("SRC", "TGT"),
            help=f"two aligned files: the {split} split of --corpus files",
        )


def read_corpus(options: argparse.Namespace) -> Corpus:
    """Read the corpus that the options name; ValueError if --corpus files names no file."""
    if options.corpus == "en-it":
        return english_italian()
    if options.corpus == "multi30k":
        return multi30k(options.src, options.tgt, options.folder, options.tok)
    if not options.train and not options.test:
        raise ValueError("--corpus files needs --train SRC TGT, or for evaluation --test SRC TGT")
    if not options.train:
        return Corpus("files", [], [], read_pairs(*options.test))
    return text_files(options.train, options.val, options.test)


# --- translators ----------------------------------------------------------------------------------


def add_search_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say which model translates, and how it searches."""
    add_model_option(command)
    command.add_argument(
        "--beam",
        type=int,
        default=5,
        help="hypotheses for each sentence (default: 5); 1 is greedy search",
    )
    command.add_argument(
        "--length-penalty",
        type=float,
        default=1.0,
        help="hypotheses are ranked by log-probability / length ** this (default: 1.0)",
    )
    command.add_argument(
        "--engine", choices=PRECISIONS, default="pytorch", help="what searches (default: pytorch)"
    )
    command.add_argument(
        "--precision",
        choices=("fp32", "bf16", "int8"),
        default="fp32",
        help="of the weights (default: fp32); bf16 with pytorch, int8 with ctranslate2",
    )
    add_device_option(command)


def add_model_option(command: argparse.ArgumentParser) -> None:
    """Add the option that names the model."""
    command.add_argument(
        "--model",
        default="en-it",
        help="folder of a model, or the name it was trained under (default: en-it)",
    )


def load_translator(options: argparse.Namespace) -> Translator:
    """Load the translator that the options name."""
    return Translator.load(options.model, options.device, options.engine, options.precision)


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


def given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Return those of the named options that were given on the command line."""
    values = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}
