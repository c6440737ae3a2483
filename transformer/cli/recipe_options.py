"""Recipes on the command line: where a command's settings come from, and what replaces them."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from transformer.cli.options import given, natural
from transformer.recipes import Preset, Recipe, Techniques, read_recipe, recipe_names, settings_of
from transformer.recipes.monitoring import Callback, TensorBoard, print_samples

SETTINGS = (
    ("simcut", float, "weight of SimCut's consistency loss; 3 is usual"),
    ("simcut-p", float, "share of the tokens that SimCut cuts"),
    ("r-drop", float, "weight of R-Drop's consistency loss; 5 is usual"),
    ("bpe-dropout", float, "probability that a merge of subwords is left out; 0.1 is usual"),
    ("word-dropout", float, "share of the tokens that are read as <unk>; 0.1 is usual"),
    ("lexicon", float, "start source tokens from their translations, to this degree; 0.7 is usual"),
    ("min-count", int, "times that a token must be in the targets to be written; 1 is usual"),
    ("sampled-softmax", int, "tokens to draw for a step's softmax beside its labels; try 500"),
    ("both-directions", int, "first steps, which learn to translate in both directions"),
    ("average-last", int, "checkpoints whose mean is the model, not a moving average"),
    ("cooldown", float, "last share of the run, in which the learning rate falls to 0"),
    ("muon", float, "train the layers' matrices by Muon, at so many times Adam's rate; 1 is usual"),
    ("patience", int, "stop after so many validations without a lower loss"),
)
DECODING = (
    ("beam", int, "hypotheses for each sentence, stored with the model"),
    ("length-penalty", float, "exponent of the length, stored with the model"),
)


def add_recipe_option(command: argparse.ArgumentParser) -> None:
    """Add the option that names a recipe."""
    command.add_argument(
        "--recipe",
        help="take corpus, languages and settings from a recipe: a file's path, or one of "
        f"{', '.join(recipe_names())}; options that are given replace them",
    )


def add_technique_options(command: argparse.ArgumentParser) -> None:
    """Add the options for little data and for the search that is stored with the model."""
    defaults = asdict(Techniques())
    for name, kind, text in SETTINGS:
        default = defaults[name.replace("-", "_")] or "off"
        command.add_argument(f"--{name}", type=kind, help=f"{text} (default: {default})")
    for (name, kind, text), default in zip(DECODING, (5, 1.0)):
        command.add_argument(f"--{name}", type=kind, help=f"{text} (default: {default})")


def add_monitoring_options(command: argparse.ArgumentParser) -> None:
    """Add the options for what a run shows."""
    command.add_argument(
        "--samples",
        type=natural,
        default=2,
        help="sentences that are translated and shown at each validation (default: 2)",
    )
    command.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write the metrics for TensorBoard, into a folder of that name in --out",
    )


def callbacks_of(options: argparse.Namespace, folder: Path) -> Sequence[Callback]:
    """Return what reads a run's metrics; ValueError if --tensorboard needs a missing package."""
    if not options.tensorboard:
        return [print_samples]
    return [print_samples, TensorBoard(folder / "tensorboard")]


def use_recipe(options: argparse.Namespace) -> Recipe | None:
    """Return the recipe that the options name; its corpus and languages become theirs.

    An option that was given wins, and is announced. Without a recipe the corpus is en-it.
    """
    recipe = read_recipe(options.recipe) if options.recipe else None
    if recipe and options.corpus in (None, recipe.corpus):
        found = {"src": recipe.src, "tgt": recipe.tgt, "tok": recipe.tokenized}
        announce_other(options, list(found), found, recipe.name)
        vars(options).update(found | given(options, list(found)))
    elif recipe:
        announce_other(options, ("corpus",), vars(recipe), recipe.name)
    options.corpus = options.corpus or (recipe.corpus if recipe else "en-it")
    return recipe


def announce_settings(options: argparse.Namespace, recipe: Recipe) -> None:
    """Print a sentence for each setting that an option takes out of the recipe's hands."""
    found = settings_of(recipe.preset) | {"precision": recipe.precision}
    found["beam"] = found["beam_size"]
    announce_other(options, list(found), found, recipe.name)


def announce_other(
    options: argparse.Namespace, names: Sequence[str], found: dict[str, Any], recipe: str
) -> None:
    """Print a sentence for each option that was given and is not what the recipe has."""
    for name, value in given(options, names).items():
        if value != found[name]:
            option = name.replace("_", "-")
            print(f"{option} is {value}, not {found[name]} as in {recipe}", file=sys.stderr)


def with_techniques(preset: Preset, options: argparse.Namespace) -> Preset:
    """Return the preset with the techniques and the decoding that the options name."""
    techniques = given(options, [field.name for field in fields(Techniques)])
    decoding = given(options, ["length_penalty"])
    if options.beam is not None:
        decoding["beam_size"] = options.beam
    return replace(
        preset,
        techniques=replace(preset.techniques, **techniques),
        decoding=replace(preset.decoding, **decoding),
    )
