"""The command line: `python -m transformer train | translate | evaluate | export`."""

import argparse
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import torch

from transformer.data import Corpus, cache_dir, english_italian, multi30k, read_pairs, text_files
from transformer.export import export
from transformer.fast import tune_allocator
from transformer.inference import Translator, model_folder, moses_tokens, scores
from transformer.model import Config, read_tensors
from transformer.training import ENGLISH_ITALIAN, ENGLISH_ITALIAN_SIZES, Recipe, checkpoints, fit

CAPTIONS = Recipe(minutes=30.0, max_tokens=2048, warmup=800)
PRESETS = {
    "en-it": (600, ENGLISH_ITALIAN_SIZES, ENGLISH_ITALIAN),
    "multi30k": (10_000, {}, CAPTIONS),
    "files": (10_000, {}, CAPTIONS),
}
EPILOG = (
    "The defaults above are those of multi30k and files; en-it, the embedded corpus, has a quicker preset of its own."
)
PRESET_DEFAULTS = asdict(CAPTIONS) | asdict(Config.tiny(10_000))


def parser() -> argparse.ArgumentParser:
    """Describe every command and option."""
    main = argparse.ArgumentParser(
        prog="python -m transformer", description="Train a Transformer, translate, evaluate."
    )
    commands = main.add_subparsers(dest="command", required=True)
    describe_train(commands.add_parser("train", help="learn to translate from pairs of sentences", epilog=EPILOG))
    describe_translate(commands.add_parser("translate", help="translate arguments, or standard input"))
    describe_evaluate(commands.add_parser("evaluate", help="score a model: BLEU, chrF, exact match"))
    describe_export(commands.add_parser("export", help="write a model for another engine"))
    return main


def describe_train(train: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    add_data_options(train)
    train.add_argument("--out", help="folder for the model (default: in the cache, under the name of the corpus)")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder of --out")
    train.add_argument("--checkpoint", type=Path, help="go on from this checkpoint instead")
    train.add_argument("--overwrite", action="store_true", help="begin anew in a folder that holds a run already")
    add_recipe_options(train)
    train.set_defaults(run=run_train)


def describe_translate(translate: argparse.ArgumentParser) -> None:
    """Add the options of `translate`."""
    translate.add_argument("sentences", nargs="*", help="what to translate; without any, one sentence a line is read")
    add_search_options(translate)
    translate.set_defaults(run=run_translate)


def describe_evaluate(evaluate: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    add_data_options(evaluate)
    add_search_options(evaluate)
    evaluate.add_argument(
        "--split", default="test", help="test (default), val, or another one of the corpus: compositional"
    )
    evaluate.add_argument("--tokenized", action="store_true", help="score text that is tokenized already, as it stands")
    evaluate.add_argument(
        "--moses", action="store_true", help="also score lowercased Moses tokens, as papers on Multi30k do"
    )
    evaluate.add_argument("--out", type=Path, help="file for the translations")
    evaluate.set_defaults(run=run_evaluate)


def describe_export(command: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    add_model_option(command)
    command.add_argument("--to", choices=("ctranslate2", "onnx"), required=True, help="the engine to write for")
    command.add_argument(
        "--out", type=Path, help="folder for it (default: one of the engine's name beside the weights)"
    )
    command.set_defaults(run=run_export)


def add_data_options(command: argparse.ArgumentParser) -> None:
    """Say where sentences come from."""
    command.add_argument(
        "--corpus", choices=PRESETS, default="en-it", help="the embedded grammar, Multi30k, or files of your own"
    )
    command.add_argument("--src", default="en", help="source language of Multi30k: en (default), de, fr, cs")
    command.add_argument("--tgt", default="de", help="target language of Multi30k: en, de (default), fr, cs")
    command.add_argument("--folder", help="folder with raw/ and tok/ of Multi30k, instead of a download ($MULTI30K)")
    command.add_argument("--tok", action="store_true", help="Multi30k as lowercased Moses tokens instead of raw text")
    for split in ("train", "val", "test"):
        command.add_argument(
            f"--{split}", nargs=2, metavar=("SRC", "TGT"), help=f"files: two aligned files for the {split} split"
        )


def add_recipe_options(command: argparse.ArgumentParser) -> None:
    """Say how large the model is and how to train it; what is left out comes from the corpus's preset."""
    command.add_argument("--minutes", type=float, help="stop after so many minutes of training (default: 30)")
    command.add_argument("--steps", type=int, help="stop after so many steps")
    for name, kind, text in (
        ("vocab-size", int, "subwords, both languages together"),
        ("d-model", int, "features of every vector"),
        ("n-heads", int, "attention heads"),
        ("n-layers", int, "encoder layers, and as many decoder layers"),
        ("d-ff", int, "features inside the feed-forward layers"),
        ("dropout", float, "share of features dropped in training"),
        ("max-len", int, "longest sentence, in tokens"),
        ("norm", str, "post (the paper's) or pre"),
        ("max-tokens", int, "places in a batch, padding counted"),
        ("peak-rate", float, "highest learning rate"),
        ("warmup", int, "steps until it is reached"),
        ("smoothing", float, "label smoothing"),
        ("averaging", float, "decay of the running average of weights"),
        ("validate-every", int, "steps between validations, each with a checkpoint"),
        ("seed", int, "where all random numbers come from"),
        ("precision", str, "auto, fp32 or bf16"),
    ):
        default = PRESET_DEFAULTS[name.replace("-", "_")]
        command.add_argument(f"--{name}", type=kind, help=f"{text} (default: {default})")
    add_device_option(command)


def add_search_options(command: argparse.ArgumentParser) -> None:
    """Say which model translates and how it searches."""
    add_model_option(command)
    command.add_argument("--beam", type=int, default=5, help="hypotheses a sentence (default: 5); 1 is greedy search")
    command.add_argument(
        "--length-penalty", type=float, default=1.0, help="log-probability is divided by length ** this"
    )
    command.add_argument("--engine", choices=("torch", "ctranslate2"), default="torch", help="what searches (torch)")
    command.add_argument(
        "--precision", choices=("fp32", "bf16", "int8"), default="fp32", help="of the weights; int8 is ctranslate2's"
    )
    add_device_option(command)


def add_model_option(command: argparse.ArgumentParser) -> None:
    """Say which model."""
    command.add_argument(
        "--model", default="en-it", help="folder of a model, or the name it was trained under (default: en-it)"
    )


def device(name: str) -> str:
    """Return the name of a device that is there."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"there is no device {name!r} here ({str(error).splitlines()[0]})") from None
    return name


def add_device_option(command: argparse.ArgumentParser) -> None:
    """Say where to compute: on the GPU if there is one."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    command.add_argument("--device", type=device, default=default, help=f"cpu, cuda, … (default: {default})")


def read_corpus(options: argparse.Namespace) -> Corpus:
    """Read the corpus that the options name."""
    if options.corpus == "en-it":
        return english_italian()
    if options.corpus == "multi30k":
        return multi30k(options.src, options.tgt, options.folder, options.tok)
    if not options.train and not options.test:
        raise ValueError("--corpus files needs --train SRC TGT, or for evaluation --test SRC TGT")
    if not options.train:
        return Corpus("files", [], [], read_pairs(*options.test))
    return text_files(options.train, options.val, options.test)


def chosen(options: argparse.Namespace, names: Sequence[str]) -> dict:
    """Return the options among `names` that were given."""
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def changed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """Return the preset with the options that were given; a limit in steps or minutes replaces the preset's."""
    limits = chosen(options, ("minutes", "steps"))
    if limits:
        recipe = replace(recipe, **{"steps": 10**9, "minutes": math.inf} | limits)
    return replace(recipe, **chosen(options, [field.name for field in fields(Recipe) if field.name not in limits]))


def run_train(options: argparse.Namespace) -> None:
    """Train a translator and leave it in a folder."""
    vocab_size, sizes, recipe = PRESETS[options.corpus]
    recipe = changed(recipe, options)
    sizes = sizes | chosen(options, [field.name for field in fields(Config) if field.name != "vocab_size"])
    Config.tiny(vocab_size, **sizes)
    corpus = read_corpus(options)
    folder = Path(options.out) if options.out else cache_dir() / corpus.name
    resume = resume_from(folder, options)
    print(f"{len(corpus.train):,} pairs of {corpus.name} → {folder}", file=sys.stderr)
    with stop_on_interrupt() as should_stop:
        history = fit(
            corpus,
            folder,
            options.vocab_size or vocab_size,
            partial(Config.tiny, **sizes),
            recipe,
            options.device,
            resume=resume,
            should_stop=should_stop,
        )
    draw_curves(history, folder)
    best = min(row["val_loss"] for row in history)
    print(f"best validation loss {best:.3f} nats a token; the translator is in {folder}", file=sys.stderr)


def resume_from(folder: Path, options: argparse.Namespace) -> Path | None:
    """Return the checkpoint to go on from; ValueError when a run would be overwritten or there is nothing to resume."""
    found = checkpoints(folder)
    if options.resume or options.checkpoint:
        if not found and not options.checkpoint:
            raise ValueError(f"there is no checkpoint in {folder} to resume from")
        return options.checkpoint or whole(found)
    if found and not options.overwrite:
        raise ValueError(
            f"{folder} holds a training run: go on with --resume, begin anew with --overwrite, or name another --out"
        )
    for path in found:
        path.unlink()
    return None


def whole(found: Sequence[Path]) -> Path:
    """Return the last checkpoint; ValueError that names the one before when it is damaged."""
    try:
        read_tensors(found[-1])
    except ValueError as error:
        before = f"; the one before is --checkpoint {found[-2]}" if found[1:] else ""
        raise ValueError(f"{error}{before}") from None
    return found[-1]


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a wish to stop after the step that is running; a second one stops at once."""
    wishes: list[int] = []

    def wish(number: int, frame: object) -> None:
        wishes.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nstopping after this step, to leave a checkpoint (Ctrl-C again to stop at once)", file=sys.stderr)

    before = signal.signal(signal.SIGINT, wish)
    try:
        yield lambda: bool(wishes)
    finally:
        signal.signal(signal.SIGINT, before)


def draw_curves(history: list[dict], folder: Path) -> None:
    """Draw the learning curve beside the model, where matplotlib is installed (the extra `course`)."""
    try:
        from transformer.plotting import plot_curves
    except ImportError:
        print("for a picture of the learning curve install the extra `course`", file=sys.stderr)
    else:
        plot_curves(history, path=folder / "history.png")


def load_translator(options: argparse.Namespace) -> Translator:
    """Read the translator that the options name."""
    return Translator.load(options.model, options.device, options.engine, options.precision)


def run_translate(options: argparse.Namespace) -> None:
    """Translate the arguments, or the lines of standard input, and print one translation a line."""
    translator = load_translator(options)
    sentences = options.sentences or [line.rstrip("\n") for line in sys.stdin]
    if not sentences:
        raise ValueError("there is nothing to translate: give sentences as arguments, or one a line on standard input")
    for translation in translator.translate(sentences, options.beam, options.length_penalty, progress=True):
        print(translation)


def run_evaluate(options: argparse.Namespace) -> None:
    """Translate a test set and print the scores as JSON."""
    corpus = read_corpus(options)
    splits = {"val": corpus.val, "test": corpus.test, **corpus.more}
    if not splits.get(options.split):
        raise ValueError(
            f"{corpus.name} has no split {options.split!r}, only {', '.join(k for k, v in splits.items() if v)}"
        )
    sources, references = zip(*splits[options.split], strict=True)
    translations = load_translator(options).translate(sources, options.beam, options.length_penalty, progress=True)
    exact = sum(map(str.__eq__, translations, references)) / len(references)
    found = {"sentences": len(sources), "exact": round(exact, 4)}
    found |= scores(translations, references, "none" if options.tokenized or options.tok else "13a")
    if options.moses:
        language = options.tgt if options.corpus == "multi30k" else "en"
        found["moses"] = scores(*(moses_tokens(texts, language) for texts in (translations, references)), "none")
    if options.out:
        options.out.write_text("".join(f"{line}\n" for line in translations), encoding="utf-8")
    print(json.dumps(found, indent=2, ensure_ascii=False))


def run_export(options: argparse.Namespace) -> None:
    """Write a model for another engine."""
    print(export(model_folder(options.model), options.to, options.out))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an error ends in one sentence on standard error and status 1, Ctrl-C in status 130."""
    options = parser().parse_args(arguments)
    tune_allocator()
    try:
        options.run(options)
    except KeyboardInterrupt:
        kept = "; the last good checkpoint is kept, go on with --resume" if options.command == "train" else ""
        print(f"stopped{kept}", file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        print(f"error: {str(error).strip() or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
