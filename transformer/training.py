# %% [markdown]
r"""
# 11 · Training

**Show the model a sentence and its translation, and let every position guess its next token, all at once.**

![The architecture; the target that is read and the target that is wanted are lit](../figures/architecture_11.svg)
"""

# %%
import ast
import copy
import hashlib
import inspect
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
from tqdm import tqdm

from transformer.data import Batch, Corpus, Pair, batches_by_length, cache_dir, collate, english_italian, epoch, to_ids
from transformer.fast import chunked_loss, has_fast_bfloat16, speed_up
from transformer.model import Config, Transformer, read_tensors, save_model, write_safely

# %% [markdown]
# ## The question
#
# The model of chapter 9 turns a source and the beginning of a target into a guess at the next token. Its numbers are drawn
# at random, so its guesses are noise. Here is a sentence of 7 tokens, and the translation that it ought to give, as ids:

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
#
# model = Transformer(Config.tiny(600, n_layers=1)).eval()
# src = torch.tensor([[31, 32, 33, 34, 35, 36, 37]])  # there is a cat on the mat
# tgt = torch.tensor([[1, 41, 42, 43, 44, 45, 2]])  # <s> c'è un gatto sul tappeto </s>
# decoder_input, labels = tgt[:, :-1], tgt[:, 1:]
#
# guesses = model(src, decoder_input).argmax(-1)
# print("right:", int((guesses == labels).sum()), "of", labels.numel())

# %% [markdown]
# It has to learn from such pairs. But how? Suppose it writes the translation itself, token by token. Its first token is
# wrong, and from there on it continues a sentence that nobody wanted: what should the second token be, after a wrong first
# one? And six tokens take six passes, one after the other.
#
# **Teacher forcing** answers both. Whatever the model would have said, it is given the right words so far, and is asked for
# the next one only.

# %% [markdown]
# ![Training predicts every position in one pass; inference feeds each token back, a pass a token](../figures/11_teacher_forcing.svg)
#
# Decoder input and labels are the same sentence, one step apart (chapter 10). The causal mask (chapter 8) keeps position $i$
# from seeing what comes after it, its own label first of all. So all positions can be asked at once.

# %% [markdown]
# ## By hand
#
# Is one pass really the same as a pass for each beginning? Ask both ways:

# %% tags=["active-ipynb"]
# at_once = model(src, decoder_input)
# one_by_one = [model(src, decoder_input[:, :t])[:, -1] for t in range(1, 7)]
#
# torch.testing.assert_close(at_once, torch.stack(one_by_one, dim=1))
# print("one pass:", *at_once.shape, "· six passes:", len(one_by_one), "×", *one_by_one[0].shape)

# %% [markdown]
# Equal. A sentence of $t$ tokens is $t$ lessons for the price of one pass; an RNN would have walked through it step by step.
# Without the mask the same line of code would show each position its label. The loss would fall beautifully, and the model
# would have learned to copy.

# %% [markdown]
# ### How wrong is a guess?
#
# Take a vocabulary of 5. After *c'è un* the model gives these probabilities, and the right word is *gatto*. **Cross-entropy**
# is $-\log$ of the probability that the right word got: $\log 2$, one bit, or 0.69 *nats* in natural logarithms.

# %% tags=["active-ipynb"]
# vocabulary = ["<pad>", "il", "un", "gatto", "tappeto"]
# p = torch.tensor([1 / 16, 1 / 16, 1 / 8, 1 / 2, 1 / 4])
# gatto = torch.tensor(3)
#
# bits = -p.log2()
# print("bits for each word:", bits.int().tolist())
# print("cross-entropy:", int(bits[gatto]), f"bit = {-p[gatto].log():.3f} nats")

# %% [markdown]
# Only a probability of 1 has loss 0. So the model is pushed to be certain, ever more, even where two words would both do. **Label
# smoothing** asks for less: the label gets $1 - \varepsilon$, and $\varepsilon$ is shared by all words, except padding, which is
# no word. With $\varepsilon = 0.2$ each of the 4 real words gets 0.05, and *gatto* 0.8 on top:

# %% tags=["active-ipynb"]
# smoothed = torch.tensor([0.0, 0.05, 0.05, 0.85, 0.05])
#
# print(f"{(smoothed * bits).sum():.2f} bits = {-(smoothed * p.log()).sum():.3f} nats")

# %% [markdown]
# On paper: $0.85 \cdot 1 + 0.05 \cdot (4 + 3 + 2) = 1.30$ bits, times $\log 2 = 0.693$ is $0.901$ nats.
#
# The best that a model can do now is to say exactly the smoothed distribution. Even then the loss is not 0, but its entropy.
# Remember that when you read a curve: with smoothing, the floor is not at zero.

# %% tags=["active-ipynb"]
# words = smoothed[1:]
# print(f"the lowest loss: {-(words * words.log()).sum():.3f} nats")

# %% [markdown]
# ## The definition
#
# ### The loss
#
# With logits $z$, label $y$ and $v$ words, padding among them, the distribution need not be built. The logarithm of a
# probability is $z_w - \log\sum_u e^{z_u}$, and all shares add up to 1, so
#
# $$\ell = \log\sum_u e^{z_u} \;-\; (1-\varepsilon)\,z_y \;-\; \frac{\varepsilon}{v-1} \sum_{w \ne \text{pad}} z_w$$


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


# %% [markdown]
# The five words again, now as logits; the logarithm of a probability is one. The second place is padding and has a wild
# opinion, which nobody counts:

# %% tags=["active-ipynb"]
# logits = torch.stack([p.log(), 9 * torch.arange(5.0)])
# label_ids = torch.tensor([3, 0])
#
# print(f"{label_smoothed_loss(logits, label_ids, pad_id=0, smoothing=0.2):.3f} nats")

# %% [markdown]
# ### The rate
#
# How large a step may the optimiser take? Small at first, while Adam has seen too few gradients to know their size, and a
# post-norm stack hands large ones to its last layers (Xiong et al. 2020). Then large, then ever smaller:
#
# $$r(s) = r_\text{peak} \cdot \min\!\left(\frac{s}{w},\; \sqrt{\frac{w}{s}}\right)$$
#
# for step $s = 1, 2, \dots$ and $w$ steps of **warm-up**. Both branches meet at $s = w$.


# %% tags=["exercise"]
def learning_rate(step: int, warmup: int, peak: float) -> float:
    """Return the rate of step 1, 2, …: linear up to `peak` at `warmup`, then falling with the inverse square root.

    The paper's own peak is (d_model · warmup) ** -0.5. Source: Vaswani et al. 2017, equation 3.
    """
    return peak * min(step / max(warmup, 1), math.sqrt(max(warmup, 1) / step))


# %% [markdown]
# The paper writes $d_\text{model}^{-0.5} \cdot \min(s^{-0.5},\, s \cdot w^{-1.5})$. That is the same curve, with the peak
# $(d_\text{model} \cdot w)^{-0.5}$ built in:

# %% tags=["active-ipynb"]
# def paper_rate(step, warmup=4000, d_model=512):
#     return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
#
#
# peak = (512 * 4000) ** -0.5
# assert all(math.isclose(learning_rate(s, 4000, peak), paper_rate(s)) for s in range(1, 100_001))
# print(f"the paper's peak: {peak:.1e}")

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# steps = range(10, 40_000, 10)
# plot_lines(
#     {f"warm-up {w}": [paper_rate(s, w) for s in steps] for w in (4000, 8000, 16_000)},
#     x=steps,
#     xlabel="step",
#     ylabel="learning rate",
#     title="The paper's schedule at width 512",
# )

# %% [markdown]
# A longer warm-up means a lower peak, and afterwards the same curve. The fall is called *exponential decay* in many places. It is an
# **inverse square root**: each halving takes four times as many steps. An exponential would halve after the same number
# of steps every time, and be at nothing long before the end.

# %% tags=["active-ipynb"]
# [learning_rate(s, 4000, peak=1.0) for s in (4000, 16_000, 64_000, 256_000)]

# %% [markdown]
# ### One step
#
# All that one can choose about a run stands in one place, and what can't be is refused at the door.


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


# %% [markdown]
# The trainer holds a model, Adam, and a third thing: a running **average** of the weights. A single step is pulled about by
# its batch; the average stands in the middle of where the last steps went, and translates better. The paper averages
# its last checkpoints instead.


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
# `chunked_loss` and `speed_up` come from a later chapter, [Making it fast](../transformer/fast.py). The first is the loss above
# without ever holding the logits of a whole batch: 4,096 places × 10,000 words are 160 megabytes. The second makes dropout
# cheaper. Neither changes what is computed, as the next section shows for the loss.

# %% [markdown]
# ## The proof
#
# PyTorch's cross-entropy takes distributions as targets. Write the smoothed one out, leave padding out, and both agree, on
# random logits for a batch of 2 × 6 places and 9 words:

# %% tags=["active-ipynb"]
# import torch.nn.functional as F
#
# torch.manual_seed(0)
# logits = torch.randn(2, 6, 9)
# labels = torch.tensor([[5, 3, 8, 2, 0, 0], [4, 4, 7, 6, 3, 2]])
# real = labels != 0
#
# target = torch.full((9,), 0.1 / 8).index_fill(0, torch.tensor(0), 0.0) + 0.9 * F.one_hot(labels, 9)
# print("each row sums to 1:", bool(torch.allclose(target.sum(-1), torch.ones(2, 6))))
# torch.testing.assert_close(label_smoothed_loss(logits, labels, pad_id=0), F.cross_entropy(logits[real], target[real]))

# %% [markdown]
# PyTorch's own `label_smoothing=0.1` gives another number: it knows no padding, and gives the padding *word* its share. A
# model trained so learns to say padding now and then.

# %% tags=["active-ipynb"]
# torch_smoothing = F.cross_entropy(logits[real], labels[real], label_smoothing=0.1)
# print(f"ours {label_smoothed_loss(logits, labels, pad_id=0):.2f} · with a share for padding {torch_smoothing:.2f}")

# %% [markdown]
# **Padding counts for nothing**: no gradient comes from its places, and the mean is over tokens, not over places or rows. A
# model that gives 4 words a quarter each has a loss of $\log 4 = 1.39$. Divide by the padded places as well, and the same
# model seems to have 0.92:

# %% tags=["active-ipynb"]
# logits.requires_grad_()
# label_smoothed_loss(logits, labels, pad_id=0).backward()
# assert logits.grad[~real].eq(0).all() and logits.grad[real].ne(0).any(-1).all()
#
# even = torch.tensor([-torch.inf, 0.0, 0.0, 0.0, 0.0]).expand(3, 5)
# each = F.cross_entropy(even, torch.tensor([3, 2, 0]), ignore_index=0, reduction="none")
# print(f"over 2 tokens {each.sum() / 2:.2f} · over 3 places {each.sum() / 3:.2f}")

# %% [markdown]
# **In chunks it is the same loss with the same gradients.** Twelve states of 16 features, read by a table of 9 words, four at
# a time:

# %% tags=["active-ipynb"]
# x, table, bias = (torch.randn(*size).requires_grad_() for size in ((12, 16), (9, 16), (9,)))
#
# whole = label_smoothed_loss(F.linear(x, table, bias), labels.flatten(), pad_id=0)
# parts = chunked_loss(x, table, bias, labels.flatten(), pad_id=0, chunk=4)
# torch.testing.assert_close(parts, whole)
# for a, b in zip(torch.autograd.grad(parts, (x, table, bias)), torch.autograd.grad(whole, (x, table, bias))):
#     torch.testing.assert_close(a, b)

# %% [markdown]
# ### The check
#
# The checks try what goes wrong in practice: smoothing that feeds the padding word, a mean over padded places, a schedule that
# starts at step 0 or fails without warm-up, gradients carried over from the last step, validation with dropout.

# %% tags=["active-ipynb"]
# from transformer.checks import check_loss, check_schedule, check_trainer
#
# check_loss(label_smoothed_loss)
# check_schedule(learning_rate)
# check_trainer(Trainer)

# %% [markdown]
# ## The look
#
# Before real sentences, a task that needs nothing but attention: **write eight digits backwards**. One layer, one head,
# 300 steps, a few seconds. Digits are drawn anew for every batch, so there is nothing to memorise.

# %% tags=["active-ipynb"]
# def backwards(n, generator):
#     digits = torch.randint(3, 13, (n, 8), generator=generator)
#     start, end = torch.full((n, 1), 1), torch.full((n, 1), 2)
#     return Batch(digits, torch.cat([start, digits.flip(1), end], dim=1))
#
#
# torch.manual_seed(0)
# generator = torch.Generator().manual_seed(0)
# toy = Transformer(Config.tiny(13, d_model=64, n_heads=1, n_layers=1, d_ff=128, dropout=0.0))
# trainer = Trainer(toy, Recipe(warmup=60, peak_rate=3e-3, smoothing=0.0, precision="fp32"))
# losses = [trainer.step(backwards(64, generator)) for _ in range(300)]
#
# print("loss above log 10 at first:", losses[0] > math.log(10), "· below 0.1 at the end:", losses[-1] < 0.1)

# %% [markdown]
# A guess among ten digits has a loss of $\log 10 = 2.3$. New digits, which it has never seen:

# %% tags=["active-ipynb"]
# toy = trainer.average
# new = backwards(200, generator)
#
# with torch.no_grad():
#     guesses = toy(new.src, new.decoder_input).argmax(-1)
# share = (guesses == new.labels).float().mean().item()
# assert trainer.validate([new]) < 0.1 and share > 0.99
# print("digits  ", *(new.src[0] - 3).tolist(), "\nbackward", *(guesses[0, :8] - 3).tolist())

# %% [markdown]
# How does it do that? There is only one place where the digits can come in: cross-attention. `head_weights` (chapter 4) gives
# its mixing formula, for the states that reach it in this very pass:

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
# from transformer.plotting import plot_attention
#
# cross, seen = toy.decoder.layers[0].cross_attention, []
# watch = cross.register_forward_pre_hook(lambda module, args: seen.append(args))
# toy(new.src, new.decoder_input)
# watch.remove()
#
# weights = head_weights(cross, *seen[0]).detach().mean(0)[0]
# assert weights[:8].argmax(-1).tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
# plot_attention(
#     weights,
#     queries=[f"writes {n}" for n in "12345678"] + ["</s>"],
#     keys=[f"digit {n}" for n in "12345678"],
#     title="Writing backwards: the mean of 200 sequences",
# )

# %% [markdown]
# The diagonal runs the other way: to write its first digit the decoder looks at the last, and so on to the first. Nobody told it. Had the
# task been to copy, the diagonal would run from the upper left. The last row ends the sequence; it needs no digit, and
# looks wherever it likes.

# %% [markdown]
# ## The loop
#
# A real run is the same step over and over, with three things around it. It shuffles the pairs anew in every **epoch**, that is, each time it has
# seen them all. Now and then it **validates**: it measures the loss on sentences that it never trains on. And it leaves **checkpoints**.


# %%
@dataclass
class Progress:
    """How far a run has come: which batch of which epoch is next, seconds of training, and the learning curve."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)


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
            stopped, done = should_stop(), trainer.steps >= recipe.steps or progress.seconds >= 60 * recipe.minutes
            if done or stopped or trainer.steps % recipe.validate_every == 0:
                record(trainer, val, losses, progress, folder)
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
    losses.clear()
    progress.history.append(row)
    save_checkpoint(trainer, progress, folder)
    write_safely(Path(folder) / "history.json", json.dumps(progress.history, indent=1).encode())


# %%
def progress_bar(recipe: Recipe) -> tqdm:
    """Return a bar that fills with steps, or with seconds when the recipe gives minutes."""
    if math.isfinite(recipe.minutes):
        return tqdm(total=round(60 * recipe.minutes), unit="s", desc="training", bar_format=BAR, mininterval=0.5)
    return tqdm(total=recipe.steps, unit="step", desc="training", bar_format=BAR, mininterval=0.5)


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
# ### Checkpoints
#
# A run that is stopped should go on as if nothing had happened. So a checkpoint holds more than weights: the averages that Adam keeps
# of every gradient, the running average, which batch comes next, and the state of the random numbers that dropout draws. The
# format is safetensors, which cannot run code when it is read.


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
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    try:
        trainer.model.load_state_dict(parts["model"])
        trainer.average.load_state_dict(parts["average"])
        trainer.optimizer.load_state_dict(optimizer_state(trainer, parts["optimizer"]))
        torch.set_rng_state(parts["random"].pop("cpu"))
        for name, tensor in parts["random"].items():
            torch.cuda.set_rng_state(tensor, int(name.removeprefix("cuda")))
        trainer.steps = int(about["steps"])
        return Progress(**about["progress"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[-1].strip()}") from None


# %%
def optimizer_state(trainer: Trainer, tensors: dict[str, Tensor]) -> dict:
    """Return Adam's state from a checkpoint's tensors; KeyError or RuntimeError when one is missing or misshapen."""
    state = trainer.optimizer.state_dict()
    for i, parameter in enumerate(trainer.model.parameters()):
        moments = {name: tensors[f"{i}.{name}"].expand_as(parameter) for name in ("exp_avg", "exp_avg_sq")}
        state["state"][i] = moments | {"step": tensors[f"{i}.step"]}
    return state


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
# Does it work? Train 20 steps in one go. Then train 20 steps, stop after 8, throw the trainer away, and let a new one go on from the
# checkpoint. Are the weights the same, **bit for bit**?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from contextlib import suppress
# from tempfile import mkdtemp
#
# corpus = english_italian()
# tokenizer = corpus.tokenizer(600)
# pairs, val_pairs = to_ids(tokenizer, corpus.train[:20_000]), to_ids(tokenizer, corpus.val[:200])
#
#
# def fresh(recipe):
#     torch.manual_seed(0)
#     return Trainer(Transformer(Config.tiny(600, n_layers=1, d_model=64)), recipe)
#
#
# recipe = Recipe(steps=20, max_tokens=512, warmup=5, precision="fp32")
# straight, stopped, resumed = fresh(recipe), fresh(recipe), fresh(recipe)
# train(straight, pairs, val_pairs, mkdtemp())
#
# folder = mkdtemp()
# with suppress(KeyboardInterrupt):
#     train(stopped, pairs, val_pairs, folder, should_stop=lambda: stopped.steps == 8)
# train(resumed, pairs, val_pairs, folder, resume=checkpoints(folder)[-1]);

# %% tags=["active-ipynb"]
# print("stopped at", stopped.steps, "· straight", straight.steps, "· resumed", resumed.steps)
# for model in ("model", "average"):
#     one, two = getattr(straight, model).state_dict(), getattr(resumed, model).state_dict()
#     print(f"{model:8} the same bits:", all(one[name].equal(two[name]) for name in one))

# %% [markdown]
# ## English → Italian
#
# The pieces in a row: vocabulary from the training split, ids, a model, a run.


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


# %% [markdown]
# The translator of this course has two layers on each side, and sees 100,000 pairs a few times. Its recipe smooths nothing: the
# grammar has exactly one translation for every sentence, so there is nothing to hedge against.

# %%
ENGLISH_ITALIAN_SIZES = {"n_layers": 2, "dropout": 0.1}
ENGLISH_ITALIAN = Recipe(steps=700, warmup=200, peak_rate=3e-3, smoothing=0.0, averaging=0.99, validate_every=100)

# %% [markdown]
# Training takes two minutes on two cores, so it is done once. The result stays in a folder with a **fingerprint** of the
# code that made it. Change that code, and the next call trains again: the translator is always the one that these chapters
# describe.


# %%
def fingerprint() -> str:
    """Return a short hash of the code that a trained model depends on; comments and docstrings don't count."""
    code = [
        ast.unparse(without_docstrings(ast.parse(path.read_text("utf-8"))))
        for path in sorted(Path(inspect.getfile(Transformer)).parent.glob("*.py"))
        if path.stem not in ("__init__", "__main__", "checks", "plotting", "inference", "export")
    ]
    return hashlib.sha256("".join(code).encode()).hexdigest()[:16]


def without_docstrings(tree: ast.AST) -> ast.AST:
    """Return the tree without strings that stand alone."""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [line for line in body if not is_text(line)] or [ast.Pass()]
    return tree


def is_text(line: ast.AST) -> bool:
    """Return whether a statement is nothing but a string."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


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


# %% tags=["active-ipynb", "nbval-ignore-output"]
# folder = trained_translator()
# sorted(path.name for path in folder.iterdir() if not path.name.startswith("checkpoint"))

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_curves
#
# history = json.loads((folder / "history.json").read_text())
# assert history[-1]["val_loss"] < history[0]["val_loss"] < history[0]["train_loss"]
# plot_curves(history)

# %% [markdown]
# ### How to read a curve
#
# - **Training above validation** looks odd and is right: training runs with dropout, and each of its points is a mean over
#   steps when the model was still worse. Validation is without dropout, with the averaged weights.
# - **Both fall**: it learns. Both lie flat: the rate is too low, or it is done.
# - **Training falls, validation rises**: it learns the training sentences by heart. `train` keeps the model with the lowest
#   validation loss.
# - **A jump, or `nan`**: the rate is too high, or the warm-up too short.
# - **Compare like with like**: with smoothing the floor lies higher, and another vocabulary is another scale.

# %% [markdown]
# ### Why a low loss is not yet good output
#
# Stop a run early, after 150 steps. In every place the model is given the right words before it, and in most places it
# then says the right next one:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# torch.manual_seed(0)
# recipe = Recipe(steps=150, max_tokens=1024, warmup=50, averaging=0.9, validate_every=50, precision="fp32")
# early = Trainer(Transformer(Config.tiny(600, n_layers=1, dropout=0.0)), recipe)
# train(early, pairs, val_pairs, mkdtemp());

# %% tags=["active-ipynb"]
# early, batch = early.average, collate(val_pairs)
# real = batch.labels != 0
#
# with torch.no_grad():
#     guesses = early(batch.src, batch.decoder_input).argmax(-1)
# accuracy = (guesses == batch.labels)[real].float().mean().item()
# assert accuracy > 0.7
# print("more than 7 tokens in 10 are right:", accuracy > 0.7)

# %% [markdown]
# Now take the right words away. Let it read its own, which is what translation means, and count the sentences that come out
# as they should, from the first token to `</s>`:

# %% tags=["active-ipynb"]
# written = batch.tgt[:, :1]
# with torch.no_grad():
#     memory = early.encode(batch.src)
#     for _ in range(batch.labels.shape[1]):
#         next_ids = early.decode(written, memory, batch.src)[:, -1].argmax(-1)
#         written = torch.cat([written, next_ids.unsqueeze(-1)], dim=1)
#
# exact = ((written[:, 1:] == batch.labels) | ~real).all(-1).float().mean().item()
# assert exact < 0.5
# print("fewer than 5 sentences in 10 are right:", exact < 0.5)

# %% [markdown]
# A sentence is right only if *all* its tokens are. With 8 tokens in 10 right, a sentence of eight tokens has $0.8^8 = 17\,\%$. And the loss
# cannot see what happens after a mistake: the model reads its own wrong word, is in a place where training never took it,
# and stumbles again. So judge a translator by what it writes. A BLEU computed on teacher-forced output is not a BLEU.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.data import decode
#
# for (english, italian), ours in list(zip(corpus.val, decode(tokenizer, written[:, 1:].tolist())))[:5]:
#     print(f"{english}\n  wanted {italian}\n  wrote  {ours}")

# %% [markdown]
# ### Real captions after that
#
# The same code learns from photographs' captions: Multi30k, 29,000 sentences in English, German, French and Czech (Elliott et
# al. 2016). It is downloaded on first use. Half an hour on two cores is enough:
#
# ```
# python -m transformer train --corpus multi30k --src en --tgt de --minutes 30
# python -m transformer translate --model multi30k-en-de "A dog runs along the beach."
# python -m transformer evaluate --corpus multi30k --src en --tgt de --model multi30k-en-de
# ```
#
# Press Ctrl-C, and it leaves a checkpoint; `--resume` goes on. Two text files of your own, aligned line by line, enter by
# `--corpus files --train SRC TGT`.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | Adam, $\beta = (0.9, 0.98)$, $\epsilon = 10^{-9}$ (section 5.3) | the same | |
# | the rate's peak follows from width and warm-up (equation 3) | the peak is free | small models on small data learn faster with a higher one |
# | smoothing 0.1 over the vocabulary (section 5.4) | the padding word gets no share; 0 for English→Italian | it is never right; one right answer needs no hedge |
# | mean of the last 5 or 20 checkpoints (section 6.1) | a running mean of the weights, and the best on validation | the same effect, at every moment |
# | 25,000 source and as many target tokens a batch (section 5.1) | 2,048 or 4,096 places on either side | 29,000 captions are not 4.5 million pairs |
# | 8 GPUs for 12 hours (base, section 5.2) | two cores for minutes | a course |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | decoder input, labels: the target, one step apart | `b t` | (64, 8) each |
# | logits, all positions at once | `b t v` | (64, 8, 37000) |
# | loss of each token | `b t`, without padding | at most 512 numbers |
# | loss | one number | () |
#
# It has learned to continue a right beginning. [Chapter 12](12_inference.ipynb) leaves it alone with a source, and lets it write.
