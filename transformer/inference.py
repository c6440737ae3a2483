# %% [markdown]
r"""
# 12 · Inference

**At last the model translates: one token at a time, and each new token is read back in.**

![The architecture; the output and the path on which each new token goes back into the decoder are lit](../figures/architecture_12.svg)
"""

# %%
# Submodules have no types of their own in PyTorch.
# pyright: reportArgumentType=false
import math
from collections.abc import Callable

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from transformer.decoder import DecoderLayer, padding_mask
from transformer.model import Config, Transformer, inference_context

# %% [markdown]
# ## The question
#
# In training the right tokens were given. Now there is only a source, and the translation must be
# *found*: the sequence $y$ of tokens that is most probable under the model,
#
# $$\log p(y \mid x) = \sum_t \log p(y_t \mid y_1 \dots y_{t-1},\, x)$$
#
# Could we try them all? With a vocabulary of 600 and translations of 8 tokens there are

# %% tags=["active-ipynb"]
# print(f"{600**8:.0e} sequences")

# %% [markdown]
# So it is written token by token, which raises two questions. **What does a token cost**, if every
# step reads again all that was written before? And **which token** should be taken, if the most
# probable one now may lead to a poor sentence later?

# %% [markdown]
# ## By hand
#
# *There is a cat on the mat* is 7 tokens. The model is 128 wide and has one head, to keep the
# shapes simple. The weights are random; we only look at shapes here. The encoder runs **once**, and
# every step will use its output, the memory:

# %% tags=["active-ipynb"]
# from einops import einsum
#
# torch.manual_seed(0)
# model = Transformer(Config.tiny(600, n_heads=1, n_layers=1)).eval().requires_grad_(False)
# layer = model.decoder.layers[0]
#
# src = torch.tensor([[31, 32, 33, 34, 35, 36, 37]])  # there is a cat on the mat
# memory = model.encode(src)
# print("src", *src.shape, "→ memory", *memory.shape)

# %% [markdown]
# ### Greedy search in six lines
#
# Start with `<s>`. In every step, decode all that is written, take the most probable next token,
# append it, and stop at `</s>`:

# %% tags=["active-ipynb"]
# ids = torch.tensor([[1]])  # <s>
# for _ in range(8):
#     next_id = model.decode(ids, memory, src)[:, -1].argmax(-1)
#     ids = torch.cat([ids, next_id[:, None]], dim=1)
#     if next_id == 2:  # </s>
#         break
#
# print("ids", *ids.shape)

# %% [markdown]
# This is a complete translator, if the model is trained. (This one isn't, so it writes eight
# arbitrary tokens.) The rest of the chapter makes it faster, and better than greedy. To see how,
# follow the shapes through two steps.

# %% [markdown]
# ### Step 1
#
# Only `<s>` is written. One query meets one key and gives a single score, and the softmax of a
# single number is 1. Self-attention has nothing to choose from yet.

# %% tags=["active-ipynb"]
# x = model.embed(torch.tensor([[1]]))  # <s>
# q = layer.self_attention.w_q(x)
# k = layer.self_attention.w_k(x)
# scores_self = einsum(q[0], k[0], "q d, k d -> q k") / 128**0.5
#
# print("x", tuple(x.shape), "· q·kᵀ", tuple(scores_self.shape), end=" ")
# print("· weights", scores_self.softmax(-1).tolist())

# %% [markdown]
# Then this one position attends to the source. One query and seven keys give a mixing formula of
# seven numbers, and the result is one vector.

# %% tags=["active-ipynb"]
# x = layer.residuals[0](x, lambda y: layer.self_attention(y, y))
# q = layer.cross_attention.w_q(x)
# k = layer.cross_attention.w_k(memory)
# v = layer.cross_attention.w_v(memory)
#
# weights = (einsum(q, k, "b q d, b k d -> b q k") / 128**0.5).softmax(-1)
# mixed = einsum(weights, v, "b q k, b k d -> b q d")
# print("(1, 1, 128) × (1, 128, 7) →", tuple(weights.shape), "→", tuple(mixed.shape))

# %% [markdown]
# The rest of the decoder keeps this shape, and the output layer turns it into 600 logits. The
# largest of them belongs to the first token.

# %% tags=["active-ipynb"]
# first = model.decode(torch.tensor([[1]]), memory, src)
# token = first[:, -1].argmax(-1)
# print("logits", tuple(first.shape), "→ token", tuple(token.shape))

# %% [markdown]
# ### Step 2
#
# The new token is read back in: two positions, two rows of logits. **Only the last row is used**;
# the other one was already computed in step 1. Is it the same now?

# %% tags=["active-ipynb"]
# written = torch.tensor([[1, int(token)]])
# x = model.embed(written)
# second = model.decode(written, memory, src)
# print("x", tuple(x.shape), "· logits", tuple(second.shape))
#
# torch.testing.assert_close(second[:, :1], first)

# %% [markdown]
# It is. Because of the causal mask, a position never sees what is written after it, so **nothing
# about the past changes**, and everything about it was computed before. A new position needs only
# the keys and values of the old ones. So keep those:
#
# ![Three steps of decoding at width 128: self-attention's keys and values grow, those of the source stay](../figures/12_cache.svg)

# %% [markdown]
# That is the **KV cache**. In cross-attention, keys and values come from the memory and are
# computed once for a sentence. In self-attention each step adds one row. So each step computes a
# single row in every layer, however much was written before.

# %% [markdown]
# ### Which token?
#
# **Greedy search** takes the most probable token at every step. Here is a small tree of beginnings,
# with the probability of each next word (rare words are left out). English: *I love you very much*.

# %% tags=["active-ipynb"]
# from math import exp, log
#
# probabilities = {
#     "": {"io": 0.48, "ti": 0.44, "amo": 0.08},
#     "io": {"ti": 0.55, "amo": 0.30},
#     "ti": {"amo": 0.90, "voglio": 0.05},
#     "io ti": {"amo": 0.85, "voglio": 0.10},
#     "ti amo": {"molto": 0.80, "tanto": 0.15},
#     "io ti amo": {"molto": 0.75, "tanto": 0.20},
#     "ti amo molto": {"</s>": 0.95, "!": 0.03},
# }
#
#
# def extend(beam):
#     """Return all one-word extensions, each with its sum of log-probabilities, best first."""
#     longer = [
#         (f"{text} {word}".strip(), score + log(p))
#         for text, score in beam
#         for word, p in probabilities[text].items()
#     ]
#     return sorted(longer, key=lambda item: -item[1])

# %% [markdown]
# **Beam search** keeps the best $B$ beginnings, extends each, and again keeps the best $B$. With
# $B = 1$ it is greedy search:

# %% tags=["active-ipynb"]
# for beam_size in (1, 2):
#     beam = [("", 0.0)]
#     for _ in range(4):
#         beam = extend(beam)[:beam_size]
#     found = [f"{text} {score:.2f} = log {exp(score):.2f}" for text, score in beam]
#     print(f"B = {beam_size}:", " · ".join(found))

# %% [markdown]
# On paper: greedy search follows *io*, $0.48 \cdot 0.55 \cdot 0.85 \cdot 0.75 = 0.17$, and has not
# even reached `</s>`. The other path, $0.44 \cdot 0.9 \cdot 0.8 \cdot 0.95 = 0.30$, begins with the
# second most probable word. Greedy search is **short-sighted**: no step can be undone, and the most
# probable word may have less probable continuations. (Italian drops *io*, too.)
#
# ![A beam search of width 2: of all continuations the two with the best sum of log-probabilities are kept](../figures/12_beam.svg)

# %% [markdown]
# Why keep only $B$? If each of $B$ beginnings is continued in its $B$ best ways, there are $B^2$,
# then $B^3$, then $B^4$. Beam search prunes them to $B$ after every step, so its cost is
# proportional to the length. It does not always find the best sentence, which may be pruned early.

# %% tags=["active-ipynb"]
# beam_size = 5
# length = 10
# candidates = beam_size + (length - 1) * beam_size**2
# print(f"unpruned: {beam_size**length:,} · pruned, candidates in all: {candidates}")

# %% [markdown]
# ### Long or short?
#
# Every token makes the sum of log-probabilities smaller, so the plain sum favours short sentences.
# The **length penalty** divides it by $\text{length}^\alpha$. Compare three tokens with a
# probability of 0.5 each with five of 0.6 each:

# %% tags=["active-ipynb"]
# for alpha in (0.0, 1.0):
#     short = 3 * log(0.5) / 3**alpha
#     long = 5 * log(0.6) / 5**alpha
#     winner = "short" if short > long else "long"
#     print(f"α = {alpha:.0f}: short {short:.2f} · long {long:.2f} · wins: {winner}")

# %% [markdown]
# ### Sampling
#
# **Sampling** draws each token at random, by its probability, so it can write another sentence
# every time. First the logits are divided by a **temperature** $T$, which raises the probabilities
# to the power $1/T$: with 0.5 they are squared, and probable tokens become more probable. `top_k`
# keeps only the $k$ most probable tokens.

# %% tags=["active-ipynb"]
# torch.set_printoptions(precision=2, sci_mode=False)
# logits = torch.tensor([0.6, 0.3, 0.1]).log()
# for temperature in (0.5, 1.0, 2.0):
#     print(f"T = {temperature}:", (logits / temperature).softmax(-1))

# %% [markdown]
# $0.36 / (0.36 + 0.09 + 0.01) = 0.78$. As $T$ goes to 0, sampling becomes greedy search.

# %% [markdown]
# ## The definition
#
# ### A decoder that reads everything again
#
# A search needs three things of a decoder: read one token in each row and return the logits of the
# next, continue with other rows, and choose among logits. The simplest decoder keeps the tokens
# and, at every step, runs chapter 9's `decode` on all of them.
#
# A search may hold several **hypotheses** for each sentence. With $n$ of them, row $i \cdot n + j$
# is number $j$ of sentence $i$.


# %%
class TokenDecoder:
    """Decode a batch of sentences token by token: what every search of this chapter works with.

    With n hypotheses for each sentence, row i · n + j is hypothesis j of sentence i. A subclass
    defines `step` and `reorder`; it may also bring a faster `argmax` or `best_extensions`.
    """

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b vocab"]:
        """Read one more token in each row and return the logits of the next one."""
        raise NotImplementedError

    def reorder(self, rows: Int[Tensor, "b beam"]) -> None:
        """Continue with these rows, n of each remaining sentence, in this order.

        All rows of a line belong to one sentence; sentences without a line have ended.
        """
        raise NotImplementedError

    def argmax(self, logits: Float[Tensor, "b vocab"]) -> Int[Tensor, " b"]:
        """Return the most probable token of each row."""
        return logits.argmax(-1)

    def best_extensions(
        self, log_probs: Float[Tensor, "r vocab"], scores: Float[Tensor, "b beam"], k: int
    ) -> tuple[Float[Tensor, "b c"], Int[Tensor, "b c"], Int[Tensor, "b c"]]:
        """Return the k best one-token extensions of each sentence's n hypotheses, best first.

        The results are their scores, the rows that they extend, and the tokens that they add.
        """
        b, beam = scores.shape
        vocab = log_probs.shape[1]
        scores = rearrange(scores, "b beam -> b beam 1")
        totals = rearrange(log_probs, "(b beam) vocab -> b beam vocab", b=b) + scores
        best, index = rearrange(totals, "b ... -> b (...)").topk(min(k, beam * vocab))
        first_row = rearrange(beam * torch.arange(b, device=index.device), "b -> b 1")
        return best, first_row + index // vocab, index % vocab


# %%
MakeDecoder = Callable[[Transformer, Tensor], TokenDecoder]  # of a model and source ids
Choose = Callable[[TokenDecoder, Tensor], Tensor]  # of the decoder and its logits: the next tokens


class RecomputingDecoder(TokenDecoder):
    """Decode without a cache: every step runs the decoder on all tokens so far."""

    def __init__(self, model: Transformer, src: Int[Tensor, "b k"]):
        self.model = model
        self.src = src
        self.memory = model.encode(src)
        self.written: list[Tensor] = []

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b vocab"]:
        self.written.append(ids)
        n = len(ids) // len(self.src)
        src = repeat(self.src, "b k -> (b beam) k", beam=n)
        memory = repeat(self.memory, "b k d_model -> (b beam) k d_model", beam=n)
        return self.model.decode(torch.stack(self.written, dim=1), memory, src)[:, -1]

    def reorder(self, rows: Int[Tensor, "b beam"]) -> None:
        sentences = rows[:, 0] // (len(self.written[0]) // len(self.src))
        self.src = self.src[sentences]
        self.memory = self.memory[sentences]
        self.written = [ids[rows.flatten()] for ids in self.written]


# %% [markdown]
# ### The cache
#
# A decoder layer needs two things from the past: the keys and values of the source, and those of
# the target so far. A **KV cache** keeps both.


# %%
class KVCache:
    """Keep a decoder layer's keys and values: fixed for the source, growing for the target."""

    def __init__(self, layer: DecoderLayer, memory: Float[Tensor, "b k d_model"]):
        self.source: tuple[Tensor, ...] = layer.cross_attention.project_kv(memory)
        self.target: tuple[Tensor, ...] = ()

    def append(self, k: Float[Tensor, "b h 1 d_head"], v: Float[Tensor, "b h 1 d_head"]) -> tuple:
        """Add one more target position and return the keys and values of all."""
        if self.target:
            k = torch.cat([self.target[0], k], dim=2)
            v = torch.cat([self.target[1], v], dim=2)
        self.target = (k, v)
        return self.target

    def reorder(self, rows: Int[Tensor, "b beam"], sentences: Int[Tensor, " b"]) -> None:
        """Continue with these rows of the target and these sentences of the source."""
        self.source = tuple(x[sentences] for x in self.source)
        self.target = tuple(x[rows.flatten()] for x in self.target)


# %% [markdown]
# A step runs the layer of chapter 8 for one new position: the same three sublayers with the same
# residuals, but self-attention appends to the cache and attends to what is in it. It needs no
# causal mask, because there is nothing in the cache from the future.
#
# Several hypotheses for one source share a single copy of its keys and values: they become several
# queries of one sentence.


# %% tags=["exercise"]
def decode_position(
    layer: DecoderLayer, x: Float[Tensor, "b 1 d_model"], cache: KVCache, src_mask: Tensor
) -> Float[Tensor, "b 1 d_model"]:
    """Run a decoder layer for one new position, with the keys and values of the past from a cache.

    The result is the last row of what the layer makes of the whole target.
    """
    n = len(x) // len(cache.source[0])

    def self_attention(y: Tensor) -> Tensor:
        k, v = cache.append(*layer.self_attention.project_kv(y))
        return layer.self_attention.attend(y, k, v)

    def cross_attention(y: Tensor) -> Tensor:
        queries = rearrange(y, "(b beam) 1 d_model -> b beam d_model", beam=n)
        mixed = layer.cross_attention.attend(queries, *cache.source, mask=src_mask)
        return rearrange(mixed, "b beam d_model -> (b beam) 1 d_model")

    sublayers = (self_attention, cross_attention, layer.feed_forward)
    for residual, sublayer in zip(layer.residuals, sublayers, strict=True):
        x = residual(x, sublayer)
    return x


# %% [markdown]
# Every new token needs its own **position**. A common mistake is to feed one token at a time and to
# give each of them position 0: no error is raised, and the translations are bad.


# %%
class IncrementalDecoder(TokenDecoder):
    """Decode with a KV cache: every step computes one new position."""

    def __init__(self, model: Transformer, src: Int[Tensor, "b k"]):
        memory = model.encode(src)
        self.model = model
        self.position = 0
        self.src_mask = padding_mask(src, model.config.pad_id)
        self.caches = [KVCache(layer, memory) for layer in model.decoder.layers]

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b vocab"]:
        x = self.model.embed(rearrange(ids, "b -> b 1"), start=self.position)
        for layer, cache in zip(self.model.decoder.layers, self.caches, strict=True):
            x = decode_position(layer, x, cache, self.src_mask)
        self.position += 1
        return rearrange(self.model.logits(self.model.decoder.norm(x)), "b 1 vocab -> b vocab")

    def reorder(self, rows: Int[Tensor, "b beam"]) -> None:
        sentences = rows[:, 0] // (len(self.caches[0].target[0]) // len(self.src_mask))
        self.src_mask = self.src_mask[sentences]
        for cache in self.caches:
            cache.reorder(rows, sentences)


# %% [markdown]
# ### Greedy search and sampling
#
# Decoding with dropout is a mistake that raises no error, so the searches run in chapter 9's
# `inference_context`, which switches dropout and gradients off and leaves the model as it found it.
#
# Padding and `<s>` are never a next token, so their scores become $-\infty$:


# %%
def mask_special_tokens(
    scores: Float[Tensor, "... vocab"], config: Config
) -> Float[Tensor, "... vocab"]:
    """Set the scores of padding and <s> to -inf, in place, and return the scores."""
    scores[..., config.pad_id] = -math.inf
    scores[..., config.bos_id] = -math.inf
    return scores


# %% [markdown]
# The loop is the same for greedy search and for sampling; only the choice of a token differs. A
# sentence that reaches `</s>` leaves the batch, so nothing more is computed for it.


# %%
def generate(
    model: Transformer, src: Int[Tensor, "b k"], choose: Choose, max_len: int, decoder: MakeDecoder
) -> Int[Tensor, "b t"]:
    """Write the tokens that `choose` picks from the logits, until </s> or `max_len` tokens.

    The translations are without <s>, with </s> where it was reached, and padded.
    """
    config = model.config
    written = src.new_full((len(src), min(max_len, config.max_len)), config.pad_id).long()
    if len(src) == 0:
        return written[:, :0]
    with inference_context(model):
        steps = decoder(model, src)
        ids = src.new_full((len(src),), config.bos_id)
        sentences = torch.arange(len(src), device=src.device)
        for t in range(written.shape[1]):
            ids = choose(steps, mask_special_tokens(steps.step(ids), config))
            written[sentences, t] = ids
            going = (ids != config.eos_id).nonzero().squeeze(-1)
            if len(going) == 0:
                return written[:, : t + 1]
            if len(going) < len(ids):
                ids = ids[going]
                sentences = sentences[going]
                steps.reorder(rearrange(going, "b -> b 1"))
    return written


# %% tags=["exercise"]
def greedy_search(
    model: Transformer,
    src: Int[Tensor, "b k"],
    max_len: int = 64,
    decoder: MakeDecoder = IncrementalDecoder,
) -> Int[Tensor, "b t"]:
    """Return the translations that take the most probable token at every step."""

    return generate(model, src, lambda steps, logits: steps.argmax(logits), max_len, decoder)


# %% tags=["exercise"]
def sample(
    model: Transformer,
    src: Int[Tensor, "b k"],
    temperature: float = 1.0,
    top_k: int | None = None,
    max_len: int = 64,
    generator: torch.Generator | None = None,
    decoder: MakeDecoder = IncrementalDecoder,
) -> Int[Tensor, "b t"]:
    """Return translations whose tokens are drawn by probability, from the `top_k` most probable.

    The logits are divided by `temperature`; ValueError if it is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")

    def choose(steps: TokenDecoder, logits: Tensor) -> Tensor:
        if top_k is not None:
            logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -math.inf)
        probabilities = (logits / temperature).softmax(-1)
        return probabilities.multinomial(1, generator=generator).squeeze(-1)

    return generate(model, src, choose, max_len, decoder)


# %% [markdown]
# ### Beam search
#
# A hypothesis that reaches `</s>` leaves the beam: it must not be extended, and it must not be
# lost. The finished ones of each sentence are collected, and ranked with the length penalty.


# %% tags=["exercise"]
Finished = list[list[tuple[float, Tensor, Tensor]]]  # for each sentence: rank, log-probability, ids


def collect(
    found: Finished, sentences: Tensor, ids: Tensor, scores: Tensor, ended: Tensor, penalty: float
) -> None:
    """Add to `found` the hypotheses of each sentence that have `ended`, b beam.

    `ids`, b c t, begin with <s>; `scores`, b c, are log-probabilities; c ≥ beam.
    """
    for i, j in ended.nonzero().tolist():
        rank = scores[i, j].item() / (ids.shape[-1] - 1) ** penalty
        found[int(sentences[i])].append((rank, scores[i, j], ids[i, j, 1:]))


def best_of(finished: Finished, pad_id: int) -> tuple[Int[Tensor, "b t"], Float[Tensor, " b"]]:
    """Return the best hypothesis of each sentence, padded, and its log-probability."""
    best = [max(hypotheses, key=lambda h: h[0]) for hypotheses in finished]
    ids = pad_sequence([h[2] for h in best], batch_first=True, padding_value=pad_id)
    return ids, torch.stack([h[1] for h in best])


# %% [markdown]
# Now the search itself. At every step each hypothesis is extended by every token, and
# log-probabilities are added. (Logits can't be added, because those of different rows are not
# comparable.) Of all $n \cdot v$ extensions of a sentence the best $2n$ are taken. Each hypothesis
# has one extension that ends, so at most $n$ of the $2n$ have ended and at least $n$ can go on.
#
# The first step extends one hypothesis, `<s>`; its best extensions are all different.


# %%
def beam_hypotheses(
    model: Transformer, src: Tensor, beam_size: int, penalty: float, max_len: int, make: MakeDecoder
) -> Finished:
    """Return the finished hypotheses of each sentence; the arguments are those of `beam_search`."""
    config = model.config
    max_len = min(max_len, config.max_len)
    finished: Finished = [[] for _ in src]
    with inference_context(model):
        steps = make(model, src)
        sentences = torch.arange(len(src), device=src.device)
        written = src.new_full((len(src), 1), config.bos_id)  # r t
        scores = torch.zeros(len(src), 1, device=src.device)  # b beam
        for t in range(1, max_len + 1):
            logits = steps.step(written[:, -1]).float()
            # In place, because nothing else is as large.
            log_probs = mask_special_tokens(torch.log_softmax(logits, -1, out=logits), config)
            scores, rows, tokens = steps.best_extensions(log_probs, scores, 2 * beam_size)
            longer = torch.cat([written[rows], rearrange(tokens, "b c -> b c 1")], dim=-1)
            ended = ((tokens == config.eos_id) | (t == max_len)) & scores.isfinite()
            collect(finished, sentences, longer, scores, ended[:, :beam_size], penalty)
            going = [i for i, s in enumerate(sentences.tolist()) if len(finished[s]) < beam_size]
            if not going:
                break
            scores, kept = scores.masked_fill(ended, -math.inf)[going].topk(
                min(beam_size, scores.shape[1])
            )
            written = longer[going].gather(1, repeat(kept, "... -> ... t", t=t + 1)).flatten(0, 1)
            sentences = sentences[going]
            steps.reorder(rows[going].gather(1, kept))
    return finished


# %% tags=["exercise"]
def beam_search(
    model: Transformer,
    src: Int[Tensor, "b k"],
    beam_size: int = 5,
    length_penalty: float = 1.0,
    max_len: int = 64,
    decoder: MakeDecoder = IncrementalDecoder,
) -> tuple[Int[Tensor, "b t"], Float[Tensor, " b"]]:
    """Return the best translation found with `beam_size` hypotheses, and its log-probability.

    A sentence is complete when `beam_size` hypotheses have reached </s>; the best of these by
    log-probability / length ** length_penalty is returned, padded. After `max_len` tokens the
    remaining hypotheses are cut off. Source: Wu et al. 2016, section 7; Vaswani et al. 2017, 6.1.
    """
    if min(beam_size, max_len) < 1:
        raise ValueError(f"{beam_size=} and {max_len=} must be at least 1")
    if len(src) == 0:
        return src[:, :0].long(), torch.zeros(0)
    finished = beam_hypotheses(model, src, beam_size, length_penalty, max_len, decoder)
    return best_of(finished, model.config.pad_id)


# %% [markdown]
# The call of `steps.reorder` is easily forgotten. When hypotheses change places, **the cache must
# change with them**; otherwise each continues with the past of another.

# %% [markdown]
# ## The proof
#
# **Cached equals uncached.** A model of four heads and two layers reads 20 target tokens for three
# sources of different lengths, once in a single pass as in training, and once token by token:

# %% tags=["active-ipynb"]
# from transformer.data import pad
#
# torch.manual_seed(1)
# model = Transformer(Config.tiny(600, n_layers=2)).eval().requires_grad_(False)
# src = pad([torch.randint(3, 600, (n,)).tolist() for n in (7, 4, 9)])
# tgt = torch.randint(3, 600, (3, 20))
#
# decoder = IncrementalDecoder(model, src)
# step_by_step = torch.stack([decoder.step(tgt[:, t]) for t in range(20)], dim=1)
# torch.testing.assert_close(step_by_step, model(src, tgt), atol=1e-5, rtol=0)
# print("logits", *step_by_step.shape)

# %% [markdown]
# So every search finds the same with either decoder. Only the cost differs:

# %% tags=["active-ipynb"]
# def searches(decoder):
#     options = dict(max_len=12, decoder=decoder)
#     generator = torch.Generator().manual_seed(0)
#     return {
#         "greedy": greedy_search(model, src, **options),
#         "sample": sample(model, src, generator=generator, **options),
#         "beam": beam_search(model, src, **options)[0],
#     }
#
#
# recomputed = searches(RecomputingDecoder)
# for name, ids in searches(IncrementalDecoder).items():
#     print(f"{name:6} the same on a cache:", ids.equal(recomputed[name]))

# %% [markdown]
# **How much does the cache save?** Count the multiplications with weight matrices for a translation
# of 20 tokens, once when every step reads everything again, and once with the cache:

# %% tags=["active-ipynb"]
# from torch.utils.flop_counter import FlopCounterMode
#
#
# def multiplications(run, length):
#     with FlopCounterMode(display=False) as counter:
#         run(src[:1, :7], tgt[:1, :length])
#     return counter.get_total_flops() // 2  # a multiplication and an addition
#
#
# def uncached(src, tgt):
#     memory = model.encode(src)
#     for t in range(1, tgt.shape[1] + 1):
#         model.decode(tgt[:, :t], memory, src)
#
#
# def cached(src, tgt):
#     decoder = IncrementalDecoder(model, src)
#     for t in range(tgt.shape[1]):
#         decoder.step(tgt[:, t])
#
#
# without = multiplications(uncached, 20)
# with_cache = multiplications(cached, 20)
# print(f"without a cache {without:,} · with it {with_cache:,}", end=" ")
# print(f"· {without / with_cache:.0f} times as many without")

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# lengths = range(1, 21)
# plot_lines(
#     {
#         "without a cache": [multiplications(uncached, n) / 1e6 for n in lengths],
#         "with a cache": [multiplications(cached, n) / 1e6 for n in lengths],
#     },
#     x=lengths,
#     xlabel="tokens written",
#     ylabel="million multiplications",
#     title="The cost of a translation",
# )

# %% [markdown]
# Without a cache the cost grows with the square of the length, with it in proportion to the length.
# (Attention itself still reads all keys, but at these lengths that costs little.)

# %% [markdown]
# **A beam of one is greedy search**, and the score is the **true log-probability**: let the model
# read the finished translation by teacher forcing, add up the log-probabilities of its tokens, and
# the sum must be the same.

# %% tags=["active-ipynb"]
# ids, log_probs = beam_search(model, src, beam_size=1, max_len=12)
# assert ids.equal(greedy_search(model, src, max_len=12))
#
# ids, log_probs = beam_search(model, src, beam_size=4, max_len=12)
# read = torch.cat([torch.ones(3, 1, dtype=torch.int64), ids[:, :-1]], dim=1)
# each = model(src, read).log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
# again = each.masked_fill(ids == 0, 0.0).sum(-1)
# torch.testing.assert_close(log_probs, again, atol=1e-4, rtol=0)

# %% [markdown]
# **A beam that is wide enough finds the best sequence.** With six ids and at most three tokens,
# there are few enough sequences to try them all. Greedy search misses the best one; a beam of 64
# has room for all.

# %% tags=["active-ipynb"]
# from itertools import product
#
# torch.manual_seed(1)
# small = Transformer(Config.tiny(6, n_layers=1)).eval().requires_grad_(False)
# last_norm = small.decoder.layers[-1].residuals[-1].norm
# last_norm.gain.normal_(std=2)  # otherwise all tokens are about equally probable
# one = torch.tensor([[3, 4, 5]])
# ended = [[*body, 2] for n in (0, 1, 2) for body in product((3, 4, 5), repeat=n)]
# every = ended + [list(body) for body in product((3, 4, 5), repeat=3)]
#
#
# def log_prob(ids):
#     logits = small(one, torch.tensor([[1, *ids[:-1]]]))[0]
#     return logits.log_softmax(-1).gather(-1, torch.tensor(ids).unsqueeze(-1)).sum().item()
#
#
# best = max(every, key=log_prob)
# ids, found = beam_search(small, one, beam_size=64, length_penalty=0.0, max_len=3)
# greedy = greedy_search(small, one, max_len=3)[0].tolist()
#
# assert ids[0].tolist() == best != greedy and abs(found.item() - log_prob(best)) < 1e-4
# print("the best of", len(every), "sequences:", best, "· greedy finds:", greedy)

# %% [markdown]
# ### The check
#
# The checks look for mistakes that are made in practice: position 0 for every token, a search that
# continues after `</s>` or runs in training mode, finished hypotheses that are lost, logits added
# as if they were log-probabilities, a cache that stays in the old order.

# %% tags=["active-ipynb"]
# from transformer.checks import check_beam_search, check_greedy, check_incremental, check_sample
#
# check_incremental(IncrementalDecoder)
# check_greedy(greedy_search)
# check_sample(sample)
# check_beam_search(beam_search)

# %% [markdown]
# ## From text to text
#
# `Translator` (`transformer/translator.py`) does what is needed around a search: it encodes and
# decodes text, limits the length of a translation by that of its source, and groups sentences of
# similar length, because padding costs as much as words. The search itself is run by an engine of
# `transformer/engines`: PyTorch by default, with the faster decoder of chapter 16, or CTranslate2,
# or ONNX.

# %% [markdown]
# ## The look
#
# Here is the translator that chapter 11 trained. (If it is not there yet, the next cell trains it,
# once, in a few minutes.)

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.recipes import trained_translator
# from transformer.translator import Translator
#
# translator = Translator.load(trained_translator())

# %% tags=["active-ipynb"]
# def show(*texts):
#     for text, translation in zip(texts, translator.translate(texts)):
#         print(f"{text} → {translation}")
#
#
# show("I love you very much", "there is a cat on the mat")
# assert translator.translate(["I love you very much"]) == ["ti amo molto"]

# %% [markdown]
# The first has three words for five: the subject is dropped, and *you* has moved before the verb.
# In the second, *on the* has become one word. Here are a negation and a question; in Italian, only
# the question mark marks a question:

# %% tags=["active-ipynb"]
# show("I do not love you", "does the girl read the interesting book?")

# %% [markdown]
# **Agreement** needs attention. *Red* and *tired* have four forms each, and a word elsewhere in the
# sentence decides which one is right. Whether *it* becomes *la* or *lo* depends on the noun that it
# stands for:

# %% tags=["active-ipynb"]
# show("the red house", "the red houses", "the girl is very tired", "the boys are very tired")
# show("she reads the book and buys it", "she reads the letter and buys it")

# %% [markdown]
# ### Where does it look?
#
# This is the cross-attention of the last layer while it writes the running sentence. Rows are
# queries: each stands for the token that is *being written* there. Columns are keys, the subwords
# of the source. The weights are computed with the mask that the model used.

# %% tags=["active-ipynb"]
# from transformer.data import encode
# from transformer.multi_head import head_weights
# from transformer.plotting import plot_attention
#
# trained = translator.model.requires_grad_(False)
# tokenizer = translator.tokenizer
# src = pad(encode(tokenizer, ["there is a cat on the mat"]))
# ids = greedy_search(trained, src)
#
# cross = trained.decoder.layers[-1].cross_attention
# inputs = []
# hook = cross.register_forward_pre_hook(lambda module, args: inputs.append(args))
# trained(src, torch.cat([torch.tensor([[1]]), ids[:, :-1]], dim=1))
# hook.remove()
#
# weights = head_weights(cross, *inputs[0])[0]
# rows = [tokenizer.id_to_token(i).strip("▁") for i in ids[0].tolist()]
# columns = [tokenizer.id_to_token(i).strip("▁") for i in src[0].tolist()]
# plot_attention(weights, queries=rows, keys=columns)

# %% [markdown]
# For *gatto* the model attends to *cat*, for *sul* to *on*, for *tappeto* to *mat*. It has learned
# this alignment from sentence pairs alone. For *un* the heads differ: some attend to *a*, the
# article, others to *cat*, which decides between *un* and *una*. (Trained on another machine, the
# heads may divide the work differently.) Here is one head with its numbers:

# %% tags=["active-ipynb"]
# plot_attention(weights[0], queries=rows, keys=columns, title="The first head")

# %% [markdown]
# ### Side by side
#
# The model has never seen the test split. Translate 200 of its sentences with greedy search, with a
# beam of five, and by sampling in four ways. What share of the translations equals the reference?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.corpora import english_italian
# from transformer.data import decode
# from transformer.metrics import exact_match
# from transformer.plotting import plot_bars
#
# english, italian = zip(*english_italian().test[:200])
# src = pad(encode(tokenizer, english))
#
#
# def exact(ids):
#     return exact_match(decode(tokenizer, ids.tolist()), italian)
#
#
# def sampled(**options):
#     generator = torch.Generator().manual_seed(0)
#     return exact(sample(trained, src, max_len=32, generator=generator, **options))
#
#
# shares = {
#     "greedy": exact(greedy_search(trained, src)),
#     "beam 5": exact(beam_search(trained, src, beam_size=5)[0]),
#     "sample": sampled(),
#     "T = 0.5": sampled(temperature=0.5),
#     "T = 3": sampled(temperature=3.0),
#     "T = 3, top 3": sampled(temperature=3.0, top_k=3),
# }
# plot_bars(shares, ylabel="exact match", title="Six ways to decode")

# %% tags=["active-ipynb"]
# for name in ("greedy", "beam 5", "sample", "T = 0.5"):
#     print(f"{name:8} at least 95 % right:", shares[name] >= 0.95)
# assert shares["T = 3"] < shares["T = 3, top 3"] < shares["greedy"]

# %% [markdown]
# Every sentence of this corpus has one translation, so the model is certain: greedy search and beam
# search find the same. On real captions, where several words would be right, a beam finds slightly
# better translations. At high temperature unlikely tokens are drawn more often, and one wrong token
# spoils a sentence; `top_k` excludes the least probable. Sample when you want *variety* rather than
# the one best answer.

# %% tags=["active-ipynb"]
# from transformer.metrics import scores
#
# found = scores(translator.translate(english), italian)
# print("BLEU above 95:", found["BLEU"] > 95, "· chrF above 95:", found["chrF"] > 95)
# print(*(signature.split("|version")[0] for signature in found["signatures"]), sep="\n")

# %% [markdown]
# The signature says how a score was computed: one reference (`nrefs:1`), upper and lower case kept
# (`case:mixed`), words split by the rules `13a`; the version of sacrebleu is part of it, too. A
# BLEU this high says as much about the test set as about the model. Use it to compare two systems
# on the same test set, never on different ones.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 12.1 | Two beams on paper | by hand | 10 | ★☆☆ |
# | 12.2 | Greedy search | write the block | 20 | ★☆☆ |
# | 12.3 | Cached is not uncached | find the bug | 20 | ★★☆ |
# | 12.4 | One position, with a cache | write the block | 25 | ★★☆ |
# | 12.5 | A test for a search | write the test | 25 | ★★★ |
# | 12.6 | Beam search | write the block | 45 | ★★★ |
#
# `python -m transformer course start mine` writes a folder `mine` of your own. There these blocks
# are empty, and the other exercises are at the end of each chapter. In it, `course check 12`
# says what is wrong, and `course hint 12.1` gives the first of three hints.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | beam of 4 (section 6.1) | 5 by default | the usual choice |
# | length penalty $\alpha = 0.6$, by $((5 + t)/6)^\alpha$ (section 6.1; Wu et al. 2016) | $t^\alpha$ with $\alpha = 1$: the mean log-probability a token | simpler |
# | output up to 50 tokens longer than the input (section 6.1) | twice the input, whose length is rounded up to a multiple of 16 | captions are short |
# | says nothing of a cache | keys and values kept | the same output for a fraction of the work |
# | averages its last checkpoints (section 6.1) | averaged during training (chapter 11) | nothing is left to do here |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at width 128, 7 source tokens |
# |---|---|---|
# | memory, once | `b k d` | (1, 7, 128) |
# | source keys and values, once a layer | `b h k d` | (1, 4, 7, 32) |
# | the new position | `b 1 d` | (1, 1, 128) |
# | target keys and values at step $t$ | `b h t d` | (1, 4, t, 32) |
# | logits of the next token | `b v` | (1, 600) |
# | $n$ hypotheses a sentence | rows `(b n)` | (5, …) |
#
# That is the whole Transformer, from ids to a translation. To train it on text of your own, see
# `python -m transformer train --help`. Chapters [15](15_fast_training.ipynb) and
# [16](16_fast_decoding.ipynb), for engineers, make it fast.
