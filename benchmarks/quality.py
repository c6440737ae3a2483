"""The quality of a recipe: train, choose on the validation split, and score the test set once.

`python -m benchmarks.quality --recipe multi30k-en-de --seed 1 2 3 -- --r-drop 5` trains three
times; what follows `--` goes to `python -m transformer train`. Every score is a row of
quality.json.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from transformer.cli import main as run_command
from transformer.corpora import multi30k
from transformer.cpu.process import tune_allocator
from transformer.files import atomic_write
from transformer.metrics import mean_and_spread, moses_tokens, scores
from transformer.recipes import Recipe, checkpoints, read_recipe, read_run
from transformer.translator import Translator

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
PATH = HERE / "quality.json"
KEY = ("recipe", "change", "pair", "seed", "test_set", "metric", "search")
MOSES = "BLEU, lowercased Moses tokens"
COLUMNS = (
    ("val", MOSES, "validation, Moses"),
    ("test_2016_flickr", MOSES, "test 2016, Moses"),
    ("test_2016_flickr", "BLEU", "cased"),
    ("test_2016_flickr", "chrF", "chrF"),
)
"""Test set, metric and title of what the table shows."""


# --- training and scoring -------------------------------------------------------------------------


def train(options: argparse.Namespace, seed: int, folder: Path) -> int:
    """Train by a recipe with changed options, or go on where it stopped; return the status."""
    command = ["train", "--recipe", options.recipe, "--seed", str(seed), "--out", str(folder)]
    command += ["--device", options.device, "--samples", "0"]  # nobody looks at samples here
    command += ["--folder", options.folder] if options.folder else []
    command += ["--resume"] if checkpoints(folder) else []
    command += options.changes
    if options.processes == 1:
        return run_command(command)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(options.processes)]
    return run_to_its_end([sys.executable, *launcher, "-m", "transformer", *command])


def run_to_its_end(command: Sequence[str]) -> int:
    """Run a command with a thread a process, and return its status.

    SIGTERM is passed on to it: torchrun ends its processes, which write checkpoints first.
    """
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as started:
        before = signal.signal(signal.SIGTERM, lambda number, _: started.send_signal(number))
        try:
            return started.wait()
        finally:
            signal.signal(signal.SIGTERM, before)


def pairs_of(recipe: Recipe, test_set: str, data: str | None) -> list[tuple[str, str]]:
    """Return the pairs of "val" or of a test set of the recipe's corpus."""
    if recipe.corpus != "multi30k":
        raise ValueError(f"recipe {recipe.name} is for {recipe.corpus}: only Multi30k is scored")
    split = "test_2016_flickr" if test_set == "val" else test_set
    corpus = multi30k(recipe.src or "en", recipe.tgt or "de", data, recipe.tokenized, split)
    return corpus.val if test_set == "val" else corpus.test


def score_rows(
    folder: Path, pairs: Sequence[tuple[str, str]], test_set: str, tgt: str | None
) -> list:
    """Translate a set as the model says, keep the translations, and return a row a metric.

    Without a language `tgt` the texts are lowercased Moses tokens, and only these are scored.
    """
    sources, references = zip(*pairs)
    translator = Translator.load(folder)
    translations = translator.translate(sources, progress=True)
    text = "".join(f"{line}\n" for line in translations)
    atomic_write(folder / f"{test_set}.txt", text.encode())
    found = {}
    if tgt:
        plain = scores(translations, references)
        bleu, chrf = plain["signatures"]
        found = {"BLEU": (plain["BLEU"], bleu), "chrF": (plain["chrF"], chrf)}
        translations = moses_tokens(translations, tgt)
        references = moses_tokens(references, tgt)
    tokens = scores(translations, references, "none")
    found[MOSES] = (tokens["BLEU"], tokens["signatures"][0])
    search = translator.search
    words = f"beam {search.beam_size}, length penalty {search.length_penalty:g}"
    return [
        {"test_set": test_set, "metric": metric, "signature": signature, "score": score}
        | {"search": words}
        for metric, (score, signature) in found.items()
    ]


def about(folder: Path, device: str, processes: int = 1) -> dict:
    """Return what a run took: minutes, steps, its lowest validation loss, and on what.

    Several processes have a thread each.
    """
    saved = read_run(checkpoints(folder)[-1])
    return {
        "minutes": round(saved.seconds / 60, 1),
        "steps": saved.history[-1]["step"],
        "val_loss": round(min(row["val_loss"] for row in saved.history), 4),
        "device": device,
        "processes": processes,
        "threads": torch.get_num_threads() if processes == 1 else processes,
        "torch": torch.__version__,
    }


def measure(options: argparse.Namespace, seed: int) -> int:
    """Train with one seed, score, and add the rows; return the status of the training."""
    recipe = read_recipe(options.recipe)
    changes = options.changes
    name = re.sub(r"[^\w.]+", "-", " ".join([recipe.name, *changes]))
    folder = options.runs / f"{name}-{seed}"
    if status := train(options, seed, folder):
        return status
    run = {
        "recipe": recipe.name,
        "change": change_of(changes),
        "pair": f"{recipe.src}-{recipe.tgt}",
        "seed": seed,
    } | about(folder, options.device, options.processes)
    for test_set in ("val", *options.tests):
        pairs = pairs_of(recipe, test_set, options.folder)
        language = None if recipe.tokenized else recipe.tgt or "de"
        rows = score_rows(folder, pairs, test_set, language)
        add(options.out, [run | row for row in rows])
        for row in rows:
            print(f"{name} seed {seed} {test_set}: {row['score']:.2f} {row['metric']}", flush=True)
    return 0


def change_of(changes: Sequence[str]) -> str:
    """Return changed options in words: `--simcut 3 --n-layers 3` is "simcut 3, n-layers 3"."""
    return " ".join(changes).replace(" --", ", ").removeprefix("--")


# --- the file and its table -----------------------------------------------------------------------


def read(path: Path = PATH) -> list[dict]:
    """Return the rows so far."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []


def add(path: Path, rows: Sequence[dict]) -> None:
    """Add rows; a row of the same measurement is replaced."""
    table = {key(row): row for row in [*read(path), *rows]}
    lines = ",\n".join(f"  {json.dumps(row)}" for row in table.values())
    atomic_write(path, f'{{\n "rows": [\n{lines}\n ]\n}}\n'.encode())


def key(row: dict) -> tuple:
    """Return the fields that two rows of the same measurement share."""
    return tuple(row[name] for name in KEY)


def markdown(rows: Sequence[dict]) -> str:
    """Return a table with a line for each recipe and change: means over seeds, and spreads."""
    if not rows:
        return "No recipe has been scored yet."
    titles = ["recipe", "pair", "seeds", "minutes", "threads", "validation loss"]
    titles += [title for _, _, title in COLUMNS]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in dict.fromkeys((row["recipe"], row["change"], row["pair"]) for row in rows):
        found = [row for row in rows if (row["recipe"], row["change"], row["pair"]) == name]
        runs = {row["seed"]: row for row in found}.values()
        cells = [
            ", ".join(filter(None, name[:2])),
            name[2].replace("-", "→"),
            str(len(runs)),
            f"{mean_and_spread([row['minutes'] for row in runs])[0]:.0f}",
            ", ".join(sorted({str(row["threads"]) for row in runs})),
            f"{mean_and_spread([row['val_loss'] for row in runs])[0]:.3f}",
            *(cell(found, test_set, metric) for test_set, metric, _ in COLUMNS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(rows: Sequence[dict], test_set: str, metric: str) -> str:
    """Return the mean over seeds and, with several of them, the standard deviation."""
    found = [r["score"] for r in rows if (r["test_set"], r["metric"]) == (test_set, metric)]
    if not found:
        return ""
    mean, spread = mean_and_spread(found)
    return f"{mean:.2f} ± {spread:.2f}" if len(found) > 1 else f"{mean:.2f}"


def put_into_readme(rows: Sequence[dict], path: Path = README) -> None:
    """Write the table between its markers."""
    before, begin, rest = path.read_text(encoding="utf-8").partition("<!-- quality -->")
    _, end, after = rest.partition("<!-- /quality -->")
    if end:
        atomic_write(path, f"{before}{begin}\n\n{markdown(rows)}\n\n{end}{after}".encode())


# --- the command ----------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    command = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__.splitlines()[0],
        epilog="What follows -- goes to `python -m transformer train`.",
    )
    command.add_argument("--recipe", help="name or path of a recipe")
    command.add_argument("--seed", type=int, nargs="+", default=[1], help="(default: 1)")
    command.add_argument(
        "--tests",
        nargs="*",
        default=["test_2016_flickr"],
        help="test sets to score (default: test_2016_flickr); none to choose among settings",
    )
    command.add_argument(
        "--processes",
        type=int,
        default=1,
        help="train in so many, with a thread each, by torchrun (default: 1)",
    )
    command.add_argument("--device", default="cpu", help="where to train (default: cpu)")
    command.add_argument(
        "--folder", help="folder with raw/ of Multi30k, instead of a download ($MULTI30K)"
    )
    command.add_argument(
        "--runs", type=Path, default=Path("runs/quality"), help="(default: runs/quality)"
    )
    command.add_argument("--out", type=Path, default=PATH, help="file of results")
    command.add_argument(
        "--table", action="store_true", help="also write the table into the README"
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and score with each seed; return the status of the first training that failed."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser().parse_args(arguments[:split])
    options.changes = arguments[split + 1 :]
    tune_allocator()
    for seed in options.seed if options.recipe else ():
        if status := measure(options, seed):
            return status
    print(markdown(read(options.out)))
    if options.table:
        put_into_readme(read(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
