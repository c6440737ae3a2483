"""`python -m transformer train --init NAME`: continue from published weights."""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

from transformer.cli.options import given, read_corpus
from transformer.files import cache_dir
from transformer.model import Config
from transformer.recipes import Techniques, fine_tune, holds_run, only_run
from transformer.recipes.fine_tuning import FINE_TUNING
from transformer.training import TrainingConfig

NOT_WITH_INIT = [field.name for settings in (Config, Techniques) for field in fields(settings)]
NOT_WITH_INIT += ["resume", "checkpoint", "skip_long", "strict", "recipe", "add", "tensorboard"]
NOT_WITH_INIT += ["beam", "length_penalty"]


def add_init(command: argparse.ArgumentParser) -> None:
    """Add the options that name published weights."""
    command.add_argument(
        "--init",
        metavar="NAME",
        help="go on from published weights: a folder, or a name such as Helsinki-NLP/opus-mt-en-it;"
        " sizes are theirs, and defaults those of fine-tuning",
    )
    command.add_argument(
        "--languages",
        nargs=2,
        metavar=("SRC", "TGT"),
        help="languages of --init, if it has many (such as en it, or eng_Latn ita_Latn)",
    )


def run_init(options: argparse.Namespace, should_stop: Callable[[], bool]) -> None:
    """Fine-tune published weights and leave them in a folder that `transformers` loads."""
    for name in NOT_WITH_INIT:
        if getattr(options, name, None) not in (None, False):
            option = name.replace("_", "-")
            raise ValueError(f"--{option} cannot be used with --init, which keeps model and search")
    training = replace(FINE_TUNING, **given(options, [f.name for f in fields(TrainingConfig)]))
    minutes = given(options, ["minutes"]).get("minutes", math.inf)
    if minutes < math.inf and options.steps is None:
        training = replace(training, steps=10**9)
    corpus = read_corpus(options)
    folder = Path(options.out) if options.out else cache_dir() / f"{corpus.name}-tuned"
    if holds_run(folder) and not options.overwrite:
        raise ValueError(f"{folder} holds a translator: replace it with --overwrite")
    with only_run(folder):
        history = fine_tune(
            corpus,
            folder,
            options.init,
            training,
            languages=options.languages,
            minutes=minutes,
            device=options.device,
            precision=options.precision or "auto",
            should_stop=should_stop,
        )
    before = history[0]["val_loss"]
    best = min(row["val_loss"] for row in history[1:])
    print(
        f"validation loss {before:.3f} before and {best:.3f} after, in nats a token; the "
        f"translator is in {folder}",
        file=sys.stderr,
    )
