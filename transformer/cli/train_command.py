"""`python -m transformer train`: train a translator, and leave it in a folder."""

import argparse
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

from transformer.cli.diversify_command import add_pairs_option, with_pairs
from transformer.cli.fine_tune_options import add_init, run_init
from transformer.cli.options import (
    Commands,
    add_corpus_options,
    add_device_option,
    given,
    positive,
    read_corpus,
)
from transformer.cli.recipe_options import (
    add_monitoring_options,
    add_recipe_option,
    add_technique_options,
    announce_settings,
    callbacks_of,
    use_recipe,
    with_techniques,
)
from transformer.corpora import Corpus, read_pairs
from transformer.files import cache_dir, read_tensors
from transformer.model import Config
from transformer.ranks import current, restarts
from transformer.recipes import (
    PRESETS,
    Preset,
    checkpoints,
    corpus_hash,
    fit,
    holds_run,
    is_same_run,
    only_run,
    read_run,
)
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
        "has a faster preset of its own. A resumed run has the settings of its checkpoint; those "
        "that are given and differ are announced, and sizes cannot change.",
    )
    add_recipe_option(command)
    add_corpus_options(command)
    add_init(command)
    add_pairs_option(command)
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
    command.add_argument(
        "--skip-long",
        type=positive,
        metavar="TOKENS",
        help="leave out training pairs with a longer side (default: longer than --max-len)",
    )
    command.add_argument(
        "--strict",
        action="store_true",
        help="refuse pairs that are blank, unknown or too long, instead of leaving them out",
    )
    add_settings(command)
    add_technique_options(command)
    add_monitoring_options(command)
    command.set_defaults(run=run_train)


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add the options for sizes and training; those left out come from the corpus's preset."""
    preset = PRESETS["files"]
    defaults = asdict(preset.model_config(preset.vocab_size)) | asdict(preset.training)
    defaults["minutes"] = preset.minutes
    for name, kind, text in SETTINGS:
        default = defaults[name.replace("-", "_")]
        command.add_argument(f"--{name}", type=kind, help=f"{text} (default: {default})")
    command.add_argument("--precision", help="auto (default), fp32 or bf16")
    add_device_option(command)


def run_train(options: argparse.Namespace) -> None:
    """Train a translator and leave it in a folder."""
    recipe = use_recipe(options)
    if options.init:
        with stop_on_signals() as should_stop:
            return run_init(options, should_stop)
    if options.languages:
        raise ValueError("--languages are those of --init, which is not given")
    preset = recipe.preset if recipe else PRESETS[options.corpus]
    precision = recipe.precision if recipe else "auto"
    if not options.resume and not options.checkpoint:
        if recipe:
            announce_settings(options, recipe)
        changed_preset(preset, options)  # raises before a corpus is read or downloaded
    corpus = read_corpus(options)
    if options.add:
        corpus = with_pairs(corpus, read_pairs(*options.add))
    folder = Path(options.out) if options.out else cache_dir() / corpus.name
    with only_run(folder), stop_on_signals() as should_stop:
        resume = agreed_checkpoint(folder, options, corpus, preset, precision)
        if resume:
            saved = read_run(resume)
            preset = saved.preset
            precision = saved.precision
        print(f"{len(corpus.train):,} pairs of {corpus.name} → {folder}", file=sys.stderr)
        history = fit(
            corpus,
            folder,
            changed_preset(preset, options),
            device=options.device,
            precision=options.precision or precision,
            resume=resume,
            should_stop=should_stop,
            longest=options.skip_long,
            strict=options.strict,
            samples=options.samples,
            callbacks=callbacks_of(options, folder),
        )
    announce_result(history, folder)


def announce_result(history: list[dict], folder: Path) -> None:
    """Say how good the translator has become, and where it is."""
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
    preset.model_config(preset.vocab_size)  # raises for impossible sizes
    return with_techniques(preset, options)


def agreed_checkpoint(
    folder: Path, options: argparse.Namespace, corpus: Corpus, preset: Preset, precision: str
) -> Path | None:
    """Return the checkpoint that all processes go on from; None to start anew.

    Rank 0 chooses, because a folder on the network may not look the same everywhere at once. Raises
    the errors of `resume_from`.
    """
    ranks = current()
    found = None
    if ranks.is_first:
        found = interrupted_run(folder, options, corpus, preset, precision)
        found = found or resume_from(folder, options)
    found = ranks.from_first(found and str(found))
    return Path(found) if found else None


def interrupted_run(
    folder: Path, options: argparse.Namespace, corpus: Corpus, preset: Preset, precision: str
) -> Path | None:
    """Return the last checkpoint of the run that torchrun starts again after losing a process.

    The command is the same as at first, and --overwrite must not begin again. So a checkpoint is
    this run's if a new run would make the same one.
    """
    found = checkpoints(folder)
    if not restarts() or options.resume or not found:
        return None
    saved = read_run(found[-1])
    if options.checkpoint:
        start = read_run(options.checkpoint)
        preset = start.preset
        precision = start.precision
    preset = changed_preset(preset, options)
    same = is_same_run(saved, preset, options.precision or precision, corpus_hash(corpus))
    return found[-1] if same else None


def resume_from(folder: Path, options: argparse.Namespace) -> Path | None:
    """Return the checkpoint to go on from, or None to start anew.

    Raises ValueError if there is no checkpoint to resume from, if the last one is damaged, or if
    something would be overwritten without --overwrite.
    """
    checkpoint = options.checkpoint
    inside = checkpoint and checkpoint.resolve().parent == folder.resolve()
    if options.resume and not checkpoint:
        return readable(checkpoints(folder), folder)
    if holds_run(folder) and not options.overwrite and not inside:
        what = "training run: go on with --resume," if checkpoints(folder) else "translator:"
        raise ValueError(
            f"{folder} holds a {what} start again with --overwrite, or name another --out"
        )
    return checkpoint


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
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True after Ctrl-C or SIGTERM; a second one stops at once.

    The number of the signal becomes the argument of the KeyboardInterrupt.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(number: int, frame: object) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        print(
            "\nstopping after this step to write a checkpoint (again to stop at once)",
            file=sys.stderr,
        )

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: bool(received)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*received[:1]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
