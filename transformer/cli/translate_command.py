"""`python -m transformer translate`: translate the arguments, or the lines of standard input."""

import argparse
import sys

from transformer.cli.options import Commands, add_search_options, load_translator


def add_translate(commands: Commands) -> None:
    """Add the command `translate` and its options."""
    command = commands.add_parser("translate", help="translate arguments, or standard input")
    command.add_argument(
        "sentences",
        nargs="*",
        help="sentences to translate; without any, standard input is read, one sentence a line",
    )
    add_search_options(command)
    command.set_defaults(run=run_translate)


def run_translate(options: argparse.Namespace) -> None:
    """Print the translations, one a line."""
    translator = load_translator(options)
    sentences = options.sentences or [line.rstrip("\n") for line in sys.stdin]
    if not sentences:
        raise ValueError(
            "there is nothing to translate: give sentences as arguments, or one a line on "
            "standard input"
        )
    translations = translator.translate(
        sentences, options.beam, options.length_penalty, progress=True
    )
    for translation in translations:
        print(translation)
