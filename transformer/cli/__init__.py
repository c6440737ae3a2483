"""The command line: `python -m transformer train | translate | evaluate | explore | …`.

After installation the command `transformer-course` is the same.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

import torch

from transformer.cli.course_command import add_course
from transformer.cli.diversify_command import add_diversify
from transformer.cli.evaluate_command import add_evaluate
from transformer.cli.explore_command import add_explore
from transformer.cli.export_command import add_export
from transformer.cli.train_command import add_train
from transformer.cli.translate_command import add_translate
from transformer.cpu.process import tune_allocator
from transformer.ranks import Ranks, are_several, is_lost, joined

__all__ = ["main"]

COMMANDS = (
    add_train,
    add_translate,
    add_evaluate,
    add_explore,
    add_export,
    add_diversify,
    add_course,
)
SCRIPT = "transformer-course"
"""The command that is installed with the package."""
USERS = (ValueError, OSError, ArithmeticError, MemoryError, torch.OutOfMemoryError)
"""Errors that a user can do something about; others are this program's."""
SHARED = ("train", "translate", "evaluate")
"""Commands that several processes can share."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    An error of the user's is one sentence on standard error and status 1, an error of this program
    status 70; --debug shows where it was raised. Ctrl-C is status 130, SIGTERM while it trains 143,
    and a reader of the output that has gone is 141. A command may return a status of its own. Text
    is UTF-8, whatever the locale. Of several processes, started by torchrun, rank 0 alone writes to
    standard output and standard error; an error is named once, whoever had it.
    """
    if are_several() and os.environ.get("RANK") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (it is open as long as the process)
        sys.stderr = sys.stdout
    options = parser().parse_args(arguments)
    ranks = Ranks()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    tune_allocator()
    try:
        with joined() as ranks:
            check_command(options.command, ranks)
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
        return report(error, options.debug, ranks)
    return status


def check_command(command: str, ranks: Ranks) -> None:
    """Raise a ValueError if several processes were started for a command that one must do."""
    if ranks.world > 1 and command not in SHARED:
        raise ValueError(f"{command} runs in one process: start it without torchrun")


def report(error: Exception, debug: bool, ranks: Ranks) -> int:
    """Print an error in one sentence, with --debug where it was raised, and return the status.

    Of several processes that have the same error one prints it.
    """
    sentence = str(error).strip() or type(error).__name__
    advice = "" if debug else "; --debug shows where"
    text = f"internal error: {type(error).__name__}: {sentence}{advice}"
    status = 70
    if isinstance(error, USERS):
        text = f"error: {sentence}"
        status = 1
    lost = are_several() and is_lost(error)
    if lost:
        text = "error: another process of this run has failed or was stopped"
        status = 1
        time.sleep(1)  # what that one has to say is more helpful
    if ranks.may_say(text, only_if_silent=lost):
        stream = sys.stderr if ranks.is_first else sys.__stderr__
        if debug:
            traceback.print_exception(error, file=stream)
        print(text, file=stream)
    return status


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    script = Path(sys.argv[0]).stem == SCRIPT
    main_parser = argparse.ArgumentParser(
        prog=SCRIPT if script else "python -m transformer",
        description="Train a Transformer, translate, evaluate.",
    )
    commands = main_parser.add_subparsers(dest="command", required=True)
    for add_command in COMMANDS:
        add_command(commands)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show where an error was raised")
    return main_parser
