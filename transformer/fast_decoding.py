# %% [markdown]
r"""
# 16 · Fast decoding

**The same translations, sooner: hypotheses share a cache, cross-attention does without queries,
steps run without Python. Optional, and for engineers.**

![The architecture; the decoder and the way on which each new token goes back into it are lit](../figures/architecture_16.svg)
"""

# %% [markdown]
# **What you need**: [chapter 12](12_inference.ipynb), for its searches and its KV cache;
# [chapter 15](15_fast_training.ipynb), for the way to measure. About 45 minutes. The paper does not
# mention it.
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/16_fast_decoding.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/16_fast_decoding.ipynb).
#
# **What you will be able to do**
#
# - say what a decoding step costs beside its arithmetic: calls, Python and copies;
# - let hypotheses share a cache under an ancestor mask, and prove that every search finds the same;
# - multiply matrices that do not change once, and say when that pays.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
# Submodules have no types of their own in PyTorch.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportOptionalMemberAccess=false
import copy
import math
from collections.abc import Iterable
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer.cpu.layers import PackedDecoderLayer, PackedEncoder, norm_in_float32
from transformer.cpu.packing import PackedLinear, in_float32
from transformer.cpu.topk import blockwise_topk
from transformer.cpu.tracing import TraceCache
from transformer.inference import TokenDecoder
from transformer.model import Transformer

# %% [markdown]
# ## The question
#
# Chapter 12's decoder with its cache computes each position once. Is there anything left to save?
# Take one step for a single sentence, with the small model of chapter 15, and count: how many
# multiplications does it make, and how many operators of PyTorch does it call?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from torch.utils._python_dispatch import TorchDispatchMode
# from torch.utils.flop_counter import FlopCounterMode
#
# from transformer.inference import IncrementalDecoder, beam_search, greedy_search
# from transformer.model import Config
#
# torch.set_num_threads(1)
# torch.set_grad_enabled(False)
# torch.manual_seed(0)
# model = Transformer(Config.tiny(10_000)).eval()
# src = torch.randint(3, 10_000, (32, 16))
#
#
# class Calls(TorchDispatchMode):
#     """Count the operators that are called."""
#
#     count = 0
#
#     def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
#         self.count += 1
#         return operator(*args, **(kwargs or {}))
#
#
# decoder = IncrementalDecoder(model, src[:1])
# with FlopCounterMode(display=False) as counter, Calls() as calls:
#     decoder.step(torch.tensor([1]))
# multiplications = counter.get_total_flops() // 2  # a multiplication and an addition
# print(f"{multiplications:,} multiplications by {calls.count} operators")
# assert calls.count > 200

# %% [markdown]
# How long should this take? Measure how fast the core multiplies large matrices, and how long the
# smallest operator takes: an addition of two numbers. What will the step itself take, compared with
# its arithmetic? (`race` is chapter 15's.)

# %% tags=["active-ipynb", "nbval-ignore-output"]
# import time
#
#
# def race(candidates, rounds=3, repeats=1):
#     """Return the shortest time of each candidate, in microseconds; they take turns."""
#     times = {name: [] for name in candidates}
#     for turn in range(rounds + 1):
#         for name, run in candidates.items():
#             start = time.process_time()
#             for _ in range(repeats):
#                 run()
#             if turn:  # the first turn warms up
#                 times[name].append(1e6 * (time.process_time() - start) / repeats)
#     return {name: min(each) for name, each in times.items()}
#
#
# large, weight, number = torch.randn(512, 512), torch.randn(2048, 512), torch.ones(1)
# pieces = {
#     "product": lambda: F.linear(large, weight),
#     "call": lambda: number + number,
#     "step": lambda: decoder.step(torch.tensor([1])),
# }
# times = race(pieces, repeats=20)
# arithmetic = multiplications / (large.numel() * len(weight) / times["product"])
# print(f"arithmetic {arithmetic:.0f} µs · calls {calls.count} × {times['call']:.1f} µs", end=" ")
# print(f"= {calls.count * times['call']:.0f} µs · the step {times['step']:.0f} µs")

# %% tags=["active-ipynb"]
#

# %% [markdown]
# The arithmetic is a few hundredths of the step, or less. The rest is *overhead*: each operator is
# called, and around each call there is Python (modules, einops, views), however little is computed.
# With many sentences the arithmetic weighs more, and other costs appear: a beam search copies its
# cache at every step, and looks for the best few extensions among `beam · vocab`.

# %% [markdown]
# ## By hand
#
# ### Who descends from whom
#
# In beam search (chapter 12) hypotheses change places, and the cache must follow: at every step all
# keys and values are copied. But a key, once written, never changes. What changes is only **whose
# past it belongs to**:
#
# ![Copying a cache when hypotheses change places, and a mask that says which of the cells are one's own past](../figures/16_ancestors.svg)

# %% [markdown]
# So leave the keys where they are. Every hypothesis attends to *all* of them, under an **ancestor
# mask** that hides the cells of the others. When hypotheses change places, only rows of the mask
# change places. Two hypotheses, three steps; in the third, both descend from hypothesis 1. Which
# columns will be empty at the end?

# %% tags=["active-ipynb"]
# mask = torch.eye(2, dtype=torch.int)  # step 1: each sees the cell that it wrote
# mask = torch.cat([mask, torch.eye(2, dtype=torch.int)], dim=1)  # step 2: and the next one
# print(mask, "\n")
#
# mask = mask[[1, 1]]  # both descend from hypothesis 1
# mask = torch.cat([mask, torch.eye(2, dtype=torch.int)], dim=1)
# print(mask)

# %% [markdown]
# Six cells were written and none was moved. Columns 0 and 2 belong to nobody any more.
#
# ### Cross-attention without queries
#
# A source does not change while it is translated. Its keys are multiplied by $x W_q$ at every step.
# So multiply them by $W_q$ once, and its values by $W_o$. For one head, with $W_q$ and $W_o$ cut to
# that head, and $w$ for the weights:
#
# $$(x W_q) K^\top = x\,(W_q K^\top) \qquad (w V)\,W_o = w\,(V W_o)$$

# %% tags=["active-ipynb"]
# x, w_q, keys = torch.randn(1, 6), torch.randn(6, 2), torch.randn(3, 2)
# absorbed = w_q @ keys.T  # once a sentence
#
# torch.testing.assert_close(x @ absorbed, (x @ w_q) @ keys.T)
# print(
#     "keys",
#     keys.numel(),
#     "numbers · absorbed",
#     absorbed.numel(),
#     "· x @ absorbed",
#     *x.shape,
#     *absorbed.shape,
# )

# %% [markdown]
# A step then needs two products in place of four. (DeepSeek-V2 absorbs matrices in the same way.)
# The absorbed matrices have `d_model` rows where the keys of a head have `d_head`, so with 4 heads
# they are 4 times as large, and every sentence has its own. This pays for a few sentences, not for
# a batch.

# %% [markdown]
# ### The largest of many
#
# A search wants the largest few of 10,000 numbers. Cut the row into fifty blocks. The largest
# number of each is found in one quick pass, and **the ten largest numbers lie in the ten blocks
# whose largest numbers are the largest**. (Any other block has ten numbers above all of its own.)
# So only ten blocks have to be looked through. Nine numbers in three blocks; in which two blocks
# are the two largest?

# %% tags=["active-ipynb"]
# x = torch.tensor([3, 9, 1, 4, 8, 7, 2, 6, 5.0])
# blocks = rearrange(x, "(block size) -> block size", block=3)
# largest = blocks.amax(1)
# print(blocks.numpy())
# print(*largest.tolist(), "→ the two largest are in blocks", largest.topk(2).indices.tolist())

# %% [markdown]
# ## The definition
#
# ### Absorbed cross-attention
#
# As by hand, for all layers and heads at once. The bias of $W_q$ becomes a score for each key, to
# which the mask is added. The bias of $W_o$ is divided among the heads; a head's weights sum to 1,
# so it can be added to every value.


# %%
class AbsorbedCrossAttention(nn.Module):
    """The weights of cross-attention in all layers, ready for a source's keys and values."""

    def __init__(self, layers: Iterable[nn.Module]):
        super().__init__()
        cross = [layer.cross_attention for layer in layers]
        h = cross[0].n_heads
        d = cross[0].w_q.out_features // h
        query = torch.stack(
            [torch.cat([each.w_q.weight, each.w_q.bias.unsqueeze(1)], dim=1) for each in cross]
        )
        query = in_float32(query.detach() / math.sqrt(d))
        out = in_float32(torch.stack([each.w_o.weight for each in cross]).detach())
        bias = in_float32(torch.stack([each.w_o.bias for each in cross]).detach() / h)
        query = rearrange(query, "... (h d_head) d_model -> ... 1 h d_model d_head", h=h)
        out = rearrange(out, "... d_model (h d_head) -> ... 1 h d_head d_model", h=h)
        self.register_buffer("query", query.contiguous())
        self.register_buffer("out", out.contiguous())
        self.register_buffer("bias", rearrange(bias, "... d_model -> ... 1 1 1 d_model"))

    def forward(self, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return, for each layer, the matrices from a state to scores and to output, and a bias.

        Keys and values are `layers b h k d_head`; the heads of a result lie side by side.
        """
        scores = self.query @ k.mT
        to_scores = scores[:, :, :, :-1].transpose(2, 3).flatten(3)
        bias = (scores[:, :, :, -1:] + mask).transpose(2, 3).flatten(3)
        to_output = (v @ self.out + self.bias).flatten(2, 3)
        return to_scores, to_output, bias


# %% [markdown]
# ### Two functions of tensors
#
# Reading sources and making a step are written as functions of nothing but tensors. The sequence of
# their operators is then the same in every call, and can be **traced** once and run without Python
# (`transformer/cpu/tracing.py`). The layers are those of chapters 7 and 8 in as few products as
# possible, with weights stored as they are read fastest (`transformer/cpu/layers.py`).
#
# The sequence depends only on whether there are few rows and whether cross-attention is absorbed,
# so each of these cases is traced once. The numbers of sentences, hypotheses and positions are
# free.


# %%
class PackedSource(nn.Module):
    """Read sources, and return what every step needs of them."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.few_rows = False
        self.absorbed = False
        self.encoder = PackedEncoder(model)
        self.absorb = AbsorbedCrossAttention(model.decoder.layers)

    def forward(
        self, x: Float[Tensor, "b t d_model"], mask: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, values and mask, or the absorbed matrices and bias.

        `mask`, b 1 1 k with k ≥ t, is added to scores; `real`, b 1 t 1, is 0 at padding. Values
        of padding are 0, so that a source of nothing but padding gives 0, as in chapter 3.
        """
        keys, values = self.encoder(x, mask, self.few_rows)
        spare = (0, 0, 0, mask.shape[3] - x.shape[1])
        keys = F.pad(keys, spare)
        values = F.pad(values * real, spare)
        if self.absorbed:
            return self.absorb(keys, values, mask)
        heads = mask.expand(-1, keys.shape[2], -1, -1)
        return keys, values, heads.unsqueeze(0)


# %%
class PackedStep(nn.Module):
    """Read one more token in every row, and return the logits of the next."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.few_rows = False
        self.absorbed = False
        pre_norm = model.config.norm == "pre"
        layers = model.decoder.layers
        self.layers = nn.ModuleList(PackedDecoderLayer(layer, pre_norm) for layer in layers)
        self.norm = norm_in_float32(model.decoder.norm)
        self.scale = math.sqrt(model.config.d_model)
        self.output = PackedLinear(model.embedding.weight, model.bias)
        self.register_buffer("table", model.embedding.weight.detach())

    def forward(
        self,
        ids: Tensor,
        position: Tensor,
        cells: Tensor,
        kv: Tensor,
        ancestor_mask: Tensor,
        *source: Tensor,
    ) -> Tensor:
        """Read `ids` at a position, and write keys and values into `cells`, a part of `kv`."""
        x = torch.add(position, in_float32(F.embedding(ids, self.table)), alpha=self.scale)
        heads = self.layers[0].n_heads
        mask = ancestor_mask.unsqueeze(1).expand(-1, heads, -1, -1).flatten(0, 1)
        sources = self.by_layer(source, ancestor_mask.shape[1])
        for layer, mine, past, inputs in zip(
            self.layers, cells.unbind(), kv.unbind(), sources, strict=True
        ):
            k, v = past.flatten(1, 2).unbind()
            x = layer.residual(0, x, layer.masked_self_attention, self.few_rows, mine, k, v, mask)
            cross = layer.absorbed_cross_attention if self.absorbed else layer.cross_attention
            x = layer.residual(1, x, cross, self.few_rows, *inputs)
            x = layer.residual(2, x, layer.feed_forward, self.few_rows)
        return in_float32(self.output(self.norm(x), self.few_rows))

    def by_layer(self, source: tuple[Tensor, ...], n: int | Tensor) -> list[tuple]:
        """Return what each layer needs of the source."""
        if self.absorbed:
            return list(zip(*(part.unbind() for part in source), strict=True))
        keys, values, mask = (part.flatten(1, 2) for part in source)
        return [(k, v, mask[0], n) for k, v in zip(keys.unbind(), values.unbind(), strict=True)]


# %% [markdown]
# `PackedDecoder` holds both for one model, in all their cases. It is called with the model and
# sources, like the decoders of chapter 12, and so it is passed to their searches:
# `beam_search(model, src, decoder=PackedDecoder(model))`.


# %%
FEW_PRODUCTS = 2**19  # below so many products in a square weight, few_rows pays
FEW_SENTENCES = 4  # up to so many, absorbed cross-attention pays


class PackedDecoder:
    """A model's weights, packed for decoding; call it with the model and sources to begin.

    The weights are copies: make a new one after more training. A step is traced after
    `warmup_calls` calls, since a trace takes a tenth of a second to make.
    """

    @torch.no_grad()
    def __init__(self, model: Transformer, warmup_calls: int = 40):
        self.model = model
        self.traces = TraceCache(warmup_calls)
        self.parts = {
            (name, few_rows, absorbed): self.variant(part, few_rows, absorbed)
            for name, part in {"encode": PackedSource(model), "step": PackedStep(model)}.items()
            for few_rows, absorbed in product((False, True), repeat=2)
        }

    @staticmethod
    def variant(whole: nn.Module, few_rows: bool, absorbed: bool) -> nn.Module:
        """Return a part on the same weights, for few rows or many, absorbed or not."""
        part = copy.copy(whole)
        part.few_rows = few_rows
        part.absorbed = absorbed
        return part

    def __call__(self, model: Transformer, src: Int[Tensor, "b k"]) -> "StaticDecoder":
        """Read the sources and return what decodes them; ValueError for another model."""
        if model is not self.model:
            raise ValueError("these weights were packed for another model")
        if torch.is_grad_enabled():
            raise RuntimeError("packed weights have no gradient: decode under torch.no_grad()")
        return StaticDecoder(self, src)

    def run(self, name: str, rows: int, absorbed: bool, *inputs: Tensor) -> Any:
        """Run "encode" or "step" on so many rows of states."""
        products = rows * self.model.config.d_model**2
        half = self.model.bias.dtype == torch.bfloat16  # FBGEMM is faster up to more rows
        key = (name, products < (3 if half else 1) * FEW_PRODUCTS, absorbed)
        return self.traces.run(key, self.parts[key], *inputs)


# %% [markdown]
# ### One cache that stays where it is
#
# The cache is one block of memory. A step writes its keys and values into the next cells. They lie
# in the order in which attention reads them, without gaps, because a processor fetches ahead as
# long as memory is read in a row. So there is room for a few registers full of keys at a time, not
# for the longest sentence; when more room is made, cells that no hypothesis descends from are left
# behind.
#
# Masks are numbers to be added to scores: 0, or $-\infty$ for the cells of others and for those
# that are not written yet.


# %%
LANES = 16  # float32 numbers in a vector register
ROUNDED = 4  # lengths of sources are rounded up to a multiple of this


class StaticCache:
    """Keys and values of n hypotheses for each sentence, which stay where they were written.

    `kv` is `layers 2 b h k d_head`. The hypotheses of a sentence attend to all that any of them
    wrote; `ancestor_mask`, b beam k, hides what is not from their own past.
    """

    def __init__(self, kv: Tensor, n: int):
        self.kv = kv
        self.ancestor_mask = kv.new_full((kv.shape[2], n, kv.shape[4]), -math.inf)
        self.written = 0

    def next_cells(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cells for the next position, all cells, and the mask that shows them."""
        n = self.ancestor_mask.shape[1]
        if self.written + n > self.ancestor_mask.shape[2]:
            self.make_room(max(4 * n, LANES))
        here = slice(self.written, self.written + n)
        self.ancestor_mask[:, :, here].diagonal(dim1=1, dim2=2).zero_()
        self.written += n
        return self.kv[:, :, :, :, here], self.kv, self.ancestor_mask

    def make_room(self, cells: int) -> None:
        """Drop cells without descendants, and make room for so many more, up to a register."""
        *outer, size, _ = self.kv.shape
        alive = self.ancestor_mask.isfinite().any(1)
        self.written = int(alive.sum(1).max())
        spare = cells + -(self.written + cells) % LANES
        kept = alive.int().sort(dim=1, descending=True, stable=True).indices[:, : self.written]
        kept = F.pad(kept, (0, spare))  # spare cells repeat the first one, and are hidden
        self.ancestor_mask = self.ancestor_mask.gather(
            2, repeat(kept, "b k -> b beam k", beam=self.ancestor_mask.shape[1])
        )
        self.ancestor_mask[:, :, self.written :] = -math.inf
        first = size * torch.arange(math.prod(outer), device=kept.device)
        cells_kept = first.unflatten(0, outer).unsqueeze(-1) + kept.unsqueeze(1)
        kv = self.kv.flatten(0, -2).index_select(0, cells_kept.flatten())
        self.kv = kv.unflatten(0, (*outer, -1))

    def reorder(self, rows: Int[Tensor, "b beam"]) -> None:
        """Continue with these rows: the mask moves, and keys and values stay."""
        mask = self.ancestor_mask.flatten(0, 1)
        self.ancestor_mask = mask[rows.flatten()].unflatten(0, rows.shape)


# %% [markdown]
# The decoder that the searches use. Besides `step` and `reorder` it brings a faster `argmax` and
# `best_extensions`, by blocks as above (`transformer/cpu/topk.py`).


# %%
class StaticDecoder(TokenDecoder):
    """Chapter 12's `IncrementalDecoder` with packed weights and a static cache."""

    def __init__(self, packed: PackedDecoder, src: Int[Tensor, "b k"]):
        model = packed.model
        pad_id = model.config.pad_id
        # oneDNN keeps code for every shape that it has met, so lengths are rounded up a little.
        extra = -src.shape[1] % ROUNDED
        x = F.pad(in_float32(model.positions(model.embedding(src))), (0, 0, 0, extra))
        src = F.pad(src, (0, extra), value=pad_id)
        padding = rearrange(src == pad_id, "b t -> b 1 1 t")
        padding = F.pad(padding, (0, -src.shape[1] % LANES), value=True)
        mask = torch.zeros_like(padding, dtype=x.dtype)
        mask.masked_fill_(padding, torch.finfo(x.dtype).min)
        real = rearrange(src != pad_id, "b t -> b 1 t 1").to(x.dtype)
        self.packed = packed
        self.position = 0
        self.absorbed = len(src) <= FEW_SENTENCES
        self.source = packed.run("encode", src.numel(), self.absorbed, x, mask, real)
        self.cache: StaticCache | None = None
        h = model.config.n_heads
        d = model.config.d_model // h
        self.empty = x.new_zeros(model.config.n_layers, 2, len(src), h, LANES, d)

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b vocab"]:
        if self.cache is None:
            self.cache = StaticCache(self.empty, len(ids) // self.empty.shape[2])
        position = self.packed.model.positions.table[self.position]
        self.position += 1
        inputs = (ids, position, *self.cache.next_cells(), *self.source)
        return self.packed.run("step", len(ids), self.absorbed, *inputs)

    def reorder(self, rows: Int[Tensor, "b beam"]) -> None:
        sentences = rows[:, 0] // self.cache.ancestor_mask.shape[1]
        if not sentences.equal(torch.arange(self.source[0].shape[1], device=rows.device)):
            self.source = tuple(part[:, sentences] for part in self.source)
            self.cache.kv = self.cache.kv[:, :, sentences]
        self.cache.reorder(rows)

    def argmax(self, logits: Float[Tensor, "b vocab"]) -> Int[Tensor, " b"]:
        return blockwise_topk(logits, 1)[1].squeeze(-1) if len(logits) > 3 else logits.argmax(-1)

    def best_extensions(self, log_probs: Tensor, scores: Float[Tensor, "b beam"], k: int) -> tuple:
        b, n = scores.shape
        v = log_probs.shape[1]
        best, index = blockwise_topk(log_probs, min(k, n * v), scores)
        first_row = rearrange(n * torch.arange(b, device=index.device), "b -> b 1")
        return best, first_row + index // v, index % v


# %% [markdown]
# ## The proof
#
# ### The running example
#
# Both sentences, by greedy search and with a beam of five. The translations are `after(12)`:

# %% tags=["active-ipynb"]
# from transformer.data import decode
# from transformer.example import after, example_model, example_tokenizer
#
# example = example_model()
# packed = PackedDecoder(example)
# pairs = after(10)
# for ids in (
#     greedy_search(example, pairs.src, decoder=packed),
#     beam_search(example, pairs.src, beam_size=5, decoder=packed)[0],
# ):
#     translations = decode(example_tokenizer(), ids.tolist())
#     assert translations == after(12)
#     print(*translations, sep=" · ")

# %% [markdown]
# ### The check
#
# **The packed decoder computes what the plain one computes**, at every step, with hypotheses that
# change places and sentences that leave. The check is that of chapter 12:

# %% tags=["active-ipynb"]
# from transformer.checks import check_incremental
#
# check_incremental(lambda model, src: PackedDecoder(model)(model, src))

# %% [markdown]
# **Every search finds the same**, token by token. The running example is certain of its words, so
# here is a model that is not:

# %% tags=["active-ipynb"]
# from transformer.checks.fixtures import decoding_model
#
# lively = decoding_model("cpu")
# sources = torch.randint(3, 9, (20, 7))
# packed = PackedDecoder(lively)
# assert greedy_search(lively, sources, 20, packed).equal(greedy_search(lively, sources, 20))
# for beam_size in (2, 5):
#     found = beam_search(lively, sources, beam_size, max_len=20, decoder=packed)
#     want = beam_search(lively, sources, beam_size, max_len=20)
#     assert found[0].equal(want[0])
#     torch.testing.assert_close(found[1], want[1])
# print("20 sentences,", *found[0].shape, "tokens: the same")

# %% [markdown]
# That holds in float32. With weights in bfloat16 (`precision="bf16"`) the logits are others, so now
# and then a translation is, too: `benchmarks.quality` compares the scores.
#
# **The largest of many** are the largest:

# %% tags=["active-ipynb"]
# rows = torch.randn(60, 10_000)
# offsets = torch.randn(12, 5)
# assert blockwise_topk(rows, 10)[1].equal(rows.topk(10).indices)
#
# sums = rearrange(rows, "(b beam) vocab -> b beam vocab", b=12) + offsets.unsqueeze(-1)
# want = rearrange(sums, "b beam vocab -> b (beam vocab)").topk(10).indices
# assert blockwise_topk(rows, 10, offsets)[1].equal(want)
# print("60 rows of 10,000, and 12 groups of five rows: the same indices")

# %% [markdown]
# ## The look
#
# ### One change after the other
#
# Twenty tokens for each sentence, on one thread. Each bar has the changes to its left:
#
# - **cache**: chapter 12's decoder, measured twice to see the noise;
# - **packed**: packed layers (fewer products, no einops) on the cache that stays;
# - **blocks**: the most probable token is found by blocks, from 4 rows on;
# - **absorbed**: cross-attention without queries, up to 4 sentences;
# - **traced**: the same step without Python.
#
# Which bar will be the highest step for one sentence, and which for 32?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.inference import RecomputingDecoder
# from transformer.plotting import plot_bars, plot_lines
#
# model.bias[[0, 1, 2]] = -1e9  # no sentence ends early
#
#
# class NotAbsorbed(PackedDecoder):
#     def run(self, name, rows, absorbed, *inputs):
#         return super().run(name, rows, False, *inputs)
#
#
# class NoBlocks(NotAbsorbed):
#     def __call__(self, model, src):
#         decoder = super().__call__(model, src)
#         decoder.argmax = lambda logits: logits.argmax(-1)
#         return decoder
#
#
# never = 10**9  # calls before a step is traced
# ways = {
#     "no cache": RecomputingDecoder,
#     "+ cache": IncrementalDecoder,
#     "cache\nagain": IncrementalDecoder,
#     "+ packed": NoBlocks(model, never),
#     "+ blocks": NotAbsorbed(model, never),
#     "+ absorbed": PackedDecoder(model, never),
#     "+ traced": PackedDecoder(model, 0),
# }
#
#
# def climb(src, without, title):
#     """Search in several ways, which find the same, and plot how fast they are."""
#     chosen = {name: way for name, way in ways.items() if name != without}
#     first, *others = [greedy_search(model, src, 20, way) for way in chosen.values()]
#     assert all(other.equal(first) for other in others)
#     runs = {
#         name: lambda way=way: greedy_search(model, src, 20, way) for name, way in chosen.items()
#     }
#     times = race(runs, rounds=2)
#     speeds = {name: round(1e6 * len(src) * 20 / spent) for name, spent in times.items()}
#     plot_bars(speeds, ylabel="tokens a second", title=title)
#     return speeds
#
#
# one = climb(src[:1], "+ blocks", "One sentence, greedy search")

# %% tags=["active-ipynb", "nbval-ignore-output"]
# many = climb(src, "+ absorbed", "32 sentences, greedy search")

# %% tags=["active-ipynb"]
# assert one["+ traced"] > 1.5 * one["+ cache"] and many["+ cache"] > 1.5 * many["no cache"]

# %% [markdown]
# For one sentence the step that counts is the one without Python. Packing and absorbing remove a
# quarter of the calls, but on this processor they gain little more than the noise. For 32 it is the
# cache: the arithmetic is nearly the same in all bars after it, and 32 rows share each call.
#
# One more step is not in the decoder. On two cores, the PyTorch engine of the package
# (`transformer/engines`) gives each core sentences of its own, with one thread, instead of letting
# two threads share every small operator. Traces make these workers independent: only one thread at
# a time can run Python.

# %% [markdown]
# ### Copying or masking
#
# What does it take to let five hypotheses of 32 sentences change places, when they have written $t$
# tokens? Both caches, the same rows; only `reorder` is timed. Which of the curves grows?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# first_rows = repeat(torch.arange(32), "b -> b beam", beam=5)
# shuffled = repeat(5 * torch.arange(32), "b -> b beam", beam=5) + torch.tensor([2, 0, 0, 1, 4])
# caches = {
#     "copied": IncrementalDecoder(model, src),
#     "masked": PackedDecoder(model, never)(model, src),
# }
# lengths = (1, 10, 20, 30, 40)
# curves = {name: [] for name in caches}
# for name, decoder in caches.items():
#     decoder.step(torch.full((32,), 1))
#     decoder.reorder(first_rows)
#     for t in range(1, lengths[-1] + 1):
#         decoder.step(torch.full((160,), 5))
#         if t in lengths:
#             curves[name].append(
#                 race({"": lambda: decoder.reorder(shuffled)}, repeats=3)[""] / 1_000
#             )
# plot_lines(
#     curves, x=lengths, xlabel="tokens written", ylabel="ms", title="Hypotheses change places"
# )

# %% tags=["active-ipynb"]
# assert curves["copied"][-1] > 5 * curves["masked"][-1]
# copied = sum(part.numel() for cache in caches["copied"].caches for part in cache.target)
# mask = caches["masked"].cache.ancestor_mask
# print(f"copied: {copied:,} numbers · the mask has {mask.numel():,}")

# %% [markdown]
# And the price: a query meets the keys of all hypotheses of its sentence, up to five times as many
# as its own. But these are the same keys that five copies would hold, and each is read once for all
# five queries. So more is multiplied, not more is read.
#
# In a whole beam search the copies are one cost among many. Again one change after the other:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# class PlainExtensions(NotAbsorbed):
#     def __call__(self, model, src):
#         decoder = super().__call__(model, src)
#         decoder.best_extensions = lambda *inputs: TokenDecoder.best_extensions(decoder, *inputs)
#         return decoder
#
#
# beams = {
#     "cache": IncrementalDecoder,
#     "cache\nagain": IncrementalDecoder,
#     "+ packed": PlainExtensions(model, never),
#     "+ blocks": ways["+ blocks"],
#     "+ traced": ways["+ traced"],
# }
# runs = {
#     name: lambda way=way: beam_search(model, src[:16], 5, max_len=20, decoder=way)
#     for name, way in beams.items()
# }
# times = race(runs, rounds=2)
# plot_bars(
#     {name: round(1e6 * 16 * 20 / spent) for name, spent in times.items()},
#     ylabel="tokens a second",
#     title="16 sentences, beam of five",
# )

# %% [markdown]
# In the stored plot only the trace gains more than the noise. With 20 tokens the copies are a small
# part of a step; by the curve above, their part grows with the length.
#
# ### The price of a call
#
# The time of one product with a 128 × 128 weight. From 1 row to 32 there are 32 times as many
# multiplications. How many times the time?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# layer = torch.nn.Linear(128, 128)
# counts = (1, 2, 4, 8, 16, 32, 64, 128)
# inputs = {n: torch.randn(n, 128) for n in counts}
# products = {n: lambda n=n: layer(inputs[n]) for n in counts}
# times = race(products, repeats=200)
# print(f"32 rows take {times[32] / times[1]:.1f} times as long as one")
# plot_lines(
#     {"F.linear": list(times.values())}, x=counts, xlabel="rows", ylabel="µs", title="One product"
# )

# %% [markdown]
# Up to some tens of rows the call weighs as much as the arithmetic, so a second sentence, or a
# second hypothesis, costs little.

# %% [markdown]
# ## What if
#
# What if the ancestor mask is left out, so that every hypothesis attends to the cells of all? And
# what if it is there, but its rows stay when hypotheses change places, the mistake that chapter 12
# warned of? The model of the running example translates three times 100 sentences that it has not
# seen. How many will be right with a beam of 2, and of 5?


# %% tags=["active-ipynb"]
# from transformer.corpora import english_italian
# from transformer.data import encode, pad
# from transformer.metrics import exact_match
#
#
# class RowsStay(StaticCache):
#     def reorder(self, rows):
#         n = self.ancestor_mask.shape[1]
#         own = rows[:, :1] // n * n + torch.arange(rows.shape[1]).clamp(max=n - 1)
#         super().reorder(own)
#
#
# class NoMask(StaticCache):
#     def next_cells(self):
#         cells, kv, mask = super().next_cells()
#         return cells, kv, torch.where(torch.arange(mask.shape[2]) < self.written, 0.0, mask)
#
#
# def decoder_with(model, kind):
#     """Return what makes packed decoders with another kind of cache."""
#     packed = PackedDecoder(model)
#
#     def make(_, src):
#         decoder = packed(model, src)
#         decoder.cache = kind(decoder.empty, 1)
#         return decoder
#
#     return make


# %% tags=["active-ipynb"]
# english, italian = zip(*english_italian().test[:300])
# tokenizer = example_tokenizer()
# ids = pad(encode(tokenizer, english))
# right = {}
# for name, kind in (("ancestor mask", StaticCache), ("rows stay", RowsStay), ("no mask", NoMask)):
#     for beam in (2, 5):
#         decoder = decoder_with(example, kind)
#         found, _ = beam_search(example, ids, beam, max_len=24, decoder=decoder)
#         texts = decode(tokenizer, found.tolist())
#         thirds = [exact_match(texts[i : i + 100], italian[i : i + 100]) for i in (0, 100, 200)]
#         right[name, beam] = torch.tensor(thirds)
#
# assert all(right["ancestor mask", beam].min() > 0.98 for beam in (2, 5))
# assert all(right["rows stay", beam].min() > 0.95 for beam in (2, 5))
# assert right["no mask", 5].max() < right["no mask", 2].min() < 0.9
# plot_bars(
#     {
#         f"{name},\nbeam {beam}": round(share.mean().item(), 2)
#         for (name, beam), share in right.items()
#     },
#     ylabel="exact match",
#     title="300 sentences, three caches",
# )

# %% [markdown]
# Without the mask every hypothesis reads words that others wrote at the same position, and the more
# of them there are, the worse. But the mask whose rows stay hardly shows. This model is so certain
# that its best hypothesis is the first one in nearly every step, and that one has its own past. A
# score would not have found the mistake. The check does:

# %% tags=["active-ipynb"]
# for kind in (RowsStay, NoMask):
#     try:
#         check_incremental(lambda model, src: decoder_with(model, kind)(model, src))
#     except AssertionError as error:
#         cause = str(error).partition("off by up to ")[2].partition(". ")[2]
#         print(f"{kind.__name__}:", cause or "wrong logits after reorder")

# %% [markdown]
# ## Try it
#
# There are no graded exercises here. Change one thing in a library cell, predict, and run:
#
# 1. In `make_room`, leave out the line that hides the spare cells. Which cell of the proof is the
#    first to notice, and why do those before it not?
# 2. Set `FEW_SENTENCES` to 64. From how many sentences on does absorbing cost more than it saves?
# 3. In `AbsorbedCrossAttention`, do not divide the bias of $W_o$ by the number of heads. The
#    running example may not notice; which cell does?

# %% [markdown]
# ## Summary
#
# A step for one sentence is mostly overhead, and a beam search copies what never changes. A cache
# that stays, under a mask that says who descends from whom, replaces the copies; matrices that do
# not change are multiplied once; and a traced step runs its operators without Python. In float32
# the translations are the same, and only a check at every step can say so.
#
# **Write it from memory**: close the chapter and write `StaticCache`, with `next_cells` and
# `reorder` (give it room for all cells at once);
# `check_incremental(lambda model, src: PackedDecoder(model)(model, src))` answers.

# %% [markdown]
# ### What did not help
#
# These were tried once, on two cores with AVX-512, and left out. The figures are of that machine:
#
# | tried | found |
# |---|---|
# | `torch.compile` for a step | 20 to 40 seconds to start; then one row 2.4 times as fast (traced: 2), 64 rows three times slower |
# | two threads in each operator | slower than two workers with one thread each |
# | logits in blocks that stay in the cache, each searched at once | equal or slower |
# | absorbing cross-attention for batches | equal: the absorbed matrices are read from memory |

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | does not mention decoding speed | one cache, absorbed matrices, traces | a step for few sentences is mostly overhead |
# | cross-attention by queries (section 3.2.3) | for few sentences, products with $W_q K^\top$ and $V W_o$ | the same function in two products instead of four |
# | beam search (section 6.1) | hypotheses share a cache under an ancestor mask | no key is copied when they change places |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | the shared cache, with room for 16 cells | `layers 2 b h k d_head` | (2, 2, 2, 4, 16, 6) | (6, 2, 64, 8, 16, 64) |
# | ancestor mask, 5 hypotheses | `b beam k` | (2, 5, 16) | (64, 5, 16) |
# | queries of a step | `b h beam d_head` | (2, 4, 5, 6) | (64, 8, 5, 64) |
# | state to scores, absorbed | `layers b d_model (h k)` | (2, 2, 24, 64) | (6, 64, 512, 128) |
# | weights to output, absorbed | `layers b (h k) d_model` | (2, 2, 64, 24) | (6, 64, 128, 512) |
#
# (`k` is rounded up to 16, a vector register of float32.) How this compares with other libraries,
# on the same work, is measured by `make bench`; the README shows the table. For serving, export the
# model to an engine made for that: `python -m transformer export --to ctranslate2`.
