"""The command line: `python -m transformer train | translate | evaluate | export`.

After installation the command `transformer-course` is the same.
"""

import argparse
import signal
import sys
from collections.abc import Sequence

from transformer.cli.evaluate_command import add_evaluate
from transformer.cli.export_command import add_export
from transformer.cli.train_command import add_train
from transformer.cli.translate_command import add_translate
from transformer.cpu.process import tune_allocator

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    An error is one sentence on standard error and status 1; Ctrl-C is status 130, and SIGTERM while
    it trains is 143.
    """
    options = parser().parse_args(arguments)
    tune_allocator()
    try:
        options.run(options)
    except KeyboardInterrupt as interrupt:
        kept = ": the last checkpoint is kept, go on with --resume"
        print(f"stopped{kept if options.command == 'train' else ''}", file=sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        print(f"error: {str(error).strip() or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    main_parser = argparse.ArgumentParser(
        prog="python -m transformer", description="Train a Transformer, translate, evaluate."
    )
    commands = main_parser.add_subparsers(dest="command", required=True)
    for add_command in (add_train, add_translate, add_evaluate, add_export):
        add_command(commands)
    return main_parser
