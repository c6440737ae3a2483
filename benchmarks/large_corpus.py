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
from pathlib import Path

import torch

from transformer.corpora import english_italian, text_files
from transformer.data import train_tokenizer
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
    pairs = english_italian().train
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


def train(folder: Path, steps: int) -> dict:
    """Read, tokenise unless that was done, and train; return times and memory."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    before = memory()
    corpus = text_files((folder / "en", folder / "it"))
    read = time.perf_counter()
    path = folder / "tokenizer.json"
    if not path.exists():
        train_tokenizer(corpus.texts(), 600, corpus.lowercase).save(str(path))
    from transformer.data import load_tokenizer

    tokenizer = load_tokenizer(path)
    learned = time.perf_counter()
    pairs, _ = usable_pairs(tokenizer, corpus, "train", 128)
    tokenised = time.perf_counter()
    model = Transformer(ENGLISH_ITALIAN.model_config(tokenizer.get_vocab_size()))
    trainer = fast_trainer(model, CONFIG, "fp32")
    feed = Feed(pairs, CONFIG, Ranks()).steps(0)
    trainer.step(*next(feed))
    first = time.perf_counter()
    after_first = memory()
    for _ in range(steps):
        trainer.step(*next(feed))
    return {
        "pairs": len(pairs),
        "seconds": {
            "files": round(read - begin, 1),
            "vocabulary": round(learned - read, 1),
            "tokenising": round(tokenised - learned, 1),
            "to the first step": round(first - tokenised, 1),
        },
        "megabytes": {"before": before, "first step": after_first, "end": memory()},
    }


def main() -> None:
    """Write the corpus, and run both processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(train(options.work, options.steps)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.pairs)
        environment = os.environ | {"TRANSFORMER_CACHE": folder}
        for name, steps in (("first start", 1), ("second start", options.steps)):
            command = [sys.executable, "-m", "benchmarks.large_corpus", "--work", folder]
            done = subprocess.run(
                [*command, "--steps", str(steps)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[name] = json.loads(done.stdout)
            print(name, json.dumps(found[name]), flush=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
