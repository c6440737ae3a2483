"""What a run tells while it trains: lines of metrics, sample translations, TensorBoard."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tqdm import tqdm

from transformer.data import Pair, decode, pad
from transformer.files import atomic_write
from transformer.inference import greedy_search
from transformer.model import Transformer

METRICS = "metrics.jsonl"
"""The file of all lines, in the folder of the run."""
LOG_EVERY = 50
"""Steps between two lines that say how training is going."""
LONGEST_SAMPLE = 64

Line = dict[str, Any]
Callback = Callable[[Line], None]
"""A function that is called with each line of the metrics: `print_samples`, say."""


class MetricsLog:
    """The lines of metrics that a run writes, one every `LOG_EVERY` steps and one a validation.

    The first kind has step, seconds, tokens_per_s and train_loss; the second has what the learning
    curve has, and sample translations.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()):
        self.callbacks = callbacks
        self.lines: list[Line] = []
        self.meter = Meter()

    def resume(self, folder: Path, step: int) -> None:
        """Go on after the lines that a run has written up to a step."""
        path = folder / METRICS
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        self.lines = [line for line in lines if line["step"] <= step]

    def step(self, step: int, seconds: float, n_tokens: int, loss: float) -> bool:
        """Count a step; return whether a line was added."""
        self.meter.add(n_tokens, loss)
        if step % LOG_EVERY:
            return False
        self.add({"step": step, "seconds": round(seconds, 1)} | self.meter.read())
        return True

    def add(self, line: Line) -> None:
        """Add a line and give it to the callbacks."""
        self.lines.append(line)
        for callback in self.callbacks:
            callback(line)

    def write(self, folder: Path) -> None:
        """Write all lines."""
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in self.lines)
        atomic_write(folder / METRICS, text.encode())


class Meter:
    """Measure target tokens a second, padding not counted, and the mean loss of a token."""

    def __init__(self) -> None:
        self.speed = 0.0
        self.clear()

    def clear(self) -> None:
        """Begin to measure anew."""
        self.began = time.perf_counter()
        self.tokens = 0
        self.loss = 0.0

    def add(self, n_tokens: int, loss: float) -> None:
        """Count a step."""
        self.tokens += n_tokens
        self.loss += n_tokens * loss
        self.speed = self.tokens / max(time.perf_counter() - self.began, 1e-9)

    def read(self) -> Line:
        """Return the speed and the loss since the last reading, as entries of a line."""
        found = {"tokens_per_s": round(self.speed), "train_loss": self.loss / self.tokens}
        self.clear()
        return found


# --- the learning curve in words ------------------------------------------------------------------


def has_stalled(history: Sequence[dict], patience: int) -> bool:
    """Return whether as many validations as the patience, the last ones, brought nothing better."""
    losses = [row["val_loss"] for row in history]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


def in_words(step: int, speed: float, history: Sequence[dict]) -> str:
    """Return what the progress bar says: step, tokens a second, the last validation loss."""
    words = [f"step {step}"]
    if speed:
        words.append(f"{speed:,.0f} tokens/s")
    if history:
        words.append(f"validation loss {history[-1]['val_loss']:.3f}")
    return ", ".join(words)


# --- sample translations --------------------------------------------------------------------------


class Samples:
    """A few sentences of the validation split, which a run translates at each validation."""

    def __init__(self, val_pairs: Sequence[Pair], tokenizer: Tokenizer, count: int):
        stride = max(1, len(val_pairs) // max(count, 1))
        self.pairs = val_pairs[::stride][:count]
        self.tokenizer = tokenizer

    def translate(self, model: Transformer) -> list[dict[str, str]]:
        """Return source, reference and the model's greedy translation of each."""
        if not self.pairs:
            return []
        sources = [src for src, _ in self.pairs]
        rows = greedy_search(model, pad(sources).to(model.bias.device), LONGEST_SAMPLE).tolist()
        columns = {
            "source": decode(self.tokenizer, sources),
            "reference": decode(self.tokenizer, [tgt[1:] for _, tgt in self.pairs]),
            "translation": decode(self.tokenizer, rows),
        }
        return [dict(zip(columns, texts)) for texts in zip(*columns.values(), strict=True)]


def print_samples(line: Line) -> None:
    """Print the sample translations of a line, if it has some, above the progress bar."""
    for sample in line.get("samples", ()):
        words = f"  {sample['source']} → {sample['translation']}"
        tqdm.write(words, file=sys.stderr)


# --- TensorBoard ----------------------------------------------------------------------------------


class TensorBoard:
    """Write each line into a folder that TensorBoard reads; ValueError if it is not installed."""

    def __init__(self, folder: str | Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            missing = "--tensorboard needs the package tensorboard: pip install tensorboard"
            raise ValueError(missing) from None
        self.writer = SummaryWriter(str(folder))

    def __call__(self, line: Line) -> None:
        """Write the numbers of a line by step, and its samples as text."""
        for name, value in line.items():
            if isinstance(value, int | float) and name != "step":
                self.writer.add_scalar(name, value, line["step"])
        texts = [f"{s['source']} → {s['translation']}" for s in line.get("samples", ())]
        if texts:
            self.writer.add_text("samples", "\n\n".join(texts), line["step"])
        self.writer.flush()
