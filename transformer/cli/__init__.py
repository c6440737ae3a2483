"""The command line: `python -m transformer train | translate | evaluate | export | course`.

After installation the command `transformer-course` is the same.
"""

import argparse
import sys
from collections.abc import Sequence

from transformer.cli.course_command import add_course
from transformer.cli.evaluate_command import add_evaluate
from transformer.cli.export_command import add_export
from transformer.cli.train_command import add_train
from transformer.cli.translate_command import add_translate
from transformer.cpu.process import tune_allocator

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    An error is one sentence on standard error and status 1; Ctrl-C is status 130. A command may
    return a status of its own.
    """
    options = parser().parse_args(arguments)
    tune_allocator()
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        kept = ": the last checkpoint is kept, go on with --resume"
        print(f"stopped{kept if options.command == 'train' else ''}", file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        print(f"error: {str(error).strip() or type(error).__name__}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    main_parser = argparse.ArgumentParser(
        prog="python -m transformer", description="Train a Transformer, translate, evaluate."
    )
    commands = main_parser.add_subparsers(dest="command", required=True)
    for add_command in (add_train, add_translate, add_evaluate, add_export, add_course):
        add_command(commands)
    return main_parser
