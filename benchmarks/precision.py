"""Scores by precision: translators trained on Multi30k in float32 and in bfloat16.

Each translates the test set with every engine and precision. The trainings differ only in precision
and seed, so the difference between seeds shows how much of a difference is chance.
"""

import argparse
import io
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from benchmarks import machine, results
from benchmarks.timing import in_fresh_process
from benchmarks.work import DTYPES
from transformer.corpora import multi30k
from transformer.cpu.process import tune_allocator
from transformer.files import atomic_write
from transformer.metrics import scores
from transformer.recipes import MULTI30K, fit
from transformer.translator import Translator

ENGINES = (
    ("pytorch", "fp32"),
    ("pytorch", "bf16"),
    ("ctranslate2", "fp32"),
    ("ctranslate2", "int8"),
)
BEAM_SIZE = 5
HEADER = """\
| trained in | translated by | BLEU | chrF | same as in fp32 | validation loss |
|---|---|---|---|---|---|"""


def train(out: Path, precision: str, seed: int, steps: int, folder: str | None) -> float:
    """Train a translator with the preset of Multi30k, on one thread; return its best loss."""
    torch.set_num_threads(1)
    tune_allocator()
    training = replace(MULTI30K.training, seed=seed, steps=steps)
    preset = replace(MULTI30K, training=training, minutes=math.inf)
    with redirect_stderr(io.StringIO()):  # the progress bars of two trainings would mix
        history = fit(multi30k(folder=folder), out, preset, precision=precision)
    return min(row["val_loss"] for row in history)


def translate_all(model: Path, pairs: Sequence[tuple[str, str]]) -> list[dict]:
    """Translate a test set with every engine in every precision, and score it."""
    sources, references = zip(*pairs)
    rows = []
    exact: list[str] = []
    for engine, precision in ENGINES:
        translator = Translator.load(model, engine=engine, precision=precision)
        translations = translator.translate(sources, BEAM_SIZE)
        exact = exact or translations
        same = sum(map(str.__eq__, translations, exact)) / len(exact)
        found = scores(translations, references)
        rows.append({"engine": engine, "precision": precision, "same": same} | found)
    return rows


def markdown(rows: Sequence[dict]) -> str:
    """Return a table with a line for each way to train and translate: means and single BLEUs."""
    lines = [HEADER]
    for trained, (engine, precision) in product(DTYPES, ENGINES):
        found = results.pick(rows, trained=trained, engine=engine, precision=precision)
        if not found:
            continue
        columns = ("BLEU", "chrF", "same", "val_loss")
        bleu, chrf, same, loss = ([row[name] for row in found] for name in columns)
        cells = [
            trained,
            f"{engine}, {precision}",
            f"{statistics.mean(bleu):.2f} ({', '.join(f'{value:.2f}' for value in bleu)})",
            f"{statistics.mean(chrf):.2f}",
            f"{statistics.mean(same):.1%}",
            f"{statistics.mean(loss):.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    command = argparse.ArgumentParser(
        prog="python -m benchmarks.precision", description=__doc__.splitlines()[0]
    )
    command.add_argument(
        "--steps", type=int, default=3_000, help="of each training (default: 3000)"
    )
    command.add_argument(
        "--seeds", type=int, default=2, help="trainings in each precision (default: 2)"
    )
    command.add_argument(
        "--folder", help="folder with raw/ of Multi30k, instead of a download ($MULTI30K)"
    )
    command.add_argument(
        "--out", type=Path, default=results.default_path(name="precision"), help="file of results"
    )
    return command


def main() -> int:
    """Train, translate and write the scores; without a corpus print one sentence and return 1."""
    options = parser().parse_args()
    try:
        pairs = multi30k(folder=options.folder).test
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    runs = [*product(DTYPES, range(options.seeds))]
    rows = []
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(os.cpu_count()) as pool:
        folders = [Path(place) / f"{precision}-{seed}" for precision, seed in runs]

        def train_in_process(run: tuple[str, int], out: Path) -> float:
            return in_fresh_process(train, out, *run, options.steps, options.folder)

        losses = pool.map(train_in_process, runs, folders)
        for (trained, seed), folder, loss in zip(runs, folders, losses):
            about = {"trained": trained, "seed": seed, "steps": options.steps, "val_loss": loss}
            rows += [about | row for row in translate_all(folder, pairs)]
            print(markdown(rows), flush=True)
    text = json.dumps({"versions": machine.versions(), "rows": rows}, indent=1)
    atomic_write(options.out, f"{text}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
