"""`python -m transformer translate`: translate the arguments, or the lines of standard input."""

import argparse
import json
import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing

from transformer.cli.options import (
    Commands,
    add_problem_options,
    add_search_options,
    load_translator,
    positive,
    search_of,
)
from transformer.cli.problems import Problems
from transformer.cli.sharing import given_to_all, n_best_by_all
from transformer.engines import Search
from transformer.texts import clean, lines_of
from transformer.translator import Translation, Translator

END = object()
"""What follows the last line in the queue between reader and translator."""


def add_translate(commands: Commands) -> None:
    """Add the command `translate` and its options."""
    command = commands.add_parser("translate", help="translate arguments, or standard input")
    command.add_argument(
        "sentences",
        nargs="*",
        help="sentences to translate; without any, standard input is read, one sentence a line",
    )
    add_search_options(command)
    add_problem_options(command)
    command.add_argument(
        "--n-best",
        type=positive,
        default=1,
        metavar="N",
        help="print so many translations of each line with their scores, as JSON, best first",
    )
    command.add_argument(
        "--scores",
        action="store_true",
        help="print JSON with the score of each translation: log-probability / length ** penalty",
    )
    command.add_argument(
        "--buffer",
        type=positive,
        default=2000,
        metavar="LINES",
        help="lines that are read ahead and translated together, at most (default: 2000)",
    )
    command.set_defaults(run=run_translate)


def run_translate(options: argparse.Namespace) -> None:
    """Print the translations as they come, one line for each line."""
    as_json = options.scores or options.n_best > 1
    search_of(options, n_best=options.n_best)  # raises before a model is loaded
    problems = Problems(options.strict, options.copy_unknown)
    translator = load_translator(options)
    search = search_of(options, translator.search, options.n_best, scores=as_json)
    with closing(given_to_all(sources(options, translator))) as groups:
        for lines in groups:
            problems.begin(lines)
            found = translated(translator, lines, search, problems)
            for line, best in zip(lines, found, strict=True):
                print(json_line(line, best) if as_json else best[0].text)
            problems.end()
            sys.stdout.flush()


def translated(
    translator: Translator, lines: list[str], search: Search, problems: Problems
) -> Iterator[list[Translation]]:
    """Yield the translations of each line, at least one: the best, or what stands in its place."""
    found = n_best_by_all(translator, lines, search, problems)
    for i, translations in enumerate(found):
        yield translations or [Translation(problems.instead_of(i), 0.0)]


def json_line(line: str, translations: list[Translation]) -> str:
    """Return a source and its translations as a line of JSON."""
    found = [{"text": text, "score": round(score, 6)} for text, score in translations]
    return json.dumps({"source": line, "translations": found}, ensure_ascii=False)


# --- reading --------------------------------------------------------------------------------------


def sources(options: argparse.Namespace, translator: Translator) -> Iterable[list[str]]:
    """Return the sentences in groups that are translated together; ValueError if there are none."""
    if options.sentences:
        return [[argument(i, text) for i, text in enumerate(options.sentences, start=1)]]
    if sys.stdin is None or sys.stdin.closed:
        raise ValueError("standard input is closed, and there are no sentences as arguments")
    longest = 4 * translator.most_characters + 4  # bytes of UTF-8: a longer line is too long
    return windows(lines_of(sys.stdin.buffer, "standard input", longest), options.buffer)


def argument(number: int, text: str) -> str:
    """Return an argument as it was typed in UTF-8, whatever the locale says, and clean."""
    try:
        return clean(os.fsencode(text).decode("utf-8"))
    except UnicodeError:
        raise ValueError(f"argument {number} is not UTF-8 text") from None


def windows(lines: Iterator[str], most: int) -> Iterator[list[str]]:
    """Yield the lines in lists of those that have come by then, from 1 to `most`.

    So a program that writes a line and waits gets its answer, and a file is read in large lists.
    Raises what reading raises, after the lines before it; ValueError if there is no line.
    """
    arrived: queue.Queue = queue.Queue(most)
    threading.Thread(target=read_ahead, args=(lines, arrived), daemon=True).start()
    item = arrived.get()
    if item is END:
        raise ValueError(
            "there is nothing to translate: give sentences as arguments, or one a line on "
            "standard input"
        )
    while item is not END:
        window = []
        while isinstance(item, str) and len(window) < most:
            window.append(item)
            item = None if arrived.empty() else arrived.get()
        if not window and isinstance(item, Exception):
            raise item
        yield window
        item = arrived.get() if item is None else item


def read_ahead(lines: Iterator[str], arrived: queue.Queue) -> None:
    """Put lines into a queue, and after them END or the exception that ended them."""
    try:
        for line in lines:
            arrived.put(line)
        arrived.put(END)
    except Exception as error:  # raised by the thread that takes from the queue
        arrived.put(error)
