# %% [markdown]
r"""
# 14 · Data parallelism

**Two processes, each with half of every batch, take the same step that one takes with all of it.**

![The architecture; the loss is lit](../figures/architecture_14.svg)
"""

# %% [markdown]
# **What you need**: [chapter 11](11_training.ipynb), for the loss, the trainer and accumulated
# gradients. About 40 minutes. In the paper: [section 5.2](https://arxiv.org/abs/1706.03762), whose
# models were trained on eight GPUs.
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/14_distributed.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/14_distributed.ipynb).
#
# **What you will be able to do**
#
# - say what several processes must exchange so that they learn as one would, and what they need
#   not;
# - weigh the parts of a batch correctly, and show what goes wrong with a plain mean;
# - estimate how long an exchange takes, and start training on two processes or on eight GPUs.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from transformer.data import Batch
from transformer.model import Transformer

# %% [markdown]
# ## The question
#
# A batch takes too long, and a second processor has nothing to do. Give each of them half of the
# sentences, and a copy of the model: this is **data parallelism**. Each computes a loss and
# gradients of its half.
#
# Take the two pairs of the running example. One process gets *there is a cat on the mat*, the other
# *I love you very much*. Is the loss of the batch the mean of the two losses?

# %% tags=["active-ipynb"]
# from transformer.example import after, example_model
# from transformer.training import translation_loss
#
# batch = after(10)
# cat = Batch(batch.src[:1], batch.tgt[:1])
# love = Batch(batch.src[1:], batch.tgt[1:])
#
# torch.manual_seed(0)
# model = Transformer(example_model().config).eval()
# losses = [translation_loss(model, part, 0.0).item() for part in (cat, love)]
# whole = translation_loss(model, batch, 0.0).item()
# print(f"mean of the two {sum(losses) / 2:.3f} · of the batch {whole:.3f}")

# %% [markdown]
# No, because the loss is a mean over *tokens*. The first target has 8 of them and the second 4, so
# the first loss counts for $8/12$ and the second for $4/12$, as in the accumulation of chapter 11:

# %% tags=["active-ipynb"]
# shares = [part.n_tokens / batch.n_tokens for part in (cat, love)]
# weighted = sum(share * loss for share, loss in zip(shares, losses))
# print([round(share, 2) for share in shares], f"weighted {weighted:.3f}")

# %% [markdown]
# ## By hand
#
# The gradient of a weighted sum is the weighted sum of the gradients. So each process scales its
# loss by its share and computes gradients as usual. Then the processes add their gradients up. This
# sum is called **all-reduce**: every process brings a tensor, and every process gets the sum of
# all.
#
# Processes share no memory, so this needs a script that each of them runs. `rank` says which one it
# is, and `world` how many there are. (`gloo` is the library that carries the tensors between CPUs.
# Between GPUs it is NCCL.)

# %% tags=["active-ipynb"]
# by_hand = """
# import torch
# import torch.distributed as dist
# from transformer import Transformer
# from transformer.data import Batch
# from transformer.example import after, example_model
# from transformer.training import translation_loss
#
# dist.init_process_group("gloo")
# rank = dist.get_rank()
#
# torch.manual_seed(0)
# model = Transformer(example_model().config).eval()
# batch = after(10)
# mine = Batch(batch.src[rank::2], batch.tgt[rank::2])
#
# loss = mine.n_tokens / batch.n_tokens * translation_loss(model, mine, 0.0)
# loss.backward()
# for parameter in model.parameters():
#     dist.all_reduce(parameter.grad)
#
# print(f"rank {rank} had {mine.n_tokens} tokens")
# print(*(f"{g:.6f}" for g in model.bias.grad[:8].tolist()))
# dist.destroy_process_group()
# """

# %% [markdown]
# `launch` starts it twice and returns what rank 0 prints. From a terminal the command would be
# `torchrun --nproc-per-node 2 by_hand.py`. Rank 0 has seen one sentence only. Is its gradient that
# of both?

# %% tags=["active-ipynb"]
# from transformer.launching import launch
#
# said, numbers = launch(by_hand).splitlines()
# print(said)
#
# translation_loss(model, batch, 0.0).backward()
# theirs = torch.tensor([float(number) for number in numbers.split()])
# torch.testing.assert_close(theirs, model.bias.grad[:8], atol=2e-6, rtol=0)

# %% [markdown]
# It is, to six decimals. Both processes now have the same gradient, so Adam takes the same step in
# both, and their weights stay equal without ever being sent.

# %% [markdown]
# ## The definition
#
# ### Shards
#
# A process takes every `world`-th row of a batch. The rows are sorted by length (chapter 10), so
# all processes get sentences of similar length, and none waits long for the others.


# %%
def my_share(n_rows: int, rank: int, world: int) -> list[int]:
    """Return the rows of a batch that process `rank` of `world` takes: every `world`-th.

    A process that would have none takes row 0, which then must count for nothing.
    """
    return list(range(rank, n_rows, world)) or [0]


# %% [markdown]
# A `Trainer` weighs each batch by its `n_tokens` (chapter 11), so a shard must answer with those of
# the *whole* batch. What it holds itself is its `share`.


# %%
@dataclass(frozen=True)
class Shard(Batch):
    """One process's rows of a batch.

    `share` is the part of the batch's labels that they hold, and `n_tokens` counts the labels of
    the whole batch, so a `Trainer` weighs a shard as it would the batch. `is_last` says whether it
    is the last batch of a step: gradients are exchanged after that one.
    """

    share: float
    whole: int
    is_last: bool = True

    @property
    def n_tokens(self) -> int:
        """The number of labels in the whole batch that are not padding."""
        return self.whole

    def to(self, device: torch.device | str) -> "Shard":
        """Return the shard on another device."""
        src = self.src.to(device)
        tgt = self.tgt.to(device)
        return Shard(src, tgt, self.share, self.whole, self.is_last)


# %%
def shard(batch: Batch, rank: int, world: int, is_last: bool = True) -> Shard:
    """Return what process `rank` of `world` takes of a batch."""
    rows = my_share(len(batch.src), rank, world)
    mine = Batch(batch.src[rows], batch.tgt[rows])
    share = mine.n_tokens / batch.n_tokens if rank < len(batch.src) else 0.0
    return Shard(mine.src, mine.tgt, share, batch.n_tokens, is_last)


# %% tags=["active-ipynb"]
# mine = [shard(batch, rank, 2) for rank in (0, 1)]
# print("share", [round(part.share, 2) for part in mine], "of", mine[0].n_tokens, "tokens")
# print("three processes:", [round(shard(batch, rank, 3).share, 2) for rank in (0, 1, 2)])

# %% [markdown]
# With more processes than sentences, some have none of their own. They compute a row that does not
# count, because all must take part in every exchange: a process that stays away is waited for, for
# ever.


# %%
def shards(steps: Iterable[Sequence[Batch]], rank: int, world: int) -> Iterator[tuple[Shard, ...]]:
    """Yield what process `rank` of `world` takes of the batches of each step."""
    for batches in steps:
        last = len(batches) - 1
        yield tuple(shard(batch, rank, world, i == last) for i, batch in enumerate(batches))


# %% [markdown]
# ### The loss of all
#
# The by-hand version waits until all gradients are computed, and then sends them. PyTorch's
# `DistributedDataParallel` (DDP) does it better: during the backward pass it sends the gradients of
# the last layers while those of the first are still being computed. It listens to a module's
# parameters, so model and loss become one module:

# %%
Loss = Callable[[Transformer, Batch, float], Tensor]


class LossModule(nn.Module):
    """A model's loss as a module: what DistributedDataParallel calls and listens to.

    It has the model's parameters and not its buffers, which are the same everywhere and need no
    exchange.
    """

    def __init__(self, model: Transformer, loss: Loss):
        super().__init__()
        self.weights = nn.ParameterList(model.parameters())
        self.compute = partial(loss, model)

    def forward(self, batch: Batch, smoothing: float) -> Float[Tensor, ""]:
        return self.compute(batch, smoothing)


# %% [markdown]
# DDP takes the *mean* of the gradients over the processes. We want the sum, so the loss is
# multiplied by their number. Its value is exchanged as well, so that every process returns the loss
# of the whole batch. A loss that is not finite then stops all of them in the same step.


# %%
class DistributedLoss:
    """The loss of whole batches, to which each process adds that of its shard.

    In every process the value is the mean over all tokens of the batch, and its gradient with
    respect to the parameters of `model` is that of the whole batch, so a `Trainer` with this loss
    takes the same steps in all of them. Source: Li et al. 2020, "PyTorch Distributed".
    """

    def __init__(self, model: Transformer, loss: Loss):
        self.model = model
        self.loss = loss
        self.parallel = DistributedDataParallel(LossModule(model, loss))

    def __call__(self, model: Transformer, batch: Batch, smoothing: float) -> Float[Tensor, ""]:
        if not isinstance(batch, Shard):
            raise TypeError("a distributed loss takes shards of batches, not whole batches")
        if model is self.model and torch.is_grad_enabled():
            with nullcontext() if batch.is_last else self.parallel.no_sync():
                mine = batch.share * self.parallel(batch, smoothing)
        else:
            mine = batch.share * self.loss(model, batch, smoothing)
        total = mine.detach().clone()
        dist.all_reduce(total)
        # DDP takes the mean of the gradients; the mean times `world` is the sum.
        return total + dist.get_world_size() * (mine - mine.detach())


# %% [markdown]
# That is all. The trainer of chapter 11 takes it as its `loss` and does not know that it is one of
# several. With accumulated batches, gradients are exchanged after the last one only (`no_sync`).

# %% [markdown]
# ## The proof
#
# Train for ten steps, with two batches a step, on one process and on two. How far apart are the
# losses after ten steps?

# %% tags=["active-ipynb"]
# training = """
# from transformer.data import collate
# from transformer.distributed import DistributedLoss, shards
# from transformer.model import Config, Transformer
# from transformer.ranks import joined
# from transformer.training import Trainer, TrainingConfig, training_batches, translation_loss
# import torch
#
# torch.set_num_threads(1)
# config = TrainingConfig(max_tokens=60, accumulate=2, warmup=5, max_grad_norm=1.0)
# words = [[4 + i % 7] * (1 + i % 5) + [2] for i in range(90)]
# pairs = [(row, [1, *row]) for row in words]
#
# with joined() as ranks:
#     torch.manual_seed(0)
#     model = Transformer(Config.tiny(12, d_model=32, n_layers=1, d_ff=32, dropout=0.0))
#     loss = translation_loss
#     steps = training_batches(pairs, config)
#     if ranks.world > 1:
#         loss = DistributedLoss(model, loss)
#         steps = shards(steps, ranks.rank, ranks.world)
#     trainer = Trainer(model, config, loss)
#     losses = [trainer.step(*next(steps)) for _ in range(10)]
#     print(*losses)
# """
# one, two = (
#     torch.tensor([float(loss) for loss in launch(training, world).split()]) for world in (1, 2)
# )
# torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
# assert one[-1] < one[0]
# print("steps:", len(two), "· equal to 1e-4, and the loss falls")

# %% [markdown]
# Equal, up to rounding: sums in another order differ in the last digits. (Dropout is off here. With
# dropout, each process draws masks of its own, and two runs differ as two seeds do.)
#
# ### The check
#
# The check looks for the usual mistakes: the same share for every process, which is a mean of
# means, rows that no process takes, and a count of the shard's own tokens.

# %% tags=["active-ipynb"]
# from transformer.checks import check_shard
#
# check_shard(shard)

# %% [markdown]
# ## The look
#
# What does an exchange cost? If every process sent its gradients to rank 0, that one would receive
# $W - 1$ times all of them, and the time would grow with the number $W$ of processes.
#
# In a **ring all-reduce** each process cuts its gradients into $W$ pieces. In $W - 1$ rounds every
# process hands one piece to its neighbour, which adds its own; then each piece is complete
# somewhere, and in $W - 1$ more rounds the sums go around. Each process sends $2\,(W-1)/W$ times
# its gradients. How does that grow?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# megabytes = 4 * 65  # the paper's base model: 65 million gradients of 4 bytes
# worlds = range(2, 17)
# plot_lines(
#     {
#         "all to rank 0": [megabytes * (w - 1) for w in worlds],
#         "ring": [megabytes * 2 * (w - 1) / w for w in worlds],
#     },
#     x=worlds,
#     xlabel="processes",
#     ylabel="megabytes through the busiest link",
#     title="Exchanging the gradients of the base model",
# )

# %% [markdown]
# Hardly at all: never more than twice the gradients, however many processes there are. So the
# exchange takes the same time on 2 and on 16 machines, and what counts is the link:

# %% tags=["active-ipynb"]
# links = {"1 Gbit/s Ethernet": 0.125, "100 Gbit/s Ethernet": 12.5, "between GPUs (NVLink)": 450}
# for name, speed in links.items():
#     print(f"{name:22}{1000 * 2 * 0.26 / speed:8.1f} ms")

# %% [markdown]
# The paper's base model took 400 ms a step on eight GPUs, with batches of 25,000 tokens. Over slow
# Ethernet the exchange would take ten times as long as the step. Larger batches help, and so does
# `accumulate`: both do more work for each exchange, because a gradient is as large for ten
# sentences as for a thousand.

# %% [markdown]
# ## What if
#
# What if the processes exchange less? Two copies of a small model learn to write four digits
# backwards, each from batches of its own, and instead of gradients they average their weights:
# after every step, or only when we look at them. Either way they see the same batches and start
# from the same weights.

# %% tags=["active-ipynb"]
# from transformer.model import Config
# from transformer.training import Trainer, TrainingConfig
#
# torch.set_num_threads(1)
#
#
# def backwards(n, generator):
#     digits = torch.randint(3, 13, (n, 4), generator=generator)
#     start, end = (torch.full((n, 1), special) for special in (1, 2))
#     return Batch(digits, torch.cat([start, digits.flip(1), end], dim=1))
#
#
# def mean_weights(*models):
#     parts = zip(*(model.state_dict().values() for model in models))
#     return dict(zip(models[0].state_dict(), [sum(part) / len(models) for part in parts]))
#
#
# def share_right(exchange, seed):
#     config = TrainingConfig(warmup=30, peak_lr=8e-3, label_smoothing=0.0)
#     trainers = []
#     for _ in range(2):
#         torch.manual_seed(seed)
#         sizes = dict(d_model=32, n_heads=1, n_layers=1, d_ff=64, dropout=0.0)
#         trainers.append(Trainer(Transformer(Config(13, **sizes)), config))
#     both = [trainer.model for trainer in trainers]
#     generators = [torch.Generator().manual_seed(10 * seed + i) for i in range(2)]
#     new = backwards(200, torch.Generator().manual_seed(99))
#     together = Transformer(both[0].config).eval()
#     curve = []
#     for step in range(1, 111):
#         for trainer, generator in zip(trainers, generators):
#             trainer.step(backwards(16, generator))
#         mean = mean_weights(*both)
#         if exchange:
#             for each in both:
#                 each.load_state_dict(mean)
#         if step % 10 == 0:
#             together.load_state_dict(mean)
#             guesses = together(new.src, new.decoder_input).argmax(-1)
#             curve.append((guesses == new.labels).float().mean())
#     return torch.stack(curve)

# %% [markdown]
# Averaging the weights of both after every step is nearly the same as averaging gradients. Will the
# mean of two models that never met be as good?

# %% tags=["active-ipynb"]
# curves = {
#     name: torch.stack([share_right(exchange, seed) for seed in range(3)])
#     for name, exchange in {"after every step": True, "never": False}.items()
# }
# assert curves["after every step"][:, -1].min() > 0.93
# assert curves["after every step"][:, -1].mean() > curves["never"][:, -1].mean()
# means = {name: runs.mean(0) for name, runs in curves.items()}
# plot_lines(means, x=range(10, 111, 10), xlabel="step", ylabel="share of tokens right")

# %% [markdown]
# It learns more slowly. Each copy sees half of the sentences and follows noisier gradients, and two
# models that have gone separate ways need not be good in the middle. Here they have not gone far,
# and the difference is small; between the two extremes, exchanging every few steps (*local SGD*) is
# what people do when machines are far apart.

# %% [markdown]
# ## On your machine
#
# `train` does all of this when torchrun starts it. `--max-tokens` and `--accumulate` describe the
# batch of *all* processes, so a run learns the same on any number of them and can be resumed on
# another number. Rank 0 writes the checkpoints.
#
# ```
# torchrun --nproc-per-node 2 -m transformer train --corpus multi30k --out runs/en-de
# torchrun --nproc-per-node 2 --max-restarts 3 -m transformer train …  # lost processes are replaced
# torchrun --nproc-per-node 2 -m transformer translate --model runs/en-de < sentences.txt
# ```

# %% [markdown]
# ## Summary
#
# Each process computes the gradients of its rows, scaled by their share of the tokens, and the sum
# of all gradients is that of the whole batch. Equal gradients keep equal weights equal, so only
# gradients are exchanged: at most twice their size through each link, however many processes there
# are.
#
# **Write it from memory**: close the chapter and write `shard`; `check_shard(shard)` says whether
# it is right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | eight P100 GPUs in one machine ([section 5.2](https://arxiv.org/abs/1706.03762)) | any number of processes, on CPUs or GPUs | the same code: gloo or NCCL |
# | about 25,000 source and as many target tokens a batch, over all GPUs (section 5.1) | `max_tokens` of all processes together | the same steps on any number of them |
# | does not say how gradients are exchanged | all-reduce of sums, weighted by tokens | equal to one process with the whole batch |
#
# In the running example the two targets have 8 and 4 tokens, and shares of 0.67 and 0.33. Chapters
# [15](15_fast_training.ipynb) and [16](16_fast_decoding.ipynb) make each single process faster.
