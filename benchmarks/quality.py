"""What fewer digits cost: Multi30k learned in float32 and in bfloat16, and each model's translations in each precision.

Trainings differ in precision and seed alone, so the difference between seeds says how much of a difference is chance.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from benchmarks import machine, results
from benchmarks.work import DTYPES
from transformer.data import multi30k
from transformer.inference import Translator, scores
from transformer.model import write_safely

ENGINES = (("torch", "fp32"), ("torch", "bf16"), ("ctranslate2", "fp32"), ("ctranslate2", "int8"))
BEAM_SIZE = 5


def train(out: Path, precision: str, seed: int, steps: int, folder: str | None) -> float:
    """Train a translator as the command line does, on one thread, and return its best validation loss."""
    options = {"--out": out, "--precision": precision, "--seed": seed, "--steps": steps, "--minutes": 10_000}
    options |= {"--folder": folder} if folder else {}
    words = [sys.executable, "-m", "transformer", "train", "--corpus", "multi30k", *map(str, sum(options.items(), ()))]
    subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    return min(row["val_loss"] for row in json.loads((out / "history.json").read_text()))


def translate_all(model: Path, pairs: Sequence[tuple[str, str]]) -> list[dict]:
    """Translate a test set with every engine in every precision, and score it."""
    sources, references = zip(*pairs)
    rows, exact = [], []
    for engine, precision in ENGINES:
        translations = Translator.load(model, engine=engine, precision=precision).translate(sources, BEAM_SIZE)
        exact = exact or translations
        same = sum(map(str.__eq__, translations, exact)) / len(exact)
        found = scores(translations, references)
        rows.append({"engine": engine, "precision": precision, "same": same} | found)
    return rows


def markdown(rows: Sequence[dict]) -> str:
    """Return the scores, a line for each way to train and to translate: the mean of the seeds, and each of them."""
    lines = ["| trained in | translated by | BLEU | chrF | same as in fp32 | validation loss |", "|---" * 6 + "|"]
    for trained, (engine, precision) in product(DTYPES, ENGINES):
        found = results.pick(rows, trained=trained, engine=engine, precision=precision)
        if not found:
            continue
        bleu, chrf, same, loss = ([row[name] for row in found] for name in ("BLEU", "chrF", "same", "val_loss"))
        each = f"{statistics.mean(bleu):.2f} ({', '.join(f'{value:.2f}' for value in bleu)})"
        means = f"{statistics.mean(chrf):.2f} | {statistics.mean(same):.1%} | {statistics.mean(loss):.3f}"
        lines.append(f"| {trained} | {engine}, {precision} | {each} | {means} |")
    return "\n".join(lines)


def main() -> int:
    """Train, translate, write the scores; without a corpus, end in one sentence and status 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3_000, help="of each training (default: 3000)")
    parser.add_argument("--seeds", type=int, default=2, help="trainings in each precision (default: 2)")
    parser.add_argument("--folder", help="folder with raw/ of Multi30k, instead of a download ($MULTI30K)")
    parser.add_argument("--out", type=Path, default=results.default_path(name="quality"), help="file of results")
    options = parser.parse_args()
    try:
        pairs = multi30k(folder=options.folder).test
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    runs = [*product(DTYPES, range(options.seeds))]
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(os.cpu_count()) as pool:
        folders = [Path(place) / f"{precision}-{seed}" for precision, seed in runs]
        losses = pool.map(lambda run, out: train(out, *run, options.steps, options.folder), runs, folders)
        rows = []
        for (trained, seed), folder, loss in zip(runs, folders, losses):
            about = {"trained": trained, "seed": seed, "steps": options.steps, "val_loss": loss}
            rows += [about | row for row in translate_all(folder, pairs)]
            print(markdown(rows), flush=True)
    text = json.dumps({"versions": machine.versions(), "rows": rows}, indent=1)
    write_safely(options.out, f"{text}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
