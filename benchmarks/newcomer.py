"""Training as a newcomer meets it: each library with its own defaults, in fresh processes.

Ours is what `python -m transformer train --corpus multi30k` does. The other is a tutorial's loop
around `torch.nn.Transformer`: dropout where that class has it, float32, Adam with its defaults, and
the logits of all tokens at once. Both have the same model size, a tied table and batches by length;
tutorials have neither of the last two.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks import machine, results
from benchmarks.adapters.torch_nn import Seq2Seq
from benchmarks.timing import MOST_OTHERS, in_fresh_process, measure
from benchmarks.work import SIZES, SMOOTHING, VOCABULARY, Data, prepare, target_tokens
from transformer import Config, Transformer
from transformer.cpu.process import tune_allocator
from transformer.data import PAD, Batch
from transformer.recipes import MULTI30K, fast_trainer

PASSES = 3
IMPORT = """
import time, torch
start = time.perf_counter()
import transformer
print(time.perf_counter() - start)
"""


def ours() -> Callable[[Batch], object]:
    """Return a training step of the command line."""
    tune_allocator()
    return fast_trainer(Transformer(Config.tiny(VOCABULARY)), MULTI30K.training).step


def tutorial() -> Callable[[Batch], object]:
    """Return a training step as tutorials write it."""
    model = Seq2Seq(SIZES["tiny"], inner_dropout=True).train()
    loss_fn = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=SMOOTHING)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9)

    def step(batch: Batch) -> float:
        tgt = batch.decoder_input
        t = tgt.shape[1]
        states = model.stacks(
            model.embed(batch.src),
            model.embed(tgt),
            tgt_mask=torch.ones(t, t, dtype=torch.bool).triu(1),
            src_key_padding_mask=batch.src == PAD,
            tgt_key_padding_mask=tgt == PAD,
            memory_key_padding_mask=batch.src == PAD,
        )
        logits = model.logits(states)
        loss = loss_fn(logits.flatten(0, 1), batch.labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


FIRST_STEPS = {"ours": ours, "torch.nn": tutorial}


def train(name: str, folder: Path) -> tuple[float, float]:
    """Train, and return target tokens a second and the share of the machine that others used."""
    torch.manual_seed(0)
    batches = Data(folder).training(SIZES["tiny"].batches)
    step = FIRST_STEPS[name]()
    threads = torch.get_num_threads()
    samples = [
        measure(lambda: [step(batch) for batch in batches], "cpu", threads)
        for _ in range(1 + PASSES)
    ][1:]
    seconds, others = zip(*samples)
    return target_tokens(batches) / statistics.median(seconds), statistics.median(others)


def import_seconds() -> float:
    """Return how long `import transformer` takes after `import torch`."""
    outputs = [subprocess.check_output([sys.executable, "-c", IMPORT], text=True) for _ in range(5)]
    return statistics.median(map(float, outputs))


def compare(rounds: int, folder: Path) -> dict:
    """Time both in turns; disturbed processes count only if there are no others."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in FIRST_STEPS}
    for _ in range(rounds):
        for name, samples in found.items():
            samples.append(in_fresh_process(train, name, folder))
            print(f"{name:9} {samples[-1][0]:8,.0f} tokens/s", flush=True)
    speeds = {
        name: [speed for speed, other in samples if other <= MOST_OTHERS]
        or [speed for speed, _ in samples]
        for name, samples in found.items()
    }
    middle = {name: statistics.median(speed) for name, speed in speeds.items()}
    return {
        "tokens_per_s": {name: [round(speed, 1) for speed in speeds[name]] for name in speeds},
        "clean": {
            name: sum(other <= MOST_OTHERS for _, other in samples)
            for name, samples in found.items()
        },
        "ratio": round(middle["ours"] / middle["torch.nn"], 3),
        "import_seconds": round(import_seconds(), 3),
    }


def main() -> int:
    """Compare, and write the result into the file of results.

    Without a corpus it prints one sentence and returns 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.newcomer", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=5, help="processes for each (default: 5)")
    parser.add_argument("--out", type=Path, default=results.default_path(), help="file of results")
    parser.add_argument(
        "--folder", help="folder with raw/ of Multi30k, instead of a download ($MULTI30K)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            prepare(Path(folder), options.folder)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        found = compare(options.rounds, Path(folder))
    results.update(options.out, newcomer=found, versions=machine.versions())
    seconds = found["import_seconds"]
    print(f"{found['ratio']:.2f} × as fast; import transformer: {seconds:.3f} s beyond torch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
