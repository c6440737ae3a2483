# %% [markdown]
r"""
# 11 · Training

**Show the model a sentence and its translation, and let every position predict its next token,
all at once.**

![The architecture; the decoder's input and the labels are lit](../figures/architecture_11.svg)
"""

# %% [markdown]
# **What you need**: [chapter 9](09_model.ipynb), for the model, and [chapter 10](10_data.ipynb), for
# its batches; the logarithm. About an hour. In the paper:
# [sections 5.1 to 5.4](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/11_training.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/11_training.ipynb).
#
# **What you will be able to do**
#
# - compute the loss of a token by hand, with label smoothing too, and write it for a batch;
# - write a training loop, and a `Trainer` that can be stopped and resumed;
# - read a learning curve, and say why a low loss is not yet a good translation.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from transformer.data import Batch, Pair, batches_by_length, collate, epoch
from transformer.files import atomic_write, read_tensors
from transformer.model import Transformer

# %% [markdown]
# ## The question
#
# The model of chapter 9 predicts the next token from a source and the beginning of a target. Give a
# new one, of the example's size, the batch of chapter 10. Its two targets have 12 tokens. How many
# will it predict?

# %% tags=["active-ipynb"]
# from transformer.example import after, example_model
#
# torch.manual_seed(0)
# model = Transformer(example_model().config).eval()
# batch = after(10)
# real = batch.labels != 0
#
# guesses = model(batch.src, batch.decoder_input).argmax(-1)
# print("right:", int((guesses == batch.labels)[real].sum()), "of", batch.n_tokens)

# %% [markdown]
# None: its weights are random. How can it learn from such pairs? Suppose it writes the translation
# itself. Its first token is wrong, and then there is no right second token: how should a wrong
# beginning continue? Besides, eight tokens take eight passes, one after the other.
#
# **Teacher forcing** solves both problems. Whatever the model would have written, it is given the
# right tokens so far and predicts only the next one.

# %% [markdown]
# ![Training predicts every position in one pass; inference feeds each token back, one pass for each](../figures/11_teacher_forcing.svg)
#
# Decoder input and labels are the same sentence, shifted by one token (chapter 10). The causal mask
# (chapter 8) hides from position $t$ all that comes after it, beginning with its own label. So all
# positions can be predicted at once.

# %% [markdown]
# ## By hand
#
# Is one pass really the same as a pass for each beginning? Compute both:

# %% tags=["active-ipynb"]
# at_once = model(batch.src, batch.decoder_input)
# one_by_one = [model(batch.src, batch.decoder_input[:, :t])[:, -1] for t in range(1, 9)]
#
# torch.testing.assert_close(at_once[real], torch.stack(one_by_one, dim=1)[real])
# print("one pass:", *at_once.shape, "· eight passes:", len(one_by_one), "×", *one_by_one[0].shape)

# %% [markdown]
# They are equal. A sentence of eight tokens gives eight training examples in one pass; a recurrent
# network would need eight steps. Without the mask, the same line would show each position its
# label. The loss would fall to almost zero, and the model would have learned only to copy.

# %% [markdown]
# ### How wrong is a guess?
#
# Take a vocabulary of 5. After *c'è un* the model gives these probabilities, and the right word is
# *gatto*. **Cross-entropy** is $-\log$ of the probability of the right word:
# $-\log \frac12 = \log 2$, which is one bit, or 0.69 *nats* with the natural logarithm, our $\log$.

# %% tags=["active-ipynb"]
# vocabulary = ["<pad>", "il", "un", "gatto", "tappeto"]
# p = torch.tensor([1 / 16, 1 / 16, 1 / 8, 1 / 2, 1 / 4])
# gatto = torch.tensor(3)
#
# bits = -p.log2()
# print("bits for each word:", bits.int().tolist())
# print("cross-entropy:", int(bits[gatto]), f"bit = {-p[gatto].log():.3f} nats")

# %% [markdown]
# Only a probability of 1 has loss 0. So training makes the model more and more certain, even where
# two words would both be right. **Label smoothing** sets a softer target: $\varepsilon$ is shared
# by all words except padding, which is never right, and the label gets the remaining
# $1 - \varepsilon$ as well. With $\varepsilon = 0.2$ each of the 4 real words gets 0.05, and
# *gatto* 0.8 more:

# %% tags=["active-ipynb"]
# smoothed = torch.tensor([0.0, 0.05, 0.05, 0.85, 0.05])
#
# print(f"{(smoothed * bits).sum():.2f} bits = {-(smoothed * p.log()).sum():.3f} nats")

# %% [markdown]
# On paper: $0.85 \cdot 1 + 0.05 \cdot (4 + 3 + 2) = 1.30$ bits, and $1.30 \log 2 = 0.901$ nats.
#
# The loss is lowest for a model that predicts exactly the smoothed distribution. Even then it is
# not 0 but the entropy of that distribution. So with smoothing, a learning curve cannot reach zero:

# %% tags=["active-ipynb"]
# words = smoothed[1:]
# print(f"the lowest loss: {-(words * words.log()).sum():.3f} nats")

# %% [markdown]
# ## The definition
#
# ### The loss
#
# With logits $z$, label $y$ and a vocabulary of $V$ tokens, one of which is padding, the
# log-probability of token $i$ is $\log p_i = z_i - \log\sum_j e^{z_j}$, and the smoothed
# distribution need not be built:
#
# $$\ell = -(1-\varepsilon)\,\log p_y \;-\; \frac{\varepsilon}{V-1} \sum_{i \ne \text{pad}} \log p_i$$


# %% tags=["exercise"]
def label_smoothed_loss(
    logits: Float[Tensor, "... vocab"],
    labels: Int[Tensor, "..."],
    pad_id: int,
    smoothing: float = 0.1,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy, in nats a token, between the logits and smoothed labels.

    The label gets 1 - smoothing, and smoothing is shared by the vocabulary except padding.
    Positions whose label is padding, or PyTorch's -100, do not count.
    Source: Vaswani et al. 2017, section 5.4; Szegedy et al. 2015, section 7.
    """
    real = (labels != pad_id) & (labels != -100)
    log_probs = logits[real].float().log_softmax(-1)
    label = log_probs.gather(-1, labels[real].unsqueeze(-1)).squeeze(-1)
    if smoothing == 0:
        return -label.mean()
    words = log_probs[:, :pad_id].sum(-1) + log_probs[:, pad_id + 1 :].sum(-1)
    share = smoothing / (logits.shape[-1] - 1)
    return -((1 - smoothing) * label + share * words).mean()


# %% [markdown]
# Here are the five words again, with the logarithms of their probabilities as logits. The label at
# the second position is padding, so its large logits do not count:

# %% tags=["active-ipynb"]
# logits = torch.stack([p.log(), 9 * torch.arange(5.0)])
# label_ids = torch.tensor([3, 0])
#
# print(f"{label_smoothed_loss(logits, label_ids, pad_id=0, smoothing=0.2):.3f} nats")

# %% [markdown]
# ### The learning rate
#
# **Adam** (Kingma and Ba 2015) divides the average of a weight's recent gradients by their usual
# size, so every weight moves by about the **learning rate** in a step. How large should it be?
# Small at first, while Adam has seen too few gradients to estimate their size, and while those of
# the last layers of a post-norm stack are large (Xiong et al. 2020). Then large, and then smaller
# and smaller:
#
# $$\eta(s) = \eta_\text{peak} \cdot \min\!\left(\frac{s}{w},\; \sqrt{\frac{w}{s}}\right)$$
#
# for step $s = 1, 2, \dots$ and $w$ steps of **warm-up**. Both branches meet at $s = w$.


# %% tags=["exercise"]
def learning_rate(step: int, warmup: int, peak: float) -> float:
    """Return the learning rate of step 1, 2, …

    It rises linearly to `peak` at step `warmup` and then falls with the inverse square root. The
    paper's own peak is (d_model · warmup) ** -0.5. Source: Vaswani et al. 2017, equation 3.
    """
    return peak * min(step / max(warmup, 1), math.sqrt(max(warmup, 1) / step))


# %% [markdown]
# The paper writes $d_\text{model}^{-0.5} \cdot \min(s^{-0.5},\, s \cdot w^{-1.5})$. That is the
# same curve, with the peak $(d_\text{model} \cdot w)^{-0.5}$ built in:

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
# A longer warm-up means a lower peak, and afterwards the same curve. The decay is an **inverse
# square root**: to halve the rate takes four times as many steps. (An exponential decay would halve
# it after every so many steps, and would be close to zero long before the end.)

# %% tags=["active-ipynb"]
# [learning_rate(s, 4000, peak=1.0) for s in (4000, 16_000, 64_000, 256_000)]

# %% [markdown]
# ### A training loop
#
# Loss and learning rate are all that a training loop needs besides the model and Adam. Here it is
# from top to bottom, on the two pairs of the example:

# %% tags=["active-ipynb"]
# cat = Batch(batch.src[:1], batch.tgt[:1])
# love = Batch(batch.src[1:], batch.tgt[1:])
# optimizer = torch.optim.Adam(model.train().parameters(), betas=(0.9, 0.98), eps=1e-9)
#
# for step in range(1, 61):
#     optimizer.param_groups[0]["lr"] = learning_rate(step, warmup=10, peak=1e-2)
#     optimizer.zero_grad()
#     for part in (cat, love):
#         logits = model(part.src, part.decoder_input)
#         loss = label_smoothed_loss(logits, part.labels, pad_id=0)
#         (part.n_tokens / batch.n_tokens * loss).backward()
#     nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
#     optimizer.step()

# %% [markdown]
# In each step:
#
# - Set the learning rate, and forget the gradients of the last step.
# - Compute a forward pass, the loss, and its gradients by a backward pass. Several small batches
#   can stand for a large one that does not fit into memory: **gradient accumulation** adds up their
#   gradients, each weighted by its share of the tokens.
# - **Clip** the gradient: if it is longer than `max_norm`, it is shortened to that length, so that
#   one unusual batch cannot ruin the weights.
# - Let Adam change the weights.
#
# How many of the 12 tokens will the model predict after 60 steps?

# %% tags=["active-ipynb"]
# guesses = model.eval()(batch.src, batch.decoder_input).argmax(-1)
# print("right:", int((guesses == batch.labels)[real].sum()), "of", batch.n_tokens)

# %% [markdown]
# It has learned two sentences by heart. The rest of this chapter puts these lines into functions
# that can be tested, stopped and resumed.

# %% [markdown]
# ### The settings
#
# `TrainingConfig` holds every setting of a run and raises a `ValueError` for impossible ones.


# %%
@dataclass(frozen=True)
class TrainingConfig:
    """Hold the settings of a training run.

    A step learns from `accumulate` batches of at most `max_tokens` tokens on either side, padding
    included. `ema_decay` is the decay of the moving average of the weights.
    """

    steps: int = 100_000
    max_tokens: int = 4096
    accumulate: int = 1
    peak_lr: float = 5e-3
    warmup: int = 1000
    label_smoothing: float = 0.1
    max_grad_norm: float = math.inf
    ema_decay: float = 0.999
    validate_every: int = 500
    seed: int = 0

    def __post_init__(self):
        above_zero = ("steps", "max_tokens", "accumulate", "validate_every")
        for name in (*above_zero, "peak_lr", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        for name in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"{name} must be at least 0 and below 1, not {value!r}")
        if self.warmup < 0:
            raise ValueError(f"warmup must be at least 0 steps, not {self.warmup}")


# %% [markdown]
# ### One step
#
# The loss of a whole batch is one forward pass and the formula above. It is a function of model,
# batch and smoothing, so that a trainer can be given another one: `transformer.recipes` passes in
# the faster parts of chapter 15, and nothing in this chapter changes.


# %% tags=["exercise"]
def translation_loss(model: Transformer, batch: Batch, smoothing: float) -> Float[Tensor, ""]:
    """Return the label-smoothed loss of all target positions, in nats a token.

    Every position is given the true tokens before it (teacher forcing).
    """
    logits = model(batch.src, batch.decoder_input)
    return label_smoothed_loss(logits, batch.labels, model.config.pad_id, smoothing)


# %% [markdown]
# `Trainer.step` is the body of the loop above, line by line, with a test that the loss is finite.
# Besides model and optimiser a trainer holds an **exponential moving average** (EMA) of the
# weights. Each batch moves the weights in a somewhat different direction; the average of the last
# steps is steadier, and it translates better.


# %% tags=["exercise"]
class Trainer:
    """Train a model with Adam, and keep an exponential moving average (EMA) of its weights.

    Translation uses `ema_model`: it is steadier than the weights of any single step. (The paper
    averages its last checkpoints, section 6.1.)
    """

    def __init__(
        self,
        model: Transformer,
        config: TrainingConfig,
        loss: Callable[[Transformer, Batch, float], Tensor] = translation_loss,
    ):
        self.model = model
        self.config = config
        self.loss = loss
        self.steps = 0
        self.optimizer = torch.optim.Adam(
            model.parameters(), betas=(0.9, 0.98), eps=1e-9, fused=True
        )
        self.ema_model = copy.deepcopy(model).eval().requires_grad_(False)

    def step(self, *batches: Batch) -> float:
        """Learn from one batch, or from several at once, and return the loss in nats a token.

        Raises FloatingPointError, before any weight is changed, if the loss is not finite.
        """
        config = self.config
        step = self.steps + 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.warmup, config.peak_lr)
        self.optimizer.zero_grad()
        n_tokens = sum(batch.n_tokens for batch in batches)
        total = 0.0
        for batch in batches:
            share = batch.n_tokens / n_tokens
            loss = share * self.loss(self.model.train(), batch, config.label_smoothing)
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            rows = sum(len(batch.src) for batch in batches)
            raise FloatingPointError(f"loss of step {step} is {total}, on a batch of {rows} pairs")
        if config.max_grad_norm < math.inf:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self.steps = step
        self.update_ema()
        return total

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the averaged weights a little towards the new ones, further in the first steps."""
        decay = min(self.config.ema_decay, self.steps / (self.steps + 10))
        for average, new in zip(self.ema_model.parameters(), self.model.parameters(), strict=True):
            average.lerp_(new, 1 - decay)

    @torch.no_grad()
    def validate(self, batches: Sequence[Batch]) -> float:
        """Return the loss of `ema_model` in nats a token: smoothed as in training, no dropout."""
        total = 0.0
        for batch in batches:
            loss = self.loss(self.ema_model, batch, self.config.label_smoothing)
            total += batch.n_tokens * loss.item()
        return total / sum(batch.n_tokens for batch in batches)


# %% [markdown]
# ## The proof
#
# ### The running example
#
# An even guess among 588 tokens has a loss of $\log 588 = 6.4$. Chapter 9 left us the logits of the
# trained model, `after(9)`. With what loss?

# %% tags=["active-ipynb"]
# logits = after(9)
# loss = label_smoothed_loss(logits, batch.labels, pad_id=0, smoothing=0.0)
# torch.testing.assert_close(loss, after(11), atol=1e-5, rtol=1e-3)
# torch.testing.assert_close(translation_loss(example_model(), batch, 0.0), loss)
#
# p = logits.softmax(-1).gather(-1, batch.labels.unsqueeze(-1)).squeeze(-1)
# print("probabilities of 'ti amo molto </s>':", [round(x, 3) for x in p[1, :4].tolist()])
# print(f"the loss of all 12 tokens: {loss:.3f}")
# print(f"with smoothing 0.1: {label_smoothed_loss(logits, batch.labels, pad_id=0):.1f}")

# %% [markdown]
# This is `after(11)`. The loss is so low because the model was trained without smoothing on a
# language that gives each sentence one translation. Scored with smoothing, so much certainty is
# expensive.
#
# ### Equal to PyTorch
#
# PyTorch's cross-entropy also takes distributions as targets. Build the smoothed one, leave padding
# out, and both losses agree, on random logits for a batch of 2 × 6 positions and 9 words:

# %% tags=["active-ipynb"]
# import torch.nn.functional as F
#
# torch.manual_seed(0)
# logits = torch.randn(2, 6, 9)
# labels = torch.tensor([[5, 3, 8, 2, 0, 0], [4, 4, 7, 6, 3, 2]])
# real = labels != 0
#
# share = torch.full((9,), 0.1 / 8)
# share[0] = 0
# target = share + 0.9 * F.one_hot(labels, 9)
# print("each row sums to 1:", bool(torch.allclose(target.sum(-1), torch.ones(2, 6))))
#
# ours = label_smoothed_loss(logits, labels, pad_id=0)
# torch.testing.assert_close(ours, F.cross_entropy(logits[real], target[real]))

# %% [markdown]
# PyTorch's own `label_smoothing=0.1` gives another number, because it gives the padding *word* a
# share, too. A model trained with it learns to predict padding now and then.

# %% tags=["active-ipynb"]
# theirs = F.cross_entropy(logits[real], labels[real], label_smoothing=0.1)
# print(f"ours {ours:.2f} · with a share for padding {theirs:.2f}")

# %% [markdown]
# **Padding does not count**: its positions give no gradient, and the mean is over the real tokens,
# not over all positions or over rows. A model that gives each of 4 words a probability of ¼ has a
# loss of $\log 4 = 1.39$. If the sum were divided by all positions, padding included, the same
# model would seem to have 0.92:

# %% tags=["active-ipynb"]
# logits.requires_grad_()
# label_smoothed_loss(logits, labels, pad_id=0).backward()
# assert logits.grad[~real].eq(0).all() and logits.grad[real].ne(0).any(-1).all()
#
# even = torch.tensor([-torch.inf, 0.0, 0.0, 0.0, 0.0]).expand(3, 5)
# each = F.cross_entropy(even, torch.tensor([3, 2, 0]), ignore_index=0, reduction="none")
# print(f"over 2 tokens {each.sum() / 2:.2f} · over 3 positions {each.sum() / 3:.2f}")

# %% [markdown]
# **Accumulated batches equal one large batch.** Here is the example's batch as a whole, and its two
# sentences one at a time. The loss is the same, and so are the gradients:

# %% tags=["active-ipynb"]
# def gradient(*batches):
#     torch.manual_seed(0)
#     trainer = Trainer(Transformer(example_model().config), TrainingConfig())
#     loss = trainer.step(*batches)
#     return loss, trainer.model.bias.grad
#
#
# torch.testing.assert_close(gradient(cat, love), gradient(batch), atol=1e-6, rtol=1e-4)
# print("tokens:", batch.n_tokens, "=", cat.n_tokens, "+", love.n_tokens)

# %% [markdown]
# The plain mean of the two losses would be wrong: each token of the short sentence would count
# twice as much as a token of the long one.

# %% [markdown]
# ### The check
#
# The checks look for mistakes that are made in practice: smoothing that gives the padding word a
# share, a mean that includes padding, a schedule that starts at step 0 or fails without warm-up,
# gradients left over from the last step, accumulated batches that are not weighted, an average that
# only copies the last weights, validation with dropout.

# %% tags=["active-ipynb"]
# from transformer.checks import check_loss, check_schedule, check_trainer
#
# check_loss(label_smoothed_loss)
# check_schedule(learning_rate)
# check_trainer(Trainer)

# %% [markdown]
# ## The look
#
# Before real sentences, here is a task that needs only attention: **write eight digits backwards**.
# One layer, one head and 300 steps are enough and take a few seconds. The digits are drawn anew for
# every batch, so there is nothing to memorise.

# %% tags=["active-ipynb"]
# from transformer.model import Config
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
#
#
# def backwards(n, generator):
#     digits = torch.randint(3, 13, (n, 8), generator=generator)
#     start = torch.full((n, 1), 1)
#     end = torch.full((n, 1), 2)
#     return Batch(digits, torch.cat([start, digits.flip(1), end], dim=1))
#
#
# torch.manual_seed(0)
# generator = torch.Generator().manual_seed(0)
# toy = Transformer(Config.tiny(13, d_model=64, n_heads=1, n_layers=1, d_ff=128, dropout=0.0))
# trainer = Trainer(toy, TrainingConfig(warmup=60, peak_lr=3e-3, label_smoothing=0.0))
# losses = [trainer.step(backwards(64, generator)) for _ in range(300)]
#
# print("loss above log 10 at first:", losses[0] > math.log(10))
# print("below 0.1 at the end:      ", losses[-1] < 0.1)

# %% [markdown]
# Guessing among ten digits has a loss of $\log 10 = 2.3$. Now test the model on new digits:

# %% tags=["active-ipynb"]
# toy = trainer.ema_model
# new = backwards(200, generator)
#
# with torch.no_grad():
#     guesses = toy(new.src, new.decoder_input).argmax(-1)
# share = (guesses == new.labels).float().mean().item()
# assert trainer.validate([new]) < 0.1 and share > 0.99
# print("digits   ", *(new.src[0] - 3).tolist())
# print("backwards", *(guesses[0, :8] - 3).tolist())

# %% [markdown]
# How does it do this? The digits can reach the decoder only through cross-attention. `head_weights`
# (chapter 4) returns its weights; a hook collects the inputs that cross-attention gets in this
# pass. Where will the dark cells be?

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
# from transformer.plotting import plot_attention
#
# cross = toy.decoder.layers[0].cross_attention
# inputs = []
# hook = cross.register_forward_pre_hook(lambda module, args: inputs.append(args))
# toy(new.src, new.decoder_input)
# hook.remove()
#
# weights = head_weights(cross, *inputs[0]).detach().mean(0)[0]
# assert weights[:8].argmax(-1).tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
# plot_attention(
#     weights,
#     queries=[f"writes {n}" for n in "12345678"] + ["</s>"],
#     keys=[f"digit {n}" for n in "12345678"],
#     title="Writing backwards: the mean of 200 sequences",
# )

# %% [markdown]
# On a diagonal that starts at the upper right: to write its first digit the decoder attends to the
# last digit of the source, and so on back to the first. The last row predicts `</s>` and needs no
# digit, so its weights mean nothing.

# %% [markdown]
# ## The run
#
# A run repeats the step. The pairs are shuffled anew for every **epoch**, that is, each time all of
# them have been seen. Every `validate_every` steps the run **validates**: it measures the loss on
# sentences that the model is never trained on.


# %%
def training_batches(
    pairs: Sequence[Pair], config: TrainingConfig, start: int = 0
) -> Iterator[tuple[Batch, ...]]:
    """Yield the batches of every step, `accumulate` at a time, from step `start` on, for ever."""

    def stream() -> Iterator[Batch]:
        batches_per_epoch = len(batches_by_length(pairs, config.max_tokens))
        number, skip = divmod(start * config.accumulate, batches_per_epoch)
        while True:
            yield from epoch(pairs, config.max_tokens, config.seed + number, skip)
            number += 1
            skip = 0

    return zip(*[stream()] * config.accumulate, strict=False)


# %% tags=["exercise"]
def train(trainer: Trainer, pairs: Sequence[Pair], val_pairs: Sequence[Pair]) -> list[dict]:
    """Train until `config.steps` and return the learning curve, one row for each validation."""
    config = trainer.config
    device = trainer.model.bias.device
    groups = batches_by_length(val_pairs, config.max_tokens)
    val_batches = [collate(group).to(device) for group in groups]
    history = []
    losses = []
    for batches in training_batches(pairs, config, start=trainer.steps):
        if trainer.steps >= config.steps:
            break
        losses.append(trainer.step(*(batch.to(device) for batch in batches)))
        if trainer.steps % config.validate_every == 0 or trainer.steps == config.steps:
            row = {"train_loss": mean(losses), "val_loss": trainer.validate(val_batches)}
            history.append({"step": trainer.steps} | row)
            losses.clear()
    return history


# %% [markdown]
# (`zip` of one stream with itself takes `accumulate` batches at a time. The order of the batches
# follows from the seed, so a run can continue at any step.)

# %% [markdown]
# ### Checkpoints
#
# A run that was interrupted should continue as if nothing had happened. So a checkpoint holds more
# than the weights: Adam's two averages of every gradient, the averaged weights, the number of
# steps, and the state of the random numbers that dropout draws. The format is safetensors, and
# reading it cannot run code.


# %%
def checkpoint_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Return every tensor that training depends on, by name."""
    parts = {
        "model": trainer.model.state_dict(),
        "ema_model": trainer.ema_model.state_dict(),
        "random": random_states(),
    }
    for i, state in trainer.optimizer.state_dict()["state"].items():
        parts[f"optimizer.{i}"] = state
    return {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def random_states() -> dict[str, Tensor]:
    """Return the state of every random number generator that dropout draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda{i}": state for i, state in enumerate(cuda)}}


# %%
def save_checkpoint(trainer: Trainer, path: str | Path, notes: dict | None = None) -> None:
    """Write all that training needs to continue as if it had not stopped, and the `notes`."""
    about = {
        "config": asdict(trainer.model.config),
        "training": asdict(trainer.config),
        "steps": trainer.steps,
        "notes": notes or {},
    }
    atomic_write(Path(path), save(checkpoint_tensors(trainer), {"about": json.dumps(about)}))


# %%
def load_checkpoint(trainer: Trainer, path: str | Path) -> dict:
    """Bring the trainer to the state in which `path` was written, and return the notes.

    Raises ValueError if the file is damaged or belongs to a model with another config.
    """
    about = read_about(path)
    config = asdict(trainer.model.config)
    if about["config"] != config:
        found = about["config"]
        raise ValueError(f"{path} belongs to another config: {found}, the model has {config}")
    tensors = read_tensors(path)

    def part(name: str) -> dict[str, Tensor]:
        prefix = f"{name}."
        return {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}

    try:
        adam = optimizer_state(trainer, part("optimizer"), about["steps"])
        trainer.model.load_state_dict(part("model"))
        trainer.ema_model.load_state_dict(part("ema_model"))
        trainer.optimizer.load_state_dict(adam)
        restore_random_states(part("random"))
    except (KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} is damaged: {reason}") from None
    trainer.steps = about["steps"]
    return about["notes"]


# %%
def read_about(path: str | Path) -> dict:
    """Return a checkpoint's metadata: config, training, steps and notes."""
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads(file.metadata()["about"])
        return {name: about[name] for name in ("config", "training", "steps", "notes")}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error!s:.200})") from None
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{path} is not a training checkpoint") from None


def optimizer_state(trainer: Trainer, tensors: dict[str, Tensor], steps: int) -> dict:
    """Return Adam's state from a checkpoint's tensors; KeyError or RuntimeError if one is wrong."""
    state = trainer.optimizer.state_dict() | {"state": {}}
    # Adam makes its averages in the first step.
    for i, parameter in enumerate(trainer.model.parameters() if steps else ()):
        averages = {
            name: tensors[f"{i}.{name}"].expand_as(parameter) for name in ("exp_avg", "exp_avg_sq")
        }
        state["state"][i] = averages | {"step": tensors[f"{i}.step"]}
    return state


def restore_random_states(states: dict[str, Tensor]) -> None:
    """Set the random number generators to the states of `random_states`."""
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name != "cpu":
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda")))


# %% [markdown]
# Does it work? Train 20 steps in one go. Then train 8, write a checkpoint, and let a new trainer
# continue from it. Are the weights the same, **bit for bit**?

# %% tags=["active-ipynb"]
# import tempfile
#
# from transformer.corpora import english_italian
# from transformer.data import encode_pairs
# from transformer.example import example_tokenizer
#
# corpus = english_italian()
# tokenizer = example_tokenizer()
# pairs = encode_pairs(tokenizer, corpus.train[:20_000])
# val_pairs = encode_pairs(tokenizer, corpus.val[:200])
#
#
# def fresh(steps):
#     torch.manual_seed(0)
#     model = Transformer(Config.tiny(588, n_layers=1, d_model=64))
#     return Trainer(model, TrainingConfig(steps=steps, max_tokens=512, warmup=5))
#
#
# straight = fresh(20)
# train(straight, pairs, val_pairs)
#
# with tempfile.TemporaryDirectory() as folder:
#     checkpoint = Path(folder) / "checkpoint.safetensors"
#     stopped = fresh(8)
#     train(stopped, pairs, val_pairs)
#     save_checkpoint(stopped, checkpoint)
#
#     resumed = fresh(20)
#     load_checkpoint(resumed, checkpoint)
#     train(resumed, pairs, val_pairs)
#
# for name in ("model", "ema_model"):
#     one = getattr(straight, name).state_dict()
#     two = getattr(resumed, name).state_dict()
#     print(f"{name:9} the same bits:", all(one[key].equal(two[key]) for key in one))

# %% [markdown]
# ## English → Italian
#
# Now everything together: a vocabulary from the training split, ids, a model, a run. The translator
# of this course has two layers on each side and sees each of the 100,000 pairs about once. Its
# labels are not smoothed: every sentence has one translation, so the model may be certain.
#
# This takes minutes, more on a busy machine, so it is done once, by `transformer.recipes`. `fit`
# runs the loop above, writes checkpoints, and keeps the model with the lowest validation loss.
# `trained_translator` returns the folder with the model, its tokenizer and the learning curve.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from pprint import pprint
#
# from transformer.recipes import ENGLISH_ITALIAN, trained_translator
#
# folder = trained_translator()
# print(ENGLISH_ITALIAN.vocab_size, "tokens at most ·", ENGLISH_ITALIAN.sizes)
# pprint(ENGLISH_ITALIAN.training)

# %% tags=["active-ipynb"]
# history = json.loads((folder / "history.json").read_text())
# assert history[-1]["val_loss"] < history[0]["val_loss"] < history[0]["train_loss"]
# plot_lines(
#     {
#         "training": [row["train_loss"] for row in history],
#         "validation": [row["val_loss"] for row in history],
#     },
#     x=[row["step"] for row in history],
#     xlabel="step",
#     ylabel="loss per token",
#     logy=True,
# )

# %% [markdown]
# ### How to read a curve
#
# - **The scale is logarithmic**: on a linear one all but the first points would lie on the axis.
# - **Training above validation** is normal: training runs with dropout, and each point is a mean
#   over earlier, worse steps. Validation runs without dropout and with the averaged weights.
# - **Both fall**: the model is learning. Both flat: the rate is too low, or training is done.

# %% [markdown]
# - **Training falls, validation rises**: it memorises. `fit` keeps the best model on validation.
# - **A jump, or `nan`**: the learning rate is too high, or the warm-up is too short.
# - **Compare like with like**: smoothing and the vocabulary change the scale of the loss.

# %% [markdown]
# ### Why a low loss is not yet good output
#
# Stop a run early, after 150 steps, when the validation loss is down to about 1.5:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# torch.manual_seed(0)
# model = Transformer(Config.tiny(588, n_layers=1, dropout=0.0))
# config = TrainingConfig(steps=150, max_tokens=1024, warmup=50, ema_decay=0.9, validate_every=50)
# trainer = Trainer(model, config)
# for row in train(trainer, pairs, val_pairs):
#     print(*(f"{name} {round(value, 2)}" for name, value in row.items()), sep=" · ")

# %% [markdown]
# Given the right tokens so far, the model predicts the next one at most positions:

# %% tags=["active-ipynb"]
# early = trainer.ema_model
# batch = collate(val_pairs)
# real = batch.labels != 0
#
# with torch.no_grad():
#     guesses = early(batch.src, batch.decoder_input).argmax(-1)
# accuracy = (guesses == batch.labels)[real].float().mean().item()
# assert accuracy > 0.7
# print("more than 7 tokens in 10 are right:", accuracy > 0.7)

# %% [markdown]
# Now let the model read its own tokens instead, as it must when it translates. Seven tokens in ten
# are right; will seven sentences in ten be right from the first token to `</s>`?


# %% tags=["active-ipynb"]
# @torch.no_grad()
# def write(model, src, length):
#     memory = model.encode(src)
#     written = torch.full((len(src), 1), 1)  # <s>
#     for _ in range(length):
#         next_ids = model.decode(written, memory, src)[:, -1:].argmax(-1)
#         written = torch.cat([written, next_ids], dim=1)
#     return written
#
#
# written = write(early, batch.src, batch.labels.shape[1])[:, 1:]
# exact = ((written == batch.labels) | ~real).all(-1).float().mean().item()
# assert exact < 0.5
# print("fewer than 5 sentences in 10 are right:", exact < 0.5)

# %% [markdown]
# A sentence is right only if *all* its tokens are. If each of eight tokens were right with a
# probability of 0.8, independently, the sentence would be with $0.8^8 = 17\,\%$. And the loss does
# not measure what happens after a mistake: the model reads its own wrong token, is in a situation
# that it never met in training, and makes another mistake. So judge a translator by what it writes,
# not by its output under teacher forcing.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.data import decode
#
# translations = decode(tokenizer, written[:5].tolist())
# for (english, italian), ours in zip(corpus.val, translations):
#     print(f"{english}\n  right   {italian}\n  written {ours}")

# %% [markdown]
# ### Real captions after that
#
# The same code learns from captions of photographs (chapter 10), which it downloads, in 45 minutes
# on two cores. The README has the scores. After Ctrl-C, `--resume` goes on from the checkpoint.
#
# ```
# python -m transformer train --recipe multi30k-en-de --out runs/en-de
# ```

# %% [markdown]
# ## What if
#
# What if the model reads its own tokens in training, too, from the first step? A small model spells
# four letters, and there are two right ways: all small or all capital, at random. Own tokens alone
# might be slow to learn from, so as a control the same model trains on small letters only.


# %% tags=["active-ipynb"]
# def letters(n, both, generator):
#     small = torch.randint(3, 13, (n, 4), generator=generator)
#     capital = torch.rand(n, 1, generator=generator) < 0.5
#     spelled = small + 10 * (capital & both)  # ids 3 to 12 are small, 13 to 22 capital
#     return Batch(small, F.pad(F.pad(spelled, (1, 0), value=1), (0, 1), value=2))
#
#
# def loss_on_its_own(model, batch, smoothing):
#     logits = model(batch.src, write(model, batch.src, 4))
#     return label_smoothed_loss(logits, batch.labels, 0, smoothing)
#
#
# def share_right(loss, both, seed):
#     torch.manual_seed(seed)
#     generator = torch.Generator().manual_seed(seed)
#     sizes = dict(d_model=32, n_heads=2, n_layers=1, d_ff=64, dropout=0.0)
#     config = TrainingConfig(warmup=40, peak_lr=8e-3, label_smoothing=0.0)
#     trainer = Trainer(Transformer(Config(23, **sizes)), config, loss)
#     src = letters(300, both, generator).src
#     curve = []
#     for step in range(1, 161):
#         trainer.step(letters(48, both, generator))
#         if step % 10 == 0:
#             away = write(trainer.ema_model, src, 4)[:, 1:] - src
#             right = (away == 0).all(1) | (away == 10 * both).all(1)
#             curve.append(right.float().mean())
#     return torch.stack(curve)

# %% [markdown]
# A word such as *aBBa* is wrong. Which of the three will write them?

# %% tags=["active-ipynb"]
# variants = {
#     "teacher forcing, two ways": (translation_loss, True),
#     "own tokens, two ways": (loss_on_its_own, True),
#     "own tokens, one way": (loss_on_its_own, False),
# }
# curves = {
#     name: torch.stack([share_right(*variant, seed) for seed in range(3)])
#     for name, variant in variants.items()
# }
# assert curves["teacher forcing, two ways"][:, -1].min() > 0.9
# assert curves["own tokens, one way"][:, -1].min() > 0.8
# assert curves["own tokens, two ways"][:, -1].max() < 0.6
#
# means = {name: runs.mean(0) for name, runs in curves.items()}
# steps = range(10, 161, 10)
# plot_lines(means, x=steps, xlabel="step", ylabel="share right", title="Mean of 3 seeds")

# %% [markdown]
# Where only one answer is right, the model learns from its own tokens, too, at the cost of four
# more passes a step. With two it fails: it has begun with *a*, and in half of the cases the next
# label is a capital, so its own beginning tells it nothing, and it guesses each letter's case.
# Under teacher forcing the beginning always fits the label. Real sentences have many right
# translations.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 11.1 | The loss | write the block | 20 | ★★☆ |
# | 11.2 | The learning rate | write the block | 10 | ★☆☆ |
# | 11.3 | One step of training | write the block | 30 | ★★☆ |
# | 11.4 | A smoothed loss on paper | by hand | 10 | ★☆☆ |
# | 11.5 | The curve looks strange | find the bug | 15 | ★★☆ |
# | 11.6 | A test for a loss | write the test | 25 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 11` says what is wrong, and `course hint 11.1` gives a hint.

# %% [markdown]
# ## Summary
#
# Teacher forcing gives every position the right tokens before it, so one pass predicts all of them,
# and the loss is the mean $-\log p$ of the right tokens, softened by label smoothing. Adam takes
# steps whose size rises during warm-up and then falls. A low loss promises right next tokens, not
# right sentences.
#
# **Write it from memory**: close the chapter and write `label_smoothed_loss` and `learning_rate`;
# `check_loss(label_smoothed_loss)` and `check_schedule(learning_rate)` say whether they are right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | Adam, $\beta = (0.9, 0.98)$, $\epsilon = 10^{-9}$ ([section 5.3](https://arxiv.org/abs/1706.03762)) | the same | |
# | the peak of the learning rate follows from width and warm-up (equation 3) | the peak is a setting | small models on small data learn faster with a higher one |
# | smoothing 0.1 over the vocabulary (section 5.4) | the padding word gets no share; no smoothing for English→Italian | padding is never right; each sentence has one translation |
# | mean of the last 5 or 20 checkpoints (section 6.1) | a moving average of the weights, and the best on validation | the same effect, available after every step |
# | 25,000 source and as many target tokens a batch (section 5.1) | 2,048 or 4,096 tokens on either side, padding included | 29,000 captions are not 4.5 million pairs |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | decoder input, labels | `b t` | (2, 8) each | (64, 8) each |
# | logits, all positions at once | `b t vocab` | (2, 8, 588) | (64, 8, 37000) |
# | loss of each token | `b t`, without padding | 12 numbers | at most 512 |
#
# The model has learned to continue a correct beginning. In [chapter 12](12_inference.ipynb) it gets
# only a source and writes the translation itself.
