"""What each part of the Transformer is for: English→Italian translators that lack one part.

    python -m benchmarks.ablations

All are trained alike, on the course's corpus, with several seeds; only one thing differs. The
scores are kept in ablations.json, and rows that are there are not trained again. The translator is
half as wide as the course's, so a run takes a minute on one core.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transformer.attention import attention
from transformer.corpora import english_italian
from transformer.data import decode, encode, encode_pairs, pad, train_tokenizer
from transformer.decoder import padding_mask
from transformer.feed_forward import FeedForward
from transformer.files import atomic_write
from transformer.inference import greedy_search
from transformer.metrics import bleu, exact_match
from transformer.model import Config, Transformer
from transformer.multi_head import MultiHeadAttention
from transformer.residual_norm import PostNorm
from transformer.training import Trainer, TrainingConfig, train

OUT = Path(__file__).parent / "ablations.json"
STEPS = 500
SENTENCES = 500
DIGITS = {"loss": 3, "exact": 1, "BLEU": 1}
HEADER = """\
| what is missing | loss | exact | BLEU |
|---|---|---|---|"""


class NoPositions(nn.Module):
    """Positions that add nothing."""

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return x


class Nothing(nn.Module):
    """A sublayer that adds nothing to the residual."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class NoResidual(PostNorm):
    """A sublayer with its norm, but without x."""

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return self.norm(self.dropout(sublayer(x)))


class LeakingTransformer(Transformer):
    """A decoder that sees the future in training: its target mask hides padding only."""

    def target_mask(self, tgt: Tensor) -> Tensor:
        return padding_mask(tgt, self.config.pad_id)


def without_scale(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend without dividing the scores by √d."""
    return attention(q * q.shape[-1] ** 0.5, k, v, mask)


def no_positions(model: Transformer) -> None:
    model.positions = NoPositions()


def no_scale(model: Transformer) -> None:
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.attention_fn = without_scale


def no_residual(model: Transformer) -> None:
    for module in model.modules():
        if isinstance(module, PostNorm):
            module.__class__ = NoResidual


def no_norm(model: Transformer) -> None:
    for module in model.modules():
        if isinstance(module, PostNorm):
            module.norm = nn.Identity()


def no_feed_forward(model: Transformer) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, FeedForward):
                setattr(module, name, Nothing())


def no_warmup(trainer: Trainer) -> None:
    """Leave out the rise only: the rate is the peak at first, and falls as it does after one.

    (With `warmup=1` the rate would also fall from the first step on, and be a tenth as high later.)
    """
    config = trainer.config

    def hold(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if trainer.steps < config.warmup:
            for group in optimizer.param_groups:
                group["lr"] = config.peak_lr

    trainer.optimizer.register_step_pre_hook(hold)


def unchanged(_: Any) -> None:
    pass


@dataclass(frozen=True)
class Variant:
    """A translator in which one thing differs: its sizes, its training, a part or its class."""

    sizes: dict[str, Any] = field(default_factory=dict)
    training: Callable[[Trainer], None] = unchanged
    change: Callable[[Transformer], None] = unchanged
    cls: type[Transformer] = Transformer


VARIANTS = {
    "nothing": Variant(),
    "positions": Variant(change=no_positions),
    "heads: one instead of four": Variant(sizes={"n_heads": 1}),
    "the division by √d": Variant(change=no_scale),
    "the residual": Variant(change=no_residual),
    "the norm": Variant(change=no_norm),
    "warm-up (post-norm)": Variant(training=no_warmup),
    "nothing, in pre-norm": Variant(sizes={"norm": "pre"}),
    "warm-up (pre-norm)": Variant(sizes={"norm": "pre"}, training=no_warmup),
    "the feed-forward network": Variant(change=no_feed_forward),
    "the causal mask": Variant(cls=LeakingTransformer),
}


def measure(name: str, seed: int, steps: int = STEPS) -> dict:
    """Train a variant and return its row: validation loss, exact matches and BLEU."""
    variant = VARIANTS[name]
    corpus = english_italian()
    tokenizer = train_tokenizer(corpus.texts(), 600, corpus.lowercase)
    sizes: dict[str, Any] = dict(d_model=64, d_ff=128, n_layers=2, dropout=0.0) | variant.sizes
    torch.manual_seed(seed)
    model = variant.cls(Config.tiny(tokenizer.get_vocab_size(), **sizes))
    variant.change(model)
    settings: dict[str, Any] = dict(
        steps=steps,
        max_tokens=1024,
        warmup=100,
        peak_lr=5e-3,
        label_smoothing=0.0,
        ema_decay=0.99,
        validate_every=steps,
        seed=seed,
    )
    trainer = Trainer(model, TrainingConfig(**settings))
    variant.training(trainer)
    pairs = encode_pairs(tokenizer, corpus.train)
    try:
        loss = train(trainer, pairs, encode_pairs(tokenizer, corpus.val))[-1]["val_loss"]
    except FloatingPointError:
        return {"missing": name, "seed": seed, "steps": steps, "loss": None, "exact": 0, "BLEU": 0}
    sources, references = zip(*corpus.test[:SENTENCES], strict=True)
    ids = greedy_search(trainer.ema_model, pad(encode(tokenizer, sources)), max_len=32)
    found = decode(tokenizer, ids.tolist())
    return {
        "missing": name,
        "seed": seed,
        "steps": steps,
        "loss": round(loss, 3),
        "exact": round(100 * exact_match(found, references), 1),
        "BLEU": round(bleu(found, references), 1),
    }


def table(rows: list[dict]) -> str:
    """Return the means over the seeds, a line for each variant, and in brackets their range."""
    lines = [HEADER]
    for name in VARIANTS:
        found = [row for row in rows if row["missing"] == name]
        if found:
            cells = [summary([row[key] for row in found], n) for key, n in DIGITS.items()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(values: list[float | None], digits: int) -> str:
    """Return the mean of some values and their range; "diverged" if one is missing."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "diverged"
    mean, low, high = (
        f"{value:.{digits}f}" for value in (statistics.mean(numbers), min(numbers), max(numbers))
    )
    return mean if low == high else f"{mean} ({low} to {high})"


def main() -> None:
    """Train what is missing in ablations.json, and print the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--out", type=Path, default=OUT)
    given = options.parse_args()
    rows = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else []
    for seed in given.seeds:
        for name in VARIANTS:
            if not any((row["missing"], row["seed"]) == (name, seed) for row in rows):
                rows.append(measure(name, seed))
                print(rows[-1], flush=True)
                atomic_write(given.out, f"{json.dumps(rows, indent=1)}\n".encode())
    print(table(rows))


if __name__ == "__main__":
    main()
