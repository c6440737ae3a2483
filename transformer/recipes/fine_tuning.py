"""Fine-tune published weights on a corpus, and write them as a folder that `transformers` loads."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from tqdm import tqdm

from transformer.corpora import Corpus
from transformer.cpu import has_fast_bfloat16
from transformer.data import Batch, Pair, batches_by_length, pad
from transformer.fast_training import chunked_loss, in_bfloat16
from transformer.pretrained import PublishedTransformer, load_pretrained, save_pretrained
from transformer.published import PublishedTokenizer, checkpoint_folder
from transformer.training import Trainer, TrainingConfig, translation_loss

FINE_TUNING = TrainingConfig(
    steps=1000,
    max_tokens=2048,
    peak_lr=5e-5,
    warmup=100,
    max_grad_norm=1.0,
    ema_decay=0.99,
    validate_every=100,
)
"""What is usual for a trained model: small steps, so that it keeps what it knows."""


@dataclass(frozen=True)
class PaddedBatch(Batch):
    """A batch that is padded with the id of its model."""

    pad_id: int = 0

    @property
    def n_tokens(self) -> int:
        """The number of labels that are not padding."""
        return int((self.labels != self.pad_id).sum())

    def to(self, device: torch.device | str) -> "PaddedBatch":
        """Return the batch on another device."""
        return PaddedBatch(self.src.to(device), self.tgt.to(device), self.pad_id)


def fine_tune(
    corpus: Corpus,
    out: str | Path,
    init: str | Path,
    training: TrainingConfig = FINE_TUNING,
    *,
    languages: Sequence[str] | None = None,
    minutes: float = math.inf,
    device: str = "cpu",
    precision: str = "auto",
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict]:
    """Train published weights on a corpus into the folder `out`, and return the learning curve.

    `init` is a folder or a name of the hub. The first row of the curve is that of the weights as
    they were. After each validation with the lowest loss so far, the averaged weights are written,
    with the tokenizer and the rules of search of `init`. When `should_stop` returns True, the model
    is validated once more and KeyboardInterrupt is raised. Pairs that are too long or unknown are
    left out, which is said on standard error. Raises the errors of `load_pretrained`; ValueError if
    no pair is left, or `out` holds something else; FloatingPointError if the loss is not finite.
    """
    source = checkpoint_folder(init)
    if Path(out).resolve() == source.resolve():
        raise ValueError(f"{out} is where the weights come from: name another folder")
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        model, tokenizer = load_pretrained(source, languages)
        pairs = usable(model, tokenizer, corpus, "train")
        val = usable(model, tokenizer, corpus, "val")
        trainer = Trainer(model.to(device).train(), training, loss_of(model, device, precision))
        groups = batches_by_length(val, training.max_tokens)
        val_batches = [padded(group, model).to(device) for group in groups]
        history = [{"step": 0, "val_loss": trainer.validate(val_batches)}]
        best = math.inf
        batches = training_groups(pairs, training, model)
        for state in steps(trainer, batches, device, minutes, should_stop):
            if state != GOING or trainer.steps % training.validate_every == 0:
                history.append({"step": trainer.steps, "val_loss": trainer.validate(val_batches)})
                best = keep_if_best(trainer, history, best, out, source)
            if state == STOPPED:
                raise KeyboardInterrupt
    return history


GOING, ENDED, STOPPED = range(3)


def steps(
    trainer: Trainer,
    batches: Iterator[tuple[PaddedBatch, ...]],
    device: str,
    minutes: float,
    should_stop: Callable[[], bool],
) -> Iterator[int]:
    """Train, and yield after each step whether it goes on, has ended, or was stopped."""
    end = time.perf_counter() + 60 * minutes
    most = trainer.config.steps
    state = GOING
    with tqdm(total=most if math.isinf(minutes) else None, desc="fine-tuning") as bar:
        while state == GOING:
            trainer.step(*(batch.to(device) for batch in next(batches)))
            bar.update()
            if trainer.steps >= most or time.perf_counter() > end:
                state = ENDED
            if should_stop():
                state = STOPPED
            yield state


def keep_if_best(
    trainer: Trainer, history: list[dict], best: float, out: str | Path, source: Path
) -> float:
    """Write the averaged weights if their loss is the lowest so far, and return the lowest."""
    loss = history[-1]["val_loss"]
    if not math.isfinite(loss):
        raise FloatingPointError(f"validation loss of step {trainer.steps} is {loss}")
    if loss < best:
        model = trainer.ema_model
        assert isinstance(model, PublishedTransformer)  # a copy of the one it was made with
        save_pretrained(model, out, like=source)
    return min(best, loss)


def loss_of(model: PublishedTransformer, device: str, precision: str) -> Callable:
    """Return the loss: in chunks if the output is the embedding's table, in bfloat16 if wanted."""
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision must be auto, fp32 or bf16, not {precision!r}")
    tied = model.config.tables != "three" and model.config.logits_bias
    loss = chunked_loss if tied else translation_loss
    fast = precision == "auto" and has_fast_bfloat16(torch.device(device))
    return in_bfloat16(loss) if fast or precision == "bf16" else loss


def usable(
    model: PublishedTransformer, tokenizer: PublishedTokenizer, corpus: Corpus, split: str
) -> list[Pair]:
    """Return the pairs of a split as ids: sources as they are read, targets with a start token.

    Raises ValueError if none is left.
    """
    texts = {"train": corpus.train, "val": corpus.val}[split]
    sources = tokenizer.encode([src for src, _ in texts])
    targets = tokenizer.encode_targets([tgt for _, tgt in texts])
    pairs = [(src, [model.config.bos_id, *tgt]) for src, tgt in zip(sources, targets, strict=True)]
    most = model.config.max_len
    kept = [pair for pair in pairs if max(map(len, pair)) <= most and tokenizer.knows(pair[0])]
    if not kept:
        raise ValueError(f"no pair of {corpus.name}'s {split} split is left, of {len(pairs)}")
    if len(kept) < len(pairs):
        skipped = f"{len(pairs) - len(kept):,} of {len(pairs):,} pairs of {split} are skipped"
        print(f"warning: {skipped}: unknown, or over {most} tokens", file=sys.stderr)
    return kept


def padded(pairs: Sequence[Pair], model: PublishedTransformer) -> PaddedBatch:
    """Return a group of pairs as a batch."""
    pad_id = model.config.pad_id
    src = pad([src for src, _ in pairs], pad_id)
    return PaddedBatch(src, pad([tgt for _, tgt in pairs], pad_id), pad_id)


def training_groups(
    pairs: Sequence[Pair], training: TrainingConfig, model: PublishedTransformer
) -> Iterator[tuple[PaddedBatch, ...]]:
    """Yield the batches of every step, `accumulate` at a time, for ever, in the seed's order."""

    def stream() -> Iterator[PaddedBatch]:
        for epoch in count():
            generator = torch.Generator().manual_seed(training.seed + epoch)
            order = torch.randperm(len(pairs), generator=generator).tolist()
            groups = batches_by_length([pairs[i] for i in order], training.max_tokens)
            for i in torch.randperm(len(groups), generator=generator).tolist():
                yield padded(groups[i], model)

    return zip(*[stream()] * training.accumulate, strict=False)
