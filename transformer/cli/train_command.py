"""`python -m transformer train`: train a translator, and leave it in a folder."""

import argparse
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

from transformer.cli.options import (
    Commands,
    add_corpus_options,
    add_device_option,
    given,
    read_corpus,
)
from transformer.files import cache_dir, read_tensors
from transformer.model import Config
from transformer.recipes import PRESETS, Preset, checkpoints, fit
from transformer.training import TrainingConfig

SETTINGS = (
    ("minutes", float, "stop after so many minutes of training"),
    ("steps", int, "stop after so many steps"),
    ("vocab-size", int, "subwords in the vocabulary, which both languages share"),
    ("d-model", int, "features of each vector"),
    ("n-heads", int, "attention heads"),
    ("n-layers", int, "encoder layers, and as many decoder layers"),
    ("d-ff", int, "features inside the feed-forward layers"),
    ("dropout", float, "dropout probability"),
    ("max-len", int, "tokens of the longest sentence"),
    ("norm", str, "post (the paper's) or pre"),
    ("max-tokens", int, "tokens in a batch, padding included"),
    ("peak-lr", float, "highest learning rate"),
    ("warmup", int, "steps until it is reached"),
    ("label-smoothing", float, "label smoothing"),
    ("ema-decay", float, "decay of the running average of the weights"),
    ("max-grad-norm", float, "clip gradients to this norm"),
    ("accumulate", int, "batches whose gradients are added up for one step"),
    ("validate-every", int, "steps between validations, each of which writes a checkpoint"),
    ("seed", int, "random seed"),
)


def add_train(commands: Commands) -> None:
    """Add the command `train` and its options."""
    command = commands.add_parser(
        "train",
        help="train a translator on pairs of sentences",
        epilog="The defaults above are those of multi30k and files; en-it, the embedded corpus, "
        "has a faster preset of its own.",
    )
    add_corpus_options(command)
    command.add_argument(
        "--out", help="folder for the model (default: in the cache, named after the corpus)"
    )
    command.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in --out"
    )
    command.add_argument("--checkpoint", type=Path, help="go on from this checkpoint instead")
    command.add_argument(
        "--overwrite", action="store_true", help="start again in a folder that holds a run"
    )
    add_settings(command)
    command.set_defaults(run=run_train)


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add the options for sizes and training; those left out come from the corpus's preset."""
    preset = PRESETS["files"]
    defaults = asdict(preset.model_config(preset.vocab_size)) | asdict(preset.training)
    defaults["minutes"] = preset.minutes
    for name, kind, text in SETTINGS:
        default = defaults[name.replace("-", "_")]
        command.add_argument(f"--{name}", type=kind, help=f"{text} (default: {default})")
    command.add_argument("--precision", default="auto", help="auto (default), fp32 or bf16")
    add_device_option(command)


def run_train(options: argparse.Namespace) -> None:
    """Train a translator and leave it in a folder."""
    preset = changed_preset(PRESETS[options.corpus], options)
    corpus = read_corpus(options)
    folder = Path(options.out) if options.out else cache_dir() / corpus.name
    resume = resume_from(folder, options)
    print(f"{len(corpus.train):,} pairs of {corpus.name} → {folder}", file=sys.stderr)
    with stop_on_interrupt() as should_stop:
        history = fit(
            corpus,
            folder,
            preset,
            device=options.device,
            precision=options.precision,
            resume=resume,
            should_stop=should_stop,
        )
    draw_curves(history, folder)
    best = min(row["val_loss"] for row in history)
    print(
        f"best validation loss {best:.3f} nats a token; the translator is in {folder}",
        file=sys.stderr,
    )


def changed_preset(preset: Preset, options: argparse.Namespace) -> Preset:
    """Return the preset with the options that were given; ValueError for impossible ones.

    A limit in steps or in minutes replaces both of the preset's limits.
    """
    limits = given(options, ("minutes", "steps"))
    training = given(options, [field.name for field in fields(TrainingConfig)])
    if limits:
        training["steps"] = limits.get("steps", 10**9)
        preset = replace(preset, minutes=limits.get("minutes", math.inf))
    names = [field.name for field in fields(Config) if field.name != "vocab_size"]
    preset = replace(
        preset,
        sizes=preset.sizes | given(options, names),
        training=replace(preset.training, **training),
        **given(options, ["vocab_size"]),
    )
    preset.model_config(preset.vocab_size)  # raises before a corpus is read or downloaded
    return preset


def resume_from(folder: Path, options: argparse.Namespace) -> Path | None:
    """Return the checkpoint to go on from, or None to start anew.

    Raises ValueError if there is no checkpoint to resume from, if the last one is damaged, or if a
    run would be overwritten without --overwrite.
    """
    found = checkpoints(folder)
    if options.checkpoint:
        return options.checkpoint
    if options.resume:
        return readable(found, folder)
    if found and not options.overwrite:
        raise ValueError(
            f"{folder} holds a training run: go on with --resume, start again with --overwrite, "
            "or name another --out"
        )
    for path in found:
        path.unlink()
    return None


def readable(found: Sequence[Path], folder: Path) -> Path:
    """Return the last checkpoint; if it is damaged, raise a ValueError that names the one before.

    Raises ValueError, too, if there is none.
    """
    if not found:
        raise ValueError(f"there is no checkpoint in {folder} to resume from")
    try:
        read_tensors(found[-1])
    except ValueError as error:
        before = f"; the one before is --checkpoint {found[-2]}" if found[1:] else ""
        raise ValueError(f"{error}{before}") from None
    return found[-1]


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True after Ctrl-C; a second Ctrl-C stops at once."""
    interrupts: list[int] = []

    def remember(number: int, frame: object) -> None:
        interrupts.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(
            "\nstopping after this step to write a checkpoint (Ctrl-C again to stop at once)",
            file=sys.stderr,
        )

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(interrupts)
    finally:
        signal.signal(signal.SIGINT, before)


def draw_curves(history: list[dict], folder: Path) -> None:
    """Draw the learning curve into the model's folder, if matplotlib is installed."""
    try:
        from transformer.plotting import plot_curves
    except ImportError:
        print("for a picture of the learning curve install the extra `course`", file=sys.stderr)
    else:
        plot_curves(history, path=folder / "history.png")
