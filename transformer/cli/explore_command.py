"""`python -m transformer explore`: write a page that shows how a sentence is translated."""

import argparse
from pathlib import Path

from transformer.cli.options import Commands, add_beam_options, add_model_option
from transformer.cli.translate_command import argument
from transformer.files import check_writable
from transformer.translator import Translator


def add_explore(commands: Commands) -> None:
    """Add the command `explore` and its options."""
    command = commands.add_parser(
        "explore", help="write a page that shows how a sentence is translated, step by step"
    )
    command.add_argument("sentence", nargs="?", help="the sentence to translate")
    add_model_option(command)
    add_beam_options(command)
    command.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("explorer.html"),
        help="the page, which is replaced if it exists (default: explorer.html)",
    )
    command.add_argument(
        "--live",
        type=Path,
        metavar="FOLDER",
        help="write instead a folder for a web server, in which the model runs in the browser",
    )
    command.set_defaults(run=run_explore)


def run_explore(options: argparse.Namespace) -> None:
    """Write the page, or the folder of the live page, and print its path."""
    from transformer.explorer import explore, write_live

    if options.live:
        translator = Translator.load(options.model)
        print(write_live(translator, options.live, options.sentence or "I love you very much"))
        return
    if options.sentence is None:
        raise ValueError("explore needs a sentence, such as: explore 'I love you very much'")
    check_writable(options.out)
    sentence = argument(1, options.sentence)
    translator = Translator.load(options.model)
    search = translator.search
    beam = options.beam or search.beam_size
    penalty = search.length_penalty if options.length_penalty is None else options.length_penalty
    page = explore(translator, sentence, beam, penalty)
    print(page.save(options.out))
