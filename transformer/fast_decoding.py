# %% [markdown]
r"""
# 16 · Fast decoding

**The same translations, sooner: beams that stay where they are, cross-attention without queries,
steps without Python. Optional, and for engineers.**

![The architecture; the decoder and the way on which each new token goes back into it are lit](../figures/architecture_16.svg)
"""

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
# Here is one step for a single sentence with the small model of chapter 11, beside its arithmetic:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# import time
# from statistics import median
#
# from transformer.inference import IncrementalDecoder, beam_search, greedy_search
# from transformer.model import Config
#
# torch.set_num_threads(1)
# torch.manual_seed(0)
# model = Transformer(Config.tiny(10_000)).eval().requires_grad_(False)
# src = torch.randint(3, 10_000, (64, 16))
#
#
# def seconds(run, *inputs, repeats=5):
#     run(*inputs)
#     times = []
#     for _ in range(repeats):
#         start = time.perf_counter()
#         run(*inputs)
#         times.append(time.perf_counter() - start)
#     return median(times)
#
#
# decoder = IncrementalDecoder(model, src[:1])
# step = seconds(decoder.step, torch.tensor([1]), repeats=40)
# weights = sum(p.numel() for p in model.decoder.parameters()) + model.bias.numel() * 129
# print(f"a step takes {1e6 * step:.0f} µs for {weights / 1e6:.1f} million multiplications")

# %% [markdown]
# A core makes those multiplications in some 100 µs. The rest is overhead: a step calls about 250
# operators, and calling one from Python takes several microseconds, however little it computes.
#
# With many sentences the arithmetic weighs more, and other costs appear: a beam search copies its
# cache at every step, and looks for the best few of $n \cdot v$ numbers.

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
# change places. Two hypotheses, three steps; in the third, both descend from the second one:

# %% tags=["active-ipynb"]
# mask = torch.eye(2, dtype=torch.int)  # step 1: each sees the cell that it wrote
# mask = torch.cat([mask, torch.eye(2, dtype=torch.int)], dim=1)  # step 2: and the next one
# print(mask, "\n")
#
# mask = mask[[1, 1]]  # both descend from hypothesis 1
# mask = torch.cat([mask, torch.eye(2, dtype=torch.int)], dim=1)
# print(mask)

# %% [markdown]
# Six cells were written and none was moved. Column 0 and column 2 belong to nobody any more.
#
# ### Cross-attention without queries
#
# A source does not change while it is translated. Its keys are multiplied by $x W_q$ at every step.
# So multiply them by $W_q$ once, and its values by $W_o$. For one head, with $W_q$ and $W_o$ cut to
# that head:
#
# $$(x W_q) K^\top = x\,(W_q K^\top) \qquad (w V)\,W_o = w\,(V W_o)$$

# %% tags=["active-ipynb"]
# x, w_q, keys = torch.randn(1, 6), torch.randn(6, 2), torch.randn(3, 2)
# absorbed = w_q @ keys.T  # once a sentence
#
# torch.testing.assert_close(x @ absorbed, (x @ w_q) @ keys.T)
# print("each step:", tuple(x.shape), "×", tuple(absorbed.shape))

# %% [markdown]
# A step then needs two products in place of four. (DeepSeek-V2 absorbs matrices in the same way.)
# The absorbed matrices are larger than keys and values, and every sentence has its own, so this
# pays for a few sentences, not for a batch.

# %% [markdown]
# ### The largest of many
#
# A search wants the largest few of 10,000 numbers. Cut the row into fifty blocks. The largest
# number of each is found in one quick pass, and **the ten largest numbers lie in the ten blocks
# whose largest numbers are the largest**. (Any other block has ten numbers above all of its own.)
# So only ten blocks have to be looked through. Nine numbers in three blocks:

# %% tags=["active-ipynb"]
# x = torch.tensor([3, 9, 1, 4, 8, 7, 2, 6, 5.0])
# blocks = rearrange(x, "(n size) -> n size", n=3)
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

        Keys and values are `layers b h k d`; the heads of a result lie side by side.
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
# possible, with weights stored as they are read fastest (`transformer/cpu/layers.py`). It depends
# only on whether there are few rows and whether cross-attention is absorbed, so each of these cases
# is traced once. The numbers of sentences, hypotheses and positions are free.


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
# **The packed decoder computes what the plain one computes**, at every step, with hypotheses that
# change places and sentences that leave. The check is that of chapter 12:

# %% tags=["active-ipynb"]
# from transformer.checks import check_incremental
#
# check_incremental(lambda model, src: PackedDecoder(model)(model, src))

# %% [markdown]
# **Every search finds the same**, token by token:

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
# **The largest of many** are the largest:

# %% tags=["active-ipynb"]
# x = torch.randn(60, 10_000)
# offsets = torch.randn(12, 5)
# assert blockwise_topk(x, 10)[1].equal(x.topk(10).indices)
#
# sums = rearrange(x, "(b n) v -> b n v", n=5) + rearrange(offsets, "b n -> b n 1")
# want = rearrange(sums, "b n v -> b (n v)").topk(10).indices
# assert blockwise_topk(x, 10, offsets)[1].equal(want)
# print("60 rows of 10,000, and 12 groups of five rows: the same indices")

# %% [markdown]
# ## The look
#
# ### A ladder
#
# Twenty tokens for each of 64 sentences: without a cache (chapter 12's first decoder), with one,
# with the packed decoder, and with that traced. The lower the step, the more of it is arithmetic.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.inference import RecomputingDecoder
# from transformer.plotting import plot_bars, plot_lines
#
# model.bias[[0, 1, 2]] = -1e9  # no sentence ends early
# ways = {
#     "no cache": RecomputingDecoder,
#     "cache": IncrementalDecoder,
#     "packed": PackedDecoder(model, warmup_calls=10**9),
#     "traced": PackedDecoder(model, warmup_calls=0),
# }
#
#
# def climb(src, title):
#     """Search in four ways, which find the same, and plot how fast they are."""
#     first, *others = [greedy_search(model, src, 20, way) for way in ways.values()]
#     assert all(other.equal(first) for other in others)
#     times = {name: seconds(greedy_search, model, src, 20, way) for name, way in ways.items()}
#     speeds = {name: len(src) * 20 / spent / 1_000 for name, spent in times.items()}
#     plot_bars(speeds, ylabel="thousand tokens a second", title=title)
#
#
# climb(src, "64 sentences, greedy search, one thread")

# %% [markdown]
# And for a single sentence:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# climb(src[:1], "One sentence, greedy search, one thread")

# %% [markdown]
# One more step of that ladder is not in the decoder. On two cores, the PyTorch engine of the
# package (`transformer/engines`) gives each core sentences of its own, with one thread, instead of
# letting two threads share every small operator. Traces make these workers independent: only one
# thread at a time can run Python.

# %% [markdown]
# ### Copying or masking
#
# Beam search with five hypotheses for 32 sentences, with a cache that is copied and one that stays:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# def five_hypotheses(way):
#     return beam_search(model, src[:32], 5, max_len=20, decoder=way)
#
#
# del ways["no cache"]
# times = {name: seconds(five_hypotheses, way, repeats=3) for name, way in ways.items()}
# speeds = {name: 32 * 20 / spent / 1_000 for name, spent in times.items()}
# plot_bars(speeds, ylabel="thousand tokens a second", title="Beam search, one thread")

# %% [markdown]
# ### The price of a call
#
# The time of one product of $n$ rows with a 128 × 128 weight. Up to some tens of rows it is a flat
# line: the call costs more than the arithmetic.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# layer = nn.Linear(128, 128)
# counts = [1, 2, 4, 8, 16, 32, 64, 128, 256]
# with torch.inference_mode():
#     times = [1e6 * seconds(layer, torch.randn(n, 128), repeats=200) for n in counts]
# plot_lines({"F.linear": times}, x=counts, xlabel="rows", ylabel="µs", title="One product")

# %% [markdown]
# ### What did not help
#
# Each of these was measured on two cores, and left out:
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
# | does not mention decoding speed | one cache, absorbed matrices, traces | a step is overhead, not arithmetic |
# | cross-attention by queries (section 3.2.3) | for few sentences, products with $W_q K^\top$ and $V W_o$ | the same function in half the calls |
# | beam search (section 6.1) | hypotheses share a cache under an ancestor mask | nothing is copied |
#
# How this compares with other libraries, on the same work, is measured by `make bench`; the README
# shows the table. For serving, export the model to an engine made for that: `python -m transformer
# export --to ctranslate2`.
