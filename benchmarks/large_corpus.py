"""A corpus that is too large for memory: how long until training starts, and how much memory.

    python -m benchmarks.large_corpus --pairs 5000000

The pairs are two sentences of the course's grammar each, written to two files. One process reads
and tokenises them; another one starts with what is in the cache, trains some steps, and reports
its time and its memory.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import torch

from transformer.corpora import english_italian, large_files, text_files
from transformer.corpora.tokenised import TokenisedPairs, write_tokenised
from transformer.data import Pair, load_tokenizer, train_tokenizer
from transformer.model import Transformer
from transformer.ranks import Ranks
from transformer.recipes import ENGLISH_ITALIAN, fast_trainer
from transformer.recipes.mapped import Feed
from transformer.recipes.usable import usable_pairs
from transformer.training import TrainingConfig

OUT = Path(__file__).with_name("large_corpus.json")
CONFIG = TrainingConfig(max_tokens=2048)


def write(folder: Path, count: int) -> None:
    """Write two aligned files."""
    pairs = list(english_italian().train)
    draw = random.Random(0)
    with (folder / "en").open("w") as en, (folder / "it").open("w") as it:
        for _ in range(count):
            first = draw.choice(pairs)
            second = draw.choice(pairs)
            en.write(f"{first[0]} , {second[0]}\n")
            it.write(f"{first[1]} , {second[1]}\n")


def memory() -> dict[str, int]:
    """Return resident megabytes, of the process's own and of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {name: value for name, _, value in (line.partition(":") for line in lines)}
    names = {"peak": "VmHWM", "now": "VmRSS", "own": "RssAnon", "mapped": "RssFile"}
    return {name: int(status[key].split()[0]) // 1024 for name, key in names.items()}


def read(folder: Path) -> tuple[Sequence[Pair], dict[str, float]]:
    """Read the files and tokenise them, unless that was done; return the pairs and the times."""
    large_files.LARGE = 0
    begin = time.perf_counter()
    corpus = text_files((folder / "en", folder / "it"))
    scanned = time.perf_counter()
    path = folder / "tokenizer.json"
    if not path.exists():
        train_tokenizer(corpus.texts(), 600, corpus.lowercase).save(str(path))
    tokenizer = load_tokenizer(path)
    learned = time.perf_counter()
    pairs, _ = usable_pairs(tokenizer, corpus, "train", 128)
    tokenised = time.perf_counter()
    times = {"files": scanned - begin, "vocabulary": learned - scanned}
    return pairs, times | {"tokenising": tokenised - learned}


def repeated(pairs: Sequence[Pair], folder: Path, count: int) -> None:
    """Write tokenised pairs again and again, to have as many as wanted in less time."""
    write_tokenised(folder, islice(cycle(map(pairs.__getitem__, range(len(pairs)))), count), 600)


def train(pairs: Sequence[Pair], steps: int) -> dict:
    """Train on pairs; return the time to the first step, and memory."""
    begin = time.perf_counter()
    before = memory()
    trainer = fast_trainer(Transformer(ENGLISH_ITALIAN.model_config(600)), CONFIG, "fp32")
    feed = Feed(pairs, CONFIG, Ranks()).steps(0)
    trainer.step(*next(feed))
    first = time.perf_counter() - begin
    for _ in range(steps):
        trainer.step(*next(feed))
    megabytes = {"before": before, "after": memory()}
    return {"pairs": len(pairs), "to the first step": round(first, 1), "megabytes": megabytes}


def work(folder: Path, steps: int, count: int) -> dict:
    """Do what one process does: read and train, or train on `count` pairs of ids."""
    torch.set_num_threads(1)
    if count:
        ids = folder / "repeated"
        if not ids.exists():
            pairs, _ = read(folder)
            repeated(pairs, ids, count)
            return {"written": count}
        return train(TokenisedPairs(ids), steps)
    pairs, times = read(folder)
    found = train(pairs, steps)
    return found | {"seconds": {name: round(seconds, 1) for name, seconds in times.items()}}


def main() -> None:
    """Write the corpus, and run both processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ids", type=int, default=0, help="also train on so many pairs of ids")
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options.steps, options.ids)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.pairs)
        starts = [("first start", 0), ("second start", 0)]
        if options.ids:
            starts += [("writing ids", options.ids), ("ids only", options.ids)]
        for name, ids in starts:
            command = [sys.executable, "-m", "benchmarks.large_corpus", "--work", folder]
            done = subprocess.run(
                [*command, "--steps", str(options.steps), "--ids", str(ids)],
                env=os.environ | {"TRANSFORMER_CACHE": folder},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[name] = json.loads(done.stdout)
            print(name, json.dumps(found[name]), flush=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
