"""The command line: `python -m transformer train | translate | evaluate | export | …`.

After installation the command `transformer-course` is the same.
"""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

import torch

from transformer.cli.course_command import add_course
from transformer.cli.diversify_command import add_diversify
from transformer.cli.evaluate_command import add_evaluate
from transformer.cli.export_command import add_export
from transformer.cli.train_command import add_train
from transformer.cli.translate_command import add_translate
from transformer.cpu.process import tune_allocator

__all__ = ["main"]

SCRIPT = "transformer-course"
"""The command that is installed with the package."""
USERS = (ValueError, OSError, ArithmeticError, MemoryError, torch.OutOfMemoryError)
"""Errors that a user can do something about; others are this program's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    An error of the user's is one sentence on standard error and status 1, an error of this program
    status 70; --debug shows where it was raised. Ctrl-C is status 130, SIGTERM while it trains 143,
    and a reader of the output that has gone is 141. A command may return a status of its own. Text
    is UTF-8, whatever the locale.
    """
    options = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    tune_allocator()
    try:
        status = options.run(options) or 0
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        kept = ": the last checkpoint is kept, go on with --resume"
        print(f"stopped{kept if options.command == 'train' else ''}", file=sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    except BrokenPipeError:
        # What is still in the buffer would raise again when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return report(error, options.debug)
    return status


def report(error: Exception, debug: bool) -> int:
    """Print an error in one sentence, with --debug where it was raised, and return the status."""
    if debug:
        traceback.print_exception(error)
    sentence = str(error).strip() or type(error).__name__
    if isinstance(error, USERS):
        print(f"error: {sentence}", file=sys.stderr)
        return 1
    advice = "" if debug else "; --debug shows where"
    print(f"internal error: {type(error).__name__}: {sentence}{advice}", file=sys.stderr)
    return 70


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    script = Path(sys.argv[0]).stem == SCRIPT
    main_parser = argparse.ArgumentParser(
        prog=SCRIPT if script else "python -m transformer",
        description="Train a Transformer, translate, evaluate.",
    )
    commands = main_parser.add_subparsers(dest="command", required=True)
    commands_in_order = (
        add_train,
        add_translate,
        add_evaluate,
        add_export,
        add_diversify,
        add_course,
    )
    for add_command in commands_in_order:
        add_command(commands)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show where an error was raised")
    return main_parser
