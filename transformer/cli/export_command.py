"""`python -m transformer export`: write a model for another engine."""

import argparse
from pathlib import Path

from transformer.cli.options import Commands, add_model_option
from transformer.engines.exporter import TARGETS, export


def add_export(commands: Commands) -> None:
    """Add the command `export` and its options."""
    command = commands.add_parser("export", help="write a model for another engine")
    add_model_option(command)
    command.add_argument("--to", choices=TARGETS, required=True, help="the engine to write for")
    command.add_argument(
        "--out",
        type=Path,
        help="folder for it (default: a folder named after the engine, in the model's folder)",
    )
    command.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> None:
    """Write the model and print the path of its folder."""
    print(export(options.model, options.to, options.out))
