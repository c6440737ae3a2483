"""`python -m transformer diversify`: more training pairs, by translating those that there are."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformer.cli.options import (
    Commands,
    add_corpus_options,
    add_device_option,
    positive,
    read_corpus,
)
from transformer.cli.recipe_options import add_recipe_option, use_recipe
from transformer.corpora import Corpus
from transformer.files import atomic_write, check_writable
from transformer.translator import Translator

Pairs = list[tuple[str, str]]


def add_diversify(commands: Commands) -> None:
    """Add the command `diversify` and its options."""
    command = commands.add_parser(
        "diversify",
        help="translate the training pairs with trained models, as further pairs",
        epilog="Data diversification (Nguyen et al. 2020): train models of both directions with "
        "several seeds, diversify, and train once more with --add.",
    )
    add_recipe_option(command)
    add_corpus_options(command)
    command.add_argument(
        "--forward",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="models that translate the training sources: their translations become targets",
    )
    command.add_argument(
        "--backward",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="models of the other direction: their translations of the targets become sources",
    )
    command.add_argument("--beam", type=positive, help="(default: each model's own)")
    command.add_argument(
        "--out", type=Path, required=True, help="the files' name, without the two languages"
    )
    add_device_option(command)
    command.set_defaults(run=run_diversify)


def run_diversify(options: argparse.Namespace) -> None:
    """Write the new pairs into two aligned files, and print their names."""
    use_recipe(options)
    if not options.forward and not options.backward:
        raise ValueError("give models to translate with: --forward, --backward, or both")
    languages = (options.src or "src", options.tgt or "tgt")
    paths = [options.out.with_name(f"{options.out.name}.{name}") for name in languages]
    for path in paths:
        check_writable(path)
    corpus = read_corpus(options)
    pairs = diversified(list(corpus.train), options)
    for side, path in enumerate(paths):
        atomic_write(path, "".join(f"{pair[side]}\n" for pair in pairs).encode())
    print(*paths)


def diversified(pairs: Pairs, options: argparse.Namespace) -> Pairs:
    """Return the pairs that the models make, each once, without those that there were before."""
    found: dict[tuple[str, str], None] = {}
    for model in options.forward:
        texts = translations(model, [src for src, _ in pairs], options)
        found |= dict.fromkeys((src, text) for (src, _), text in zip(pairs, texts, strict=True))
    for model in options.backward:
        texts = translations(model, [tgt for _, tgt in pairs], options)
        found |= dict.fromkeys((text, tgt) for (_, tgt), text in zip(pairs, texts, strict=True))
    known = set(pairs)
    return [pair for pair in found if all(pair) and pair not in known]


def translations(model: str, texts: Sequence[str], options: argparse.Namespace) -> Sequence[str]:
    """Return a model's translations of texts; empty where there is none."""
    translator = Translator.load(model, options.device)
    return translator.translate(texts, options.beam, progress=True)


# --- training with them ---------------------------------------------------------------------------


def add_pairs_option(command: argparse.ArgumentParser) -> None:
    """Add the option that names further training pairs."""
    command.add_argument(
        "--add",
        nargs=2,
        metavar=("SRC", "TGT"),
        help="two aligned files with further training pairs, such as those of `diversify`",
    )


def with_pairs(corpus: Corpus, further: Sequence[tuple[str, str]]) -> Corpus:
    """Return the corpus with further training pairs, each pair once."""
    train = list(dict.fromkeys([*corpus.train, *further]))
    files = {name: paths for name, paths in corpus.files.items() if name != "train"}
    return replace(corpus, train=train, files=files)
