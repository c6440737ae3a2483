"""Train a translator from a corpus into a folder, in a way that survives interruptions.

The loop is chapter 11's, with what a product needs around it: the faster parts of chapter 15, a
time limit, a progress bar, checkpoints, the learning curve as a file, and the best model so far.
"""

import math
import sys
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
    train_tokenizer,
)
from transformer.distributed import DistributedLoss
from transformer.fast_training import chunked_loss, in_bfloat16, optimize_for_cpu
from transformer.model import Transformer
from transformer.ranks import Ranks, current, draw_own_numbers
from transformer.recipes.mapped import Feed, parts
from transformer.recipes.presets import Preset
from transformer.recipes.resuming import (
    SavedRun,
    changes,
    check_same_model,
    corpus_hash,
    read_run,
)
from transformer.recipes.run_folder import RunFolder, only_run
from transformer.recipes.usable import usable_pairs
from transformer.training import (
    Trainer,
    TrainingConfig,
    learning_rate,
    load_checkpoint,
)

PRECISIONS = ("auto", "fp32", "bf16")
LONGEST_TOKEN = 100
"""Characters of a token at most: a text of more than max_len times as many cannot be read."""


def fit(
    corpus: Corpus,
    folder: str | Path,
    preset: Preset,
    *,
    device: str = "cpu",
    precision: str = "auto",
    resume: str | Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    longest: int | None = None,
    strict: bool = False,
) -> list[dict]:
    """Train a translator into `folder` and return the learning curve, one row a validation.

    `folder` gets tokenizer.json, the averaged model with the lowest validation loss (config.json,
    model.safetensors), the curve (history.json), and the last two checkpoints, one of which
    `resume` may name. An old run in `folder` is replaced at the first validation, and a killed
    process leaves the old translator or the new one. A resumed run takes its tokenizer from the
    checkpoint, and says on standard error which settings have changed. When `should_stop` returns
    True, a checkpoint is written and KeyboardInterrupt raised. The caller's random numbers are left
    as they were.

    Pairs that are blank, unknown to the vocabulary or longer than the model's max_len are left out,
    and training pairs of more than `longest` tokens, too; how many is said on standard error. With
    `strict` they raise a ValueError.

    In several processes that have joined (`transformer.ranks`), each takes its share of every
    batch, and rank 0 writes; the result is that of one process, up to rounding and dropout.

    Before anything is written, raises ValueError if no pair is left, or the checkpoint does not
    fit; FileNotFoundError if there is none; and BlockingIOError if another process trains into
    `folder`.
    """
    folder = Path(folder)
    with only_run(folder), torch.random.fork_rng():
        check_splits(corpus)
        saved = read_run(resume) if resume else None
        tokenizer = tokenizer_of(corpus, preset, saved)
        torch.manual_seed(preset.training.seed)
        model = Transformer(preset.model_config(tokenizer.get_vocab_size())).to(device)
        pairs, val_pairs = pairs_of(corpus, tokenizer, model.config.max_len, longest, strict)
        trainer = fast_trainer(model, preset.training, precision)
        torch.manual_seed(preset.training.seed)
        settings = {
            "vocab_size": preset.vocab_size,
            "minutes": preset.minutes,
            "precision": precision,
            "corpus": corpus_hash(corpus),
            "tokenizer": saved.tokenizer if saved else tokenizer.to_str(),
        }
        run = Run(trainer, val_pairs, RunFolder(folder, settings), preset.minutes)
        if saved:
            run.resume(saved)
            announce(changes(saved, preset, precision, settings["corpus"]))
        if run.ended():
            announce([f"nothing is left to train: {run.progress()} done"])
            return run.history
        if run.ranks.is_first:
            run.folder.prepare()
        draw_own_numbers(run.ranks, preset.training.seed + trainer.steps)
        return run.train(pairs, should_stop)


def tokenizer_of(corpus: Corpus, preset: Preset, saved: SavedRun | None) -> Tokenizer:
    """Return the tokenizer of the saved run, or a new one; ValueError if it has other sizes."""
    if saved is None:
        longest = LONGEST_TOKEN * preset.model_config(preset.vocab_size).max_len
        texts = (text for text in corpus.texts() if len(text) <= longest)
        learned = None
        if current().is_first:
            learned = train_tokenizer(texts, preset.vocab_size, corpus.lowercase).to_str()
        return read_tokenizer(current().from_first(learned))
    check_same_model(saved, preset)
    return saved.load_tokenizer()


def read_tokenizer(text: str) -> Tokenizer:
    """Return a tokenizer from its JSON, in which a typed </s> is text."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True  # the text does not keep this setting
    return tokenizer


def announce(sentences: Sequence[str]) -> None:
    """Print sentences on standard error, one a line."""
    for sentence in sentences:
        print(sentence, file=sys.stderr)


def check_splits(corpus: Corpus) -> None:
    """Raise ValueError if there is nothing to train or to validate on."""
    for split, pairs in (("training", corpus.train), ("validation", corpus.val)):
        if not pairs:
            raise ValueError(f"{corpus.name} has no pairs for {split}")


def pairs_of(
    corpus: Corpus, tokenizer: Tokenizer, max_len: int, longest: int | None, strict: bool
) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """Return the pairs for training and for validation as ids.

    Pairs that cannot be learned from are left out and announced; with `strict`, a ValueError.
    """
    limit = min(longest or max_len, max_len)
    pairs, skipped = usable_pairs(tokenizer, corpus, "train", limit)
    val_pairs, val_skipped = usable_pairs(tokenizer, corpus, "val", max_len)
    sentences = [sentence for sentence in (*corpus.notes, skipped, val_skipped) if sentence]
    if strict and sentences:
        raise ValueError(sentences[0])
    announce([f"warning: {sentence}" for sentence in sentences])
    return pairs, val_pairs


def fast_trainer(model: Transformer, config: TrainingConfig, precision: str = "auto") -> Trainer:
    """Return a trainer of `model` with what is faster on its device.

    The trainer's model shares its parameters with `model`, which is otherwise left as it is. "auto"
    multiplies in bfloat16 where the processor has instructions for it. In several processes it
    takes shards of batches (chapter 14). ValueError for another precision than auto, fp32 or bf16.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be auto, fp32 or bf16, not {precision!r}")
    device = model.bias.device
    half = precision == "bf16" or (precision == "auto" and has_fast_bfloat16(device))
    loss = in_bfloat16(chunked_loss) if half else chunked_loss
    trained = optimize_for_cpu(model) if device.type == "cpu" else model
    if current().world > 1:
        loss = DistributedLoss(trained, loss)
    return Trainer(trained, config, loss)


@dataclass
class Run:
    """A training run: a trainer, the folder that it writes to, and how far it has come."""

    trainer: Trainer
    val_pairs: Sequence[Pair]
    folder: RunFolder
    minutes: float = math.inf
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    ranks: Ranks = field(default_factory=current)

    def resume(self, saved: SavedRun) -> None:
        """Continue from a checkpoint; ValueError when it does not fit."""
        load_checkpoint(self.trainer, saved.checkpoint)
        self.seconds = saved.seconds
        self.history = list(saved.history)
        self.folder.resume(saved, self.trainer.model.config, self.trainer.steps)

    def train(self, pairs: Sequence[Pair], should_stop: Callable[[], bool]) -> list[dict]:
        """Train to the end of the steps or the minutes and return the learning curve."""
        trainer = self.trainer
        config = trainer.config
        device = trainer.model.bias.device
        groups = map(collate, batches_by_length(self.val_pairs, config.max_tokens))
        val_batches = [batch.to(device) for batch in parts(groups, self.ranks)]
        clock = time.perf_counter() - self.seconds
        with self.progress_bar() as bar:
            feed = Feed(pairs, config, self.ranks)
            batches = feed.steps(trainer.steps)
            while not self.ended():
                self.losses.append(trainer.step(*(batch.to(device) for batch in next(batches))))
                stopped, self.seconds = self.ranks.largest(
                    should_stop(), time.perf_counter() - clock
                )
                if stopped or self.ended() or trainer.steps % config.validate_every == 0:
                    self.validate(val_batches, feed.epoch_of(trainer.steps))
                self.show(bar)
                if stopped:
                    raise KeyboardInterrupt
        return self.history

    def ended(self) -> bool:
        """Return whether the steps or the minutes are over."""
        over = self.trainer.steps >= self.trainer.config.steps
        return over or self.seconds >= 60 * self.minutes

    def progress(self) -> str:
        """Return how far the run is, in steps or in minutes."""
        if math.isfinite(self.minutes):
            return f"{self.seconds / 60:.1f} of {self.minutes} minutes are"
        return f"{self.trainer.steps} of {self.trainer.config.steps} steps are"

    def validate(self, val_batches: Sequence[Batch], epoch: int) -> None:
        """Add a row to the learning curve; write the curve, a checkpoint and the best model.

        Raises FloatingPointError, before anything is written, if the loss is not finite.
        """
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
        if not math.isfinite(row["val_loss"]):
            raise FloatingPointError(
                f"validation loss of step {trainer.steps} is {row['val_loss']}"
            )
        self.losses.clear()
        self.history.append(row)
        if self.ranks.is_first:
            self.folder.keep(trainer, self.seconds, self.history)
        draw_own_numbers(self.ranks, config.seed + trainer.steps)

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
