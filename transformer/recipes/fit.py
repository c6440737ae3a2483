"""Train a translator from a corpus into a folder, in a way that survives interruptions.

The loop is chapter 11's, with what a product needs around it: the faster parts of chapter 15, a
time limit, a progress bar, checkpoints, the learning curve as a file, and the best model so far.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
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
from transformer.distributed import DistributedLoss, shard
from transformer.fast_training import Loss, chunked_loss, in_bfloat16, optimize_for_cpu
from transformer.model import Transformer
from transformer.ranks import Ranks, current
from transformer.recipes.monitoring import Callback, MetricsLog, Samples, has_stalled, in_words
from transformer.recipes.presets import Preset
from transformer.recipes.resuming import (
    SavedRun,
    changes,
    check_same_model,
    corpus_hash,
    read_run,
)
from transformer.recipes.run_folder import RunFolder, only_run, restore_snapshots
from transformer.recipes.streams import Stream, stream_of
from transformer.recipes.techniques import Techniques
from transformer.recipes.usable import usable_pairs
from transformer.training import Trainer, TrainingConfig, load_checkpoint

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
    samples: int = 0,
    callbacks: Sequence[Callback] = (),
) -> list[dict]:
    """Train a translator into `folder` and return the learning curve, one row a validation.

    `folder` gets tokenizer.json, the averaged model with the lowest validation loss (config.json,
    model.safetensors), decoding.json, the curve (history.json and its picture history.svg), the
    metrics as lines of JSON (metrics.jsonl), and the last two checkpoints, one of which `resume`
    may name. At each validation so many `samples` of the validation split are translated, and each
    of the `callbacks` is called with every line of the metrics. An old run in `folder` is replaced
    at the first validation, and a killed process leaves the old translator or the new one. A
    resumed run takes its tokenizer from the checkpoint, and says on standard error which settings
    have changed. When `should_stop` returns True, a checkpoint is written and KeyboardInterrupt
    raised. The caller's random numbers are left as they were.

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
        techniques = preset.techniques
        if not saved:
            techniques.prepare(model, pairs)
        trainer = fast_trainer(
            model, preset.training, precision, techniques.loss(), techniques.trainer()
        )
        torch.manual_seed(preset.training.seed)
        settings = {
            "vocab_size": preset.vocab_size,
            "minutes": preset.minutes,
            "precision": precision,
            "corpus": corpus_hash(corpus),
            "tokenizer": saved.tokenizer if saved else tokenizer.to_str(),
            "techniques": asdict(techniques),
            "decoding": asdict(preset.decoding),
        }
        run_folder = RunFolder(folder, settings, metrics=MetricsLog(callbacks))
        run = Run(trainer, val_pairs, run_folder, preset.minutes, techniques=techniques)
        run.samples = Samples(val_pairs, tokenizer, samples)
        if saved:
            run.resume(saved)
            announce(changes(saved, preset, precision, settings["corpus"]))
        if run.ended():
            announce([f"nothing is left to train: {progress_of(run)} done"])
            return run.history
        stream = stream_of(pairs, preset, tokenizer, model.config.max_len)
        return run.train(stream, should_stop)


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


def fast_trainer(
    model: Transformer,
    config: TrainingConfig,
    precision: str = "auto",
    loss: Loss = chunked_loss,
    make: Callable[..., Trainer] = Trainer,
) -> Trainer:
    """Return a trainer of `model`, made by `make`, with what is faster on its device.

    The trainer's model shares its parameters with `model`, which is otherwise left as it is. "auto"
    multiplies in bfloat16 where the processor has instructions for it. In several processes it
    takes shards of batches (chapter 14). ValueError for another precision than auto, fp32 or bf16.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be auto, fp32 or bf16, not {precision!r}")
    device = model.bias.device
    half = precision == "bf16" or (precision == "auto" and has_fast_bfloat16(device))
    fast = optimize_for_cpu(model) if device.type == "cpu" else model
    loss = in_bfloat16(loss) if half else loss
    if current().world > 1:
        loss = DistributedLoss(fast, loss)
    return make(fast, config, loss)


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
    techniques: Techniques = field(default_factory=Techniques)
    samples: Samples | None = None
    ranks: Ranks = field(default_factory=current)

    def __post_init__(self):
        self.cooldown = self.techniques.hook_into(self.trainer)

    def resume(self, saved: SavedRun) -> None:
        """Continue from a checkpoint; ValueError when it does not fit."""
        load_checkpoint(self.trainer, saved.checkpoint)
        restore_snapshots(self.trainer, saved.checkpoint.parent)
        self.seconds = saved.seconds
        self.history = list(saved.history)
        self.folder.resume(saved, self.trainer.model.config, self.trainer.steps)

    def train(self, stream: Stream, should_stop: Callable[[], bool]) -> list[dict]:
        """Train on the batches of a stream until the run ends, and return the learning curve."""
        if self.ranks.is_first:
            self.folder.prepare()
        draw_own_numbers(self.trainer, self.ranks)
        trainer = self.trainer
        config = trainer.config
        device = trainer.model.bias.device
        val_batches = validation_batches(self.val_pairs, config.max_tokens, self.ranks, device)
        clock = time.perf_counter() - self.seconds
        batches = stream.steps(trainer.steps)
        with progress_bar(self) as bar:
            while not self.ended():
                group = next(batches)
                self.cooldown.progress = self.progress()
                self.losses.append(trainer.step(*(batch.to(device) for batch in group)))
                seconds = time.perf_counter() - clock
                stopped, self.seconds = self.ranks.largest(should_stop(), seconds)
                log(self, sum(batch.n_tokens for batch in group))
                if stopped or self.ended() or trainer.steps % config.validate_every == 0:
                    self.validate(val_batches, stream.epoch_of(trainer.steps))
                show(self, bar)
                if stopped:
                    raise KeyboardInterrupt
        return self.history

    def progress(self) -> float:
        """Return how much of the run is done, from 0 to 1, by its steps or by its minutes."""
        steps = self.trainer.steps / self.trainer.config.steps
        return max(steps, self.seconds / (60 * self.minutes))

    def ended(self) -> bool:
        """Return whether the steps, the minutes or the patience are over."""
        return self.progress() >= 1 or has_stalled(self.history, self.techniques.patience)

    def validate(self, val_batches: Sequence[Batch], epoch: int) -> None:
        """Add a row to the learning curve; write the curve, a checkpoint and the best model.

        Raises FloatingPointError, before anything is written, if the loss is not finite.
        """
        train_loss = sum(self.losses) / len(self.losses)
        val_loss = self.trainer.validate(val_batches)
        self.losses.clear()
        self.history.append(curve_row(self.trainer, epoch, self.seconds, train_loss, val_loss))
        if self.ranks.is_first:
            samples = self.samples.translate(self.trainer.ema_model) if self.samples else []
            metrics = self.folder.metrics
            metrics.add(self.history[-1] | ({"samples": samples} if samples else {}))
            self.folder.keep(self.trainer, self.seconds, self.history)
            metrics.meter.clear()  # the time of a validation is not one of training
        draw_own_numbers(self.trainer, self.ranks)


def draw_own_numbers(trainer: Trainer, ranks: Ranks) -> None:
    """Let dropout draw other numbers than in rank 0, whose state is in the checkpoint.

    They follow from the step, so that a resumed run goes on as it would have without a stop.
    """
    if not ranks.is_first:
        torch.manual_seed(trainer.config.seed + trainer.steps + 10**9 * ranks.rank)


def log(run: Run, n_tokens: int) -> None:
    """Add the last step, of so many tokens, to the metrics."""
    metrics = run.folder.metrics
    added = metrics.step(run.trainer.steps, run.seconds, n_tokens, run.losses[-1])
    if added and run.ranks.is_first:
        run.folder.log()


def progress_bar(run: Run) -> tqdm:
    """Return a bar that fills with steps, or with seconds when there is a time limit."""
    timed = math.isfinite(run.minutes)
    return tqdm(
        total=round(60 * run.minutes) if timed else run.trainer.config.steps,
        unit="s" if timed else "step",
        desc="training",
        bar_format="{desc} {percentage:3.0f}% {bar:20} {elapsed}<{remaining} {postfix}",
        mininterval=0.5,
    )


def show(run: Run, bar: tqdm) -> None:
    """Move the bar, and show the last validation loss."""
    done = run.seconds if math.isfinite(run.minutes) else run.trainer.steps
    bar.update(min(round(done), bar.total) - bar.n)
    words = in_words(run.trainer.steps, run.folder.metrics.meter.speed, run.history)
    bar.set_postfix_str(words, refresh=False)


def validation_batches(
    pairs: Sequence[Pair], max_tokens: int, ranks: Ranks, device: torch.device
) -> list[Batch]:
    """Return this process's part of the batches to validate with, on a device."""
    batches = [collate(group) for group in batches_by_length(pairs, max_tokens)]
    if ranks.world > 1:
        batches = [shard(batch, ranks.rank, ranks.world) for batch in batches]
    return [batch.to(device) for batch in batches]


def progress_of(run: Run) -> str:
    """Return how far a run is, in steps, in minutes, or in validations without a lower loss."""
    if has_stalled(run.history, run.techniques.patience):
        return f"{run.techniques.patience} validations without a lower loss are"
    if math.isfinite(run.minutes):
        return f"{run.seconds / 60:.1f} of {run.minutes} minutes are"
    return f"{run.trainer.steps} of {run.trainer.config.steps} steps are"


def curve_row(
    trainer: Trainer, epoch: int, seconds: float, train_loss: float, val_loss: float
) -> dict:
    """Return a row of the learning curve; FloatingPointError if the loss is not finite."""
    if not math.isfinite(val_loss):
        raise FloatingPointError(f"validation loss of step {trainer.steps} is {val_loss}")
    return {
        "step": trainer.steps,
        "epoch": epoch,
        "seconds": round(seconds, 1),
        "learning_rate": trainer.optimizer.param_groups[0]["lr"],
        "train_loss": train_loss,
        "val_loss": val_loss,
    }
