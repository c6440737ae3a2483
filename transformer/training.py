# %% [markdown]
r"""
# 11 · Training

**Show the model a sentence and its translation, and let every position guess its next token, all at once.**
"""

# %%
import ast
import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm.auto import tqdm

from transformer.data import Batch, Corpus, Pair, batches_by_length, cache_dir, collate, english_italian, epoch, to_ids
from transformer.fast import chunked_loss, has_fast_bfloat16, speed_up
from transformer.model import Config, Transformer, read_tensors, save_model, write_safely

# %% [markdown]
# ## The definition


# %% tags=["exercise"]
def label_smoothed_loss(
    logits: Float[Tensor, "... v"], labels: Int[Tensor, "..."], pad_id: int, smoothing: float = 0.1
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy, in nats a token, between the logits and smoothed labels.

    The label gets 1 - smoothing, and smoothing is shared by the vocabulary except padding. Places whose label is
    padding count for nothing. Source: Vaswani et al. 2017, section 5.4; Szegedy et al. 2015, section 7.
    """
    real = labels != pad_id
    logits, labels = logits[real].float(), labels[real]
    label = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    average = (logits.sum(-1) - logits[:, pad_id]) / (logits.shape[-1] - 1)
    return (logits.logsumexp(-1) - (1 - smoothing) * label - smoothing * average).mean()


# %% tags=["exercise"]
def learning_rate(step: int, warmup: int, peak: float) -> float:
    """Return the rate of step 1, 2, …: linear up to `peak` at `warmup`, then falling with the inverse square root.

    The paper's own peak is (d_model · warmup) ** -0.5. Source: Vaswani et al. 2017, equation 3.
    """
    return peak * min(step / max(warmup, 1), math.sqrt(max(warmup, 1) / step))


# %%
@dataclass(frozen=True)
class Recipe:
    """How to train. The run ends after `steps` or after `minutes`, whichever comes first."""

    steps: int = 100_000
    minutes: float = math.inf
    max_tokens: int = 4096
    peak_rate: float = 5e-3
    warmup: int = 1000
    smoothing: float = 0.1
    averaging: float = 0.999
    validate_every: int = 500
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self):
        for name in ("steps", "max_tokens", "validate_every", "minutes", "peak_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        for name in ("smoothing", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)!r}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be auto, fp32 or bf16, not {self.precision!r}")
        if self.warmup < 0:
            raise ValueError(f"warmup must be at least 0 steps, not {self.warmup}")


# %%
class Trainer:
    """A model, its optimiser and the running average of its weights, one batch at a time.

    Translation uses `average`: steadier than any single step (the paper averages its last checkpoints, section 6.1).
    """

    def __init__(self, model: Transformer, recipe: Recipe):
        device = next(model.parameters()).device
        self.model, self.recipe, self.steps = speed_up(model) if device.type == "cpu" else model, recipe, 0
        self.half = recipe.precision == "bf16" or (recipe.precision == "auto" and has_fast_bfloat16(device))
        self.optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9, fused=True)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)

    def loss(self, model: nn.Module, batch: Batch, smoothing: float) -> Float[Tensor, ""]:
        """Score every position of the batch in one pass, each given the true tokens before it (teacher forcing)."""
        with torch.autocast(batch.src.device.type, torch.bfloat16, enabled=self.half):
            states = model.states(batch.decoder_input, model.encode(batch.src), batch.src).flatten(0, 1)
            table, bias = model.embedding.weight, model.bias
            return chunked_loss(states, table, bias, batch.labels.flatten(), model.config.pad_id, smoothing)

    def step(self, batch: Batch) -> float:
        """Learn from one batch and return its loss."""
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps, self.recipe.warmup, self.recipe.peak_rate)
        self.optimizer.zero_grad()
        loss = self.loss(self.model.train(), batch, self.recipe.smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of step {self.steps} is {value}, on a batch of {len(batch.src)} pairs")
        loss.backward()
        self.optimizer.step()
        keep = min(self.recipe.averaging, self.steps / (self.steps + 10))
        for mean, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(new.detach(), 1 - keep)
        return value

    @torch.no_grad()
    def validate(self, batches: Sequence[Batch]) -> float:
        """Return the loss of the averaged model in nats a token, smoothed as in training but without dropout."""
        model, total, tokens = self.average, 0.0, 0
        for batch in batches:
            n = int((batch.labels != model.config.pad_id).sum())
            total, tokens = total + n * self.loss(model, batch, self.recipe.smoothing).item(), tokens + n
        return total / tokens


# %% [markdown]
# ## Checkpoints


# %%
@dataclass
class Progress:
    """How far a run has come: which batch of which epoch is next, seconds of training, and the learning curve."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)


# %%
def save_checkpoint(trainer: Trainer, progress: Progress, folder: str | Path) -> Path:
    """Write all that training needs to go on as if it had never stopped; the last two checkpoints are kept."""
    tensors = {f"model.{name}": tensor for name, tensor in trainer.model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in trainer.average.state_dict().items()}
    for i, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": tensor for name, tensor in state.items()}
    tensors |= {f"random.{name}": tensor for name, tensor in random_states().items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"config": asdict(trainer.model.config), "steps": trainer.steps, "progress": asdict(progress)}
    path = Path(folder) / f"checkpoint-{trainer.steps:08d}.safetensors"
    write_safely(path, save(tensors, {"about": json.dumps(about)}))
    for old in checkpoints(folder)[:-2]:
        old.unlink()
    return path


# %%
def checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    return sorted(Path(folder).glob("checkpoint-*.safetensors"))


# %%
def random_states() -> dict[str, Tensor]:
    """Return the state of every random number generator that dropout draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda{i}": state for i, state in enumerate(cuda)}}


# %%
def load_checkpoint(trainer: Trainer, path: str | Path) -> Progress:
    """Put the trainer back to where `path` was written and return the progress; ValueError when it does not fit."""
    tensors, about = read_tensors(path), read_about(path)
    if about["config"] != asdict(trainer.model.config):
        raise ValueError(f"{path} belongs to another config: {about['config']}, wanted {asdict(trainer.model.config)}")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}, "random": {}}
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    trainer.model.load_state_dict(parts["model"])
    trainer.average.load_state_dict(parts["average"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        i, key = name.split(".")
        state.setdefault(int(i), {})[key] = tensor
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict() | {"state": state})
    torch.set_rng_state(parts["random"].pop("cpu"))
    for name, tensor in parts["random"].items():
        torch.cuda.set_rng_state(tensor, int(name.removeprefix("cuda")))
    trainer.steps = about["steps"]
    return Progress(**about["progress"])


# %%
def read_about(path: str | Path) -> dict:
    """Return what a checkpoint says of itself: config, steps and progress."""
    with safe_open(str(path), framework="pt") as file:
        try:
            about = json.loads((file.metadata() or {})["about"])
            return {name: about[name] for name in ("config", "steps", "progress")}
        except (KeyError, TypeError, json.JSONDecodeError):
            raise ValueError(f"{path} is not a training checkpoint") from None


# %% [markdown]
# ## The loop


# %%
def endless(pairs: Sequence[Pair], recipe: Recipe, progress: Progress) -> Iterator[Batch]:
    """Yield batches epoch after epoch, from where `progress` stands, and keep it up to date."""
    while True:
        for batch in epoch(pairs, recipe.max_tokens, recipe.seed + progress.epoch, skip=progress.batch):
            progress.batch += 1
            yield batch
        progress.epoch, progress.batch = progress.epoch + 1, 0


# %%
def train(
    trainer: Trainer,
    pairs: Sequence[Pair],
    val_pairs: Sequence[Pair],
    folder: str | Path,
    resume: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict]:
    """Train until the recipe ends and return the learning curve, one row for each validation.

    `folder` gets the averaged model with the lowest validation loss, the curve (history.json) and the last two
    checkpoints, one of which `resume` may name. When `should_stop` says so, a checkpoint is written and
    KeyboardInterrupt raised. The caller's random numbers are left as they were.
    """
    recipe, device = trainer.recipe, next(trainer.model.parameters()).device
    val = [collate(group).to(device) for group in batches_by_length(val_pairs, recipe.max_tokens)]
    with torch.random.fork_rng(), progress_bar(recipe) as bar:
        torch.manual_seed(recipe.seed)
        progress, losses = load_checkpoint(trainer, resume) if resume else Progress(), []
        clock = time.perf_counter() - progress.seconds
        for batch in endless(pairs, recipe, progress):
            losses.append(trainer.step(batch.to(device)))
            progress.seconds = time.perf_counter() - clock
            done = trainer.steps >= recipe.steps or progress.seconds >= 60 * recipe.minutes
            stopped = should_stop()
            if done or stopped or trainer.steps % recipe.validate_every == 0:
                record(trainer, val, losses, progress, folder)
                losses = []
            show(bar, trainer, progress)
            if stopped:
                raise KeyboardInterrupt
            if done:
                return progress.history


# %%
def record(trainer: Trainer, val: Sequence[Batch], losses: list[float], progress: Progress, folder: str | Path) -> None:
    """Add a row to the learning curve and write curve, checkpoint and, when it is the best so far, the model."""
    row = {
        "step": trainer.steps,
        "epoch": progress.epoch,
        "seconds": round(progress.seconds, 1),
        "learning_rate": learning_rate(trainer.steps, trainer.recipe.warmup, trainer.recipe.peak_rate),
        "train_loss": sum(losses) / len(losses),
        "val_loss": trainer.validate(val),
    }
    if row["val_loss"] < min((old["val_loss"] for old in progress.history), default=math.inf):
        save_model(trainer.average, folder)
    progress.history.append(row)
    save_checkpoint(trainer, progress, folder)
    write_safely(Path(folder) / "history.json", json.dumps(progress.history, indent=1).encode())


# %%
def progress_bar(recipe: Recipe) -> tqdm:
    """Return a bar that fills with steps, or with seconds when the recipe gives minutes."""
    if math.isfinite(recipe.minutes):
        return tqdm(total=round(60 * recipe.minutes), unit="s", desc="training", bar_format=BAR)
    return tqdm(total=recipe.steps, unit="step", desc="training", bar_format=BAR)


BAR = "{desc} {percentage:3.0f}% {bar:20} {elapsed}<{remaining} {postfix}"


# %%
def show(bar: tqdm, trainer: Trainer, progress: Progress) -> None:
    """Move the bar, and say the last validation loss."""
    done = progress.seconds if math.isfinite(trainer.recipe.minutes) else trainer.steps
    bar.update(min(round(done), bar.total) - bar.n)
    if progress.history:
        bar.set_postfix_str(
            f"step {trainer.steps}, validation loss {progress.history[-1]['val_loss']:.3f}", refresh=False
        )


# %% [markdown]
# ## A translator to keep


# %%
def fit(
    corpus: Corpus,
    folder: str | Path,
    vocab_size: int,
    sizes: Callable[..., Config] = Config.tiny,
    recipe: Recipe | None = None,
    device: str = "cpu",
    **options,
) -> list[dict]:
    """Learn vocabulary and model from a corpus, leave a translator in `folder`, and return the learning curve.

    `sizes` makes the Config from a vocabulary size; `options` are those of `train`.
    """
    recipe = recipe or Recipe()
    tokenizer = corpus.tokenizer(vocab_size)
    write_safely(Path(folder) / "tokenizer.json", tokenizer.to_str().encode())
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = Transformer(sizes(tokenizer.get_vocab_size())).to(device)
    pairs = [to_ids(tokenizer, split) for split in (corpus.train, corpus.val)]
    longest = max(len(row) for split in pairs for pair in split for row in pair)
    if longest > model.config.max_len:
        raise ValueError(
            f"the longest sentence of {corpus.name} has {longest} tokens, max_len is {model.config.max_len}"
        )
    return train(Trainer(model, recipe), *pairs, folder, **options)


# %%
def fingerprint() -> str:
    """Return a short hash of the code that a trained model depends on; comments don't count."""
    code = [
        ast.unparse(ast.parse(path.read_text("utf-8")))
        for path in sorted(Path(__file__).parent.glob("*.py"))
        if path.stem not in ("__init__", "__main__", "checks", "plotting", "inference")
    ]
    return hashlib.sha256("".join(code).encode()).hexdigest()[:16]


# %%
ENGLISH_ITALIAN_SIZES = {"n_layers": 2, "dropout": 0.1}
ENGLISH_ITALIAN = Recipe(steps=1000, warmup=300, peak_rate=3e-3, smoothing=0.0, averaging=0.99, validate_every=250)


# %%
def trained_translator(name: str = "en-it") -> Path:
    """Return the folder of the English→Italian translator; train it first, once, if this code has not done so yet."""
    folder = cache_dir() / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        stamp = folder / "fingerprint"
        if not stamp.is_file() or stamp.read_text() != fingerprint():
            sizes = partial(Config.tiny, **ENGLISH_ITALIAN_SIZES)
            fit(english_italian(), folder, 600, sizes, ENGLISH_ITALIAN)
            write_safely(stamp, fingerprint().encode())
    return folder
