"""Train a translator from a corpus into a folder, in a way that survives interruptions.

The loop is chapter 11's, with what a product needs around it: the faster parts of chapter 15, a
time limit, a progress bar, checkpoints, the learning curve as a file, and the best model so far.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from transformer.corpora import Corpus
from transformer.cpu import has_fast_bfloat16
from transformer.data import (
    Batch,
    Pair,
    batches_by_length,
    collate,
    encode_pairs,
    load_tokenizer,
    train_tokenizer,
)
from transformer.fast_training import chunked_loss, in_bfloat16, optimize_for_cpu
from transformer.files import atomic_write, remove_drafts
from transformer.model import Transformer, save_model
from transformer.recipes.presets import Preset
from transformer.training import (
    Trainer,
    TrainingConfig,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
    training_batches,
)

PRECISIONS = ("auto", "fp32", "bf16")
CHECKPOINTS_KEPT = 2


def fit(
    corpus: Corpus,
    folder: str | Path,
    preset: Preset,
    *,
    device: str = "cpu",
    precision: str = "auto",
    resume: str | Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict]:
    """Train a translator into `folder` and return the learning curve, one row a validation.

    `folder` gets tokenizer.json, the averaged model with the lowest validation loss (config.json,
    model.safetensors), the curve (history.json), and the last two checkpoints, one of which
    `resume` may name. When `should_stop` returns True, a checkpoint is written and
    KeyboardInterrupt raised. The caller's random numbers are left as they were. Raises ValueError
    if a sentence is longer than the model's max_len or the checkpoint does not fit.
    """
    folder = Path(folder)
    if resume and (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(folder / "tokenizer.json")
    else:
        tokenizer = train_tokenizer(corpus.texts(), preset.vocab_size, corpus.lowercase)
    with torch.random.fork_rng():
        torch.manual_seed(preset.training.seed)
        model = Transformer(preset.model_config(tokenizer.get_vocab_size())).to(device)
    pairs = encode_pairs(tokenizer, corpus.train)
    val_pairs = encode_pairs(tokenizer, corpus.val)
    check_lengths(corpus.name, [*pairs, *val_pairs], model.config.max_len)
    trainer = fast_trainer(model, preset.training, precision)
    with torch.random.fork_rng():
        torch.manual_seed(preset.training.seed)
        run = Run(trainer, val_pairs, folder, preset.minutes)
        remove_drafts(folder)
        if resume:
            run.resume(resume)
        write_tokenizer(tokenizer, folder)
        return run.train(pairs, should_stop)


def check_lengths(name: str, pairs: Sequence[Pair], max_len: int) -> None:
    """Raise ValueError if a sentence of the corpus is longer than the model can read."""
    longest = max(len(row) for pair in pairs for row in pair)
    if longest > max_len:
        raise ValueError(
            f"the longest sentence of {name} has {longest} tokens, max_len is {max_len}"
        )


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json."""
    atomic_write(folder / "tokenizer.json", tokenizer.to_str().encode())


def fast_trainer(model: Transformer, config: TrainingConfig, precision: str = "auto") -> Trainer:
    """Return a trainer of `model` with what is faster on its device.

    The trainer's model shares its parameters with `model`, which is otherwise left as it is. "auto"
    multiplies in bfloat16 where the processor has instructions for it. ValueError for another
    precision than auto, fp32 or bf16.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be auto, fp32 or bf16, not {precision!r}")
    device = model.bias.device
    half = precision == "bf16" or (precision == "auto" and has_fast_bfloat16(device))
    loss = in_bfloat16(chunked_loss) if half else chunked_loss
    return Trainer(optimize_for_cpu(model) if device.type == "cpu" else model, config, loss)


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    return sorted(Path(folder).glob("checkpoint-*.safetensors"))


def remove_old_checkpoints(newest: Path) -> None:
    """Keep the newest checkpoint and the one before; those of later steps are another run's."""
    found = checkpoints(newest.parent)
    end = found.index(newest) + 1
    for other in found[: max(0, end - CHECKPOINTS_KEPT)] + found[end:]:
        other.unlink()


@dataclass
class Run:
    """A training run: a trainer, the folder that it writes to, and how far it has come."""

    trainer: Trainer
    val_pairs: Sequence[Pair]
    folder: Path
    minutes: float = math.inf
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def resume(self, checkpoint: str | Path) -> None:
        """Continue from a checkpoint; ValueError when it does not fit."""
        notes = load_checkpoint(self.trainer, checkpoint)
        try:
            self.seconds = float(notes["seconds"])
            self.history = list(notes["history"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{checkpoint} was not written by a run of `fit`") from None

    def train(self, pairs: Sequence[Pair], should_stop: Callable[[], bool]) -> list[dict]:
        """Train to the end of the steps or the minutes and return the learning curve."""
        trainer = self.trainer
        config = trainer.config
        device = trainer.model.bias.device
        groups = batches_by_length(self.val_pairs, config.max_tokens)
        val_batches = [collate(group).to(device) for group in groups]
        clock = time.perf_counter() - self.seconds
        with self.progress_bar() as bar:
            batches = training_batches(pairs, config, start=trainer.steps)
            while not self.ended():
                self.losses.append(trainer.step(*(batch.to(device) for batch in next(batches))))
                self.seconds = time.perf_counter() - clock
                stopped = should_stop()
                if stopped or self.ended() or trainer.steps % config.validate_every == 0:
                    self.validate(val_batches, epoch_of(trainer, pairs))
                self.show(bar)
                if stopped:
                    raise KeyboardInterrupt
        return self.history

    def ended(self) -> bool:
        """Return whether the steps or the minutes are over."""
        over = self.trainer.steps >= self.trainer.config.steps
        return over or self.seconds >= 60 * self.minutes

    def validate(self, val_batches: Sequence[Batch], epoch: int) -> None:
        """Add a row to the learning curve; write the curve, a checkpoint and the best model."""
        trainer = self.trainer
        config = trainer.config
        row = {
            "step": trainer.steps,
            "epoch": epoch,
            "seconds": round(self.seconds, 1),
            "learning_rate": learning_rate(trainer.steps, config.warmup, config.peak_lr),
            "train_loss": sum(self.losses) / len(self.losses),
            "val_loss": trainer.validate(val_batches),
        }
        if row["val_loss"] < min((old["val_loss"] for old in self.history), default=math.inf):
            save_model(trainer.ema_model, self.folder)
        self.losses.clear()
        self.history.append(row)
        notes = {"seconds": self.seconds, "history": self.history}
        path = self.folder / f"checkpoint-{trainer.steps:08d}.safetensors"
        save_checkpoint(trainer, path, notes)
        remove_old_checkpoints(path)
        atomic_write(self.folder / "history.json", json.dumps(self.history, indent=1).encode())

    def progress_bar(self) -> tqdm:
        """Return a bar that fills with steps, or with seconds when there is a time limit."""
        timed = math.isfinite(self.minutes)
        return tqdm(
            total=round(60 * self.minutes) if timed else self.trainer.config.steps,
            unit="s" if timed else "step",
            desc="training",
            bar_format="{desc} {percentage:3.0f}% {bar:20} {elapsed}<{remaining} {postfix}",
            mininterval=0.5,
        )

    def show(self, bar: tqdm) -> None:
        """Move the bar, and show the last validation loss."""
        done = self.seconds if math.isfinite(self.minutes) else self.trainer.steps
        bar.update(min(round(done), bar.total) - bar.n)
        if self.history:
            loss = self.history[-1]["val_loss"]
            text = f"step {self.trainer.steps}, validation loss {loss:.3f}"
            bar.set_postfix_str(text, refresh=False)


def epoch_of(trainer: Trainer, pairs: Sequence[Pair]) -> int:
    """Return which epoch, counted from 0, the last batch belonged to."""
    per_epoch = len(batches_by_length(pairs, trainer.config.max_tokens))
    return (trainer.steps * trainer.config.accumulate - 1) // per_epoch
