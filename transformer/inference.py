# %% [markdown]
r"""
# 12 · Inference

**At last the model translates: one token at a time, and each new token is read back in.**

![The architecture; the output and the path on which each new token goes back into the decoder are lit](../figures/architecture_12.svg)
"""

# %% [markdown]
# **What you need**: [chapter 9](09_model.ipynb), for the model, and [chapter 11](11_training.ipynb),
# for a trained one. About an hour. In the paper: [section 6.1](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/12_inference.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/12_inference.ipynb).
#
# **What you will be able to do**
#
# - write greedy search, beam search and sampling, and say when each is right;
# - say which part of a step never changes, and keep it in a KV cache;
# - read translations and scores: what is wrong, and whether search or model is to blame.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

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
# Could we try them all? With a vocabulary of 588 and translations of 8 tokens there are

# %% tags=["active-ipynb"]
# print(f"{588**8:.0e} sequences")

# %% [markdown]
# So it is written token by token, which raises two questions. **What does a token cost**, if every
# step reads again all that was written before? And **which token** should be taken, if the most
# probable one now may lead to a poor sentence later?

# %% [markdown]
# ## By hand
#
# Take the trained model of the running example and *there is a cat on the mat*. The encoder runs
# **once**, and every step will use its output, the memory that chapter 7 left us:

# %% tags=["active-ipynb"]
# from transformer.example import after, example_model, tokens
#
# model = example_model()
# src = after(10).src[:1]
# memory = model.encode(src)
#
# torch.testing.assert_close(memory, after(7)[:1])
# print("src", *src.shape, "→ memory", *memory.shape)

# %% [markdown]
# ### Greedy search in six lines
#
# Start with `<s>`. In every step, decode all that is written, take the most probable next token,
# append it, and stop at `</s>`:

# %% tags=["active-ipynb"]
# ids = torch.tensor([[1]])  # <s>
# for _ in range(20):
#     next_id = model.decode(ids, memory, src)[:, -1].argmax(-1)
#     ids = torch.cat([ids, next_id[:, None]], dim=1)
#     if next_id == 2:  # </s>
#         break
#
# print(*tokens(ids)[0])

# %% [markdown]
# This is a complete translator. The rest of the chapter makes it faster, and looks for sentences
# that greedy search does not find. To see how, follow the shapes through two steps.

# %% [markdown]
# ### Step 1
#
# Only `<s>` is written. In each of the four heads one query meets one key, and the softmax of a
# single score is 1. Self-attention has nothing to choose from yet.

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
#
# layer = model.decoder.layers[0]
# x = model.embed(torch.tensor([[1]]))  # <s>
# looks = head_weights(layer.self_attention, x, x)
# print("x", *x.shape, "· weights", *looks.shape, "· all", looks.unique().item())

# %% [markdown]
# Then this one position attends to the source. In each head one query and eight keys give eight
# weights, and the result is one vector.

# %% tags=["active-ipynb"]
# x = layer.residuals[0](x, lambda y: layer.self_attention(y, y))
# looks = head_weights(layer.cross_attention, x, memory)
# mixed = layer.cross_attention(x, memory)
# print("weights", *looks.shape, "→ mixed", *mixed.shape)

# %% [markdown]
# The rest of the decoder keeps this shape, and the output layer turns it into 588 logits. The
# largest of them belongs to the first token.

# %% tags=["active-ipynb"]
# first = model.decode(torch.tensor([[1]]), memory, src)
# token = first.argmax(-1)
# print("logits", *first.shape, "→ token", *tokens(token)[0])

# %% [markdown]
# ### Step 2
#
# The new token is read back in: two positions, two rows of logits. **Only the last row is used**;
# the other one was already computed in step 1. Is it the same now?

# %% tags=["active-ipynb"]
# written = torch.cat([torch.tensor([[1]]), token], dim=1)
# second = model.decode(written, memory, src)
# print("ids", *written.shape, "→ logits", *second.shape)
#
# torch.testing.assert_close(second[:, :1], first)

# %% [markdown]
# It is. Because of the causal mask, no position sees what is written after it, so **nothing about
# the past changes**. A new position needs only the old keys and values. So keep those:
#
# ![Three steps of decoding at width 24: self-attention's keys and values grow, those of the source stay](../figures/12_cache.svg)

# %% [markdown]
# That is the **KV cache**. In cross-attention, keys and values come from the memory and are
# computed once for a sentence. In self-attention each step adds one row. So each step computes a
# single row in every layer, however much was written before.

# %% [markdown]
# ### Which token?
#
# **Greedy search** takes the most probable token at every step. Here is a small tree of beginnings
# for *I love you very much*, with made-up probabilities of the next word (rare words are left out).

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
# **Beam search** keeps a few beginnings, the **beam**. It extends each of them and again keeps as
# many of the best. With a beam of 1 it is greedy search. What will a beam of 2 find?

# %% tags=["active-ipynb"]
# for beam_size in (1, 2):
#     beam = [("", 0.0)]
#     for _ in range(4):
#         beam = extend(beam)[:beam_size]
#     found = [f"{text} {score:.2f} = log {exp(score):.2f}" for text, score in beam]
#     print(f"beam {beam_size}:", " · ".join(found))

# %% [markdown]
# On paper: greedy search follows *io*, $0.48 \cdot 0.55 \cdot 0.85 \cdot 0.75 = 0.17$, and has not
# even reached `</s>`. The other path, $0.44 \cdot 0.9 \cdot 0.8 \cdot 0.95 = 0.30$, begins with the
# second most probable word. Greedy search cannot undo a step, and the most probable word may have
# less probable continuations.
#
# ![A beam search of width 2: of all continuations the two with the best sum of log-probabilities are kept](../figures/12_beam.svg)

# %% [markdown]
# If each of 5 beginnings is continued in its 5 best ways, there are 25, then 125, then 625. Beam
# search prunes them to 5 after every step, so its cost is proportional to the length. It may prune
# the beginning of the best sentence.

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
# to the power $1/T$ and scales them to sum to 1: with 0.5 they are squared, and probable tokens
# become more probable. `top_k` draws from the most probable tokens only, say the best 3.

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
# A search may hold several **hypotheses** for each sentence. With a beam of 5, row $5i + j$ is
# number $j$ of sentence $i$.


# %%
class TokenDecoder:
    """Decode a batch of sentences token by token: what every search of this chapter works with.

    With a beam of hypotheses for each sentence, row i · beam + j is hypothesis j of sentence i. A
    subclass defines `step` and `reorder`; it may have a faster `argmax` or `best_extensions`.
    """

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b vocab"]:
        """Read one more token in each row and return the logits of the next one."""
        raise NotImplementedError

    def reorder(self, rows: Int[Tensor, "b beam"]) -> None:
        """Continue with these rows, as many of each remaining sentence, in this order.

        All rows of a line belong to one sentence; sentences without a line have ended.
        """
        raise NotImplementedError

    def argmax(self, logits: Float[Tensor, "b vocab"]) -> Int[Tensor, " b"]:
        """Return the most probable token of each row."""
        return logits.argmax(-1)

    def best_extensions(
        self, log_probs: Float[Tensor, "r vocab"], scores: Float[Tensor, "b beam"], k: int
    ) -> tuple[Float[Tensor, "b c"], Int[Tensor, "b c"], Int[Tensor, "b c"]]:
        """Return the k best one-token extensions of each sentence's hypotheses, best first.

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
# Decoding with dropout spoils translations and raises no error, so the searches run in chapter 9's
# `inference_context`, which switches dropout and gradients off and leaves the model as it found it.
#
# Padding and `<s>` are never a next token, so their scores become $-\infty$:


# %%
def mask_special_tokens(
    scores: Float[Tensor, "... vocab"], config: Config
) -> Float[Tensor, "... vocab"]:
    """Set the scores of padding and <s> to -inf, in place, and return the scores."""
    for i in config.banned_ids:
        scores[..., i] = -math.inf
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
# comparable.) Twice as many extensions of a sentence are taken as the beam has hypotheses. Each
# hypothesis has one extension that ends, so at most half of them have, and the rest fill the beam.
#
# The first step extends one hypothesis, `<s>`; its best extensions are all different.


# %% tags=["exercise"]
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
            alive = scores.masked_fill(ended, -math.inf)[going]
            scores, kept = alive.topk(min(beam_size, alive.shape[1]))
            written = longer[going].gather(1, repeat(kept, "... -> ... t", t=t + 1)).flatten(0, 1)
            sentences = sentences[going]
            steps.reorder(rows[going].gather(1, kept))
    return finished


# %%
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
# ### The running example
#
# Both sentences at once, the second one padded. Their translations are `after(12)`, and the example
# that began with two rows of ids in chapter 0 is complete:

# %% tags=["active-ipynb"]
# from transformer.data import decode
# from transformer.example import SENTENCES, example_tokenizer
#
# src = after(10).src
# translations = decode(example_tokenizer(), greedy_search(model, src).tolist())
#
# assert translations == after(12) == [italian for _, italian in SENTENCES]
# print(*translations, sep="\n")

# %% [markdown]
# ### The cache
#
# PyTorch has no search to compare with, but chapter 9 has the model itself. **Cached equals
# uncached**: the model reads 20 arbitrary target tokens for both sources, once in a single pass as
# in training, and once token by token.

# %% tags=["active-ipynb"]
# torch.manual_seed(1)
# tgt = torch.randint(3, 588, (2, 20))
#
# decoder = IncrementalDecoder(model, src)
# step_by_step = torch.stack([decoder.step(tgt[:, t]) for t in range(20)], dim=1)
# torch.testing.assert_close(step_by_step, model(src, tgt), atol=1e-4, rtol=1e-4)
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
# of 20 tokens, once when every step reads everything again, and once with the cache. Without it,
# $1 + 2 + \dots + 20 = 210$ rows are computed instead of 20. How many times the work is this?

# %% tags=["active-ipynb"]
# from torch.utils.flop_counter import FlopCounterMode
#
#
# def multiplications(run, length):
#     with FlopCounterMode(display=False) as counter:
#         run(src[:1], tgt[:1, :length])
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
# (The memory is computed in both. Attention still reads all keys, but so few cost little.)

# %% [markdown]
# **A beam of one is greedy search**, and the score is the **true log-probability**: let the model
# read the finished translation by teacher forcing, add up the log-probabilities of its tokens, and
# the sum must be the same.

# %% tags=["active-ipynb"]
# ids, log_probs = beam_search(model, src, beam_size=1, max_len=12)
# assert ids.equal(greedy_search(model, src, max_len=12))
#
# ids, log_probs = beam_search(model, src, beam_size=4, max_len=12)
# read = torch.cat([torch.ones(2, 1, dtype=torch.int64), ids[:, :-1]], dim=1)
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
# similar length, because padding costs as much as words. An engine of `transformer/engines` runs
# the search: PyTorch by default, with the faster decoder of chapter 16, or CTranslate2, or ONNX.

# %% [markdown]
# ## The look
#
# Here is the translator that chapter 11 trained. (If it is not there yet, the next cell trains it.)

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.recipes import trained_translator
# from transformer.translator import Translator
#
# translator = Translator.load(trained_translator())

# %% tags=["active-ipynb"]
# from transformer.corpora import english_italian
#
# corpus = english_italian()
# trained_on = {english for english, _ in corpus.train}
#
#
# def show(*texts):
#     for text, translation in zip(texts, translator.translate(texts)):
#         seen = "  (in training)" if text.lower() in trained_on else ""
#         print(f"{text} → {translation}{seen}")
#
#
# show("I love you very much", "there is a cat on the mat")
# assert translator.translate(["I love you very much"]) == ["ti amo molto"]

# %% [markdown]
# The first has three words for five: the subject is dropped, and *you* has moved before the verb.
# In the second, *on the* has become one word. But the model has met both in training and may know
# them by heart. Here are sentences that it has never seen: a negation, a question, which in Italian
# only its mark shows, and one of the split `compositional`.

# %% tags=["active-ipynb"]
# unseen = [corpus.test[i][0] for i in (4, 21)] + [corpus.more["compositional"][0][0]]
# show(*unseen)
# assert trained_on.isdisjoint(unseen)

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
# This is the last layer's cross-attention, with the mask that the model used. Rows are queries,
# each for the token that is *being written* there; columns are keys, the subwords of the source.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_attention
#
# trained = translator.model.requires_grad_(False)
# src = after(10).src[:1]
# ids = greedy_search(trained, src)
#
# cross = trained.decoder.layers[-1].cross_attention
# inputs = []
# hook = cross.register_forward_pre_hook(lambda module, args: inputs.append(args))
# trained(src, torch.cat([torch.tensor([[1]]), ids[:, :-1]], dim=1))
# hook.remove()
#
# weights = head_weights(cross, *inputs[0])[0]
# rows = tokens(ids)[0]
# columns = tokens(src)[0]
# plot_attention(weights, queries=rows, keys=columns)

# %% [markdown]
# For *gatto* the model attends to *cat* and for *tappeto* to *mat*. *Sul* is *on* and *the* in one
# word, and the model looks mostly at *on*; for the three tokens of *c'è*, mostly at *there*. For
# *un* heads differ: some attend to *a*, the article, others to *cat*, which decides between *un*
# and *una*. (Trained on another machine, heads may divide the work differently.) Here is the mean:

# %% tags=["active-ipynb"]
# plot_attention(weights.mean(0), queries=rows, keys=columns, title="The mean of the four heads")

# %% [markdown]
# ### The whole translation
#
# `explore` records a search. Press play, point at a token, choose a head. This is the example's
# model; try `translator`, or `python -m transformer explore "I love you" -o page.html`.

# %% tags=["active-ipynb"]
# from transformer.explorer import explore
#
# explore(Translator(model, example_tokenizer()), "I love you very much")

# %% [markdown]
# ### Side by side
#
# Our translators are certain of nearly every token of this language, so greedy search and a beam
# find the same. The search matters where the model is in doubt. So train three models with
# different seeds, and stop after 160 steps, when they translate a third of the sentences correctly:

# %% tags=["active-ipynb"]
# from transformer.data import encode, encode_pairs, pad
# from transformer.training import Trainer, TrainingConfig, training_batches
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
# tokenizer = example_tokenizer()
# pairs = encode_pairs(tokenizer, corpus.train[:20_000])
#
#
# def half_trained(seed):
#     torch.manual_seed(seed)
#     sizes = dict(d_model=64, n_heads=4, n_layers=1, d_ff=128, dropout=0.0)
#     settings = dict(max_tokens=1024, warmup=50, label_smoothing=0.0, ema_decay=0.9, seed=seed)
#     trainer = Trainer(Transformer(Config(588, **sizes)), TrainingConfig(steps=160, **settings))
#     for _, batches in zip(range(160), training_batches(pairs, trainer.config)):
#         trainer.step(*batches)
#     return trainer.ema_model
#
#
# models = [half_trained(seed) for seed in range(3)]

# %% [markdown]
# They translate 200 sentences of the test split by greedy search, with a beam of five, and by
# sampling in four ways. Which has the largest share of exact translations, and which the smallest?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from statistics import mean
#
# from transformer.metrics import exact_match
# from transformer.plotting import plot_bars
#
# english, italian = zip(*corpus.test[:200])
# src = pad(encode(tokenizer, english))
#
#
# def translate(search, model, **options):
#     ids = search(model, src, max_len=24, **options)
#     return decode(tokenizer, (ids if torch.is_tensor(ids) else ids[0]).tolist())
#
#
# def exact(search, **options):
#     return mean(exact_match(translate(search, model, **options), italian) for model in models)
#
#
# def sampled(**options):
#     return exact(sample, generator=torch.Generator().manual_seed(0), **options)
#
#
# shares = {
#     "beam 5": exact(beam_search, beam_size=5),
#     "greedy": exact(greedy_search),
#     "T = 0.25": sampled(temperature=0.25),
#     "T = 0.5": sampled(temperature=0.5),
#     "T = 1": sampled(),
#     "T = 1, top 2": sampled(top_k=2),
# }
# rounded = {name: round(share, 2) for name, share in shares.items()}
# plot_bars(rounded, ylabel="exact match", title="Six ways to decode, mean of 3 models")

# %% tags=["active-ipynb"]
# assert shares["beam 5"] > shares["greedy"] > shares["T = 0.5"] > shares["T = 1"]
# assert shares["T = 1, top 2"] > shares["T = 1"]

# %% [markdown]
# The beam is best. At a high temperature unlikely tokens are drawn more often, and one wrong token
# spoils a sentence; `top_k` excludes the least probable. Sample when you want *variety* rather than
# the one best answer. And what is wrong with the wrong translations? Here are some, with the
# model's own loss in nats a token:

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.data import collate
# from transformer.training import translation_loss
#
#
# def nats(english, italian):
#     pair = collate(encode_pairs(tokenizer, [(english, italian)]))
#     return translation_loss(models[0], pair, smoothing=0.0).item()
#
#
# by_greedy = translate(greedy_search, models[0])
# by_beam = translate(beam_search, models[0])
# lines = list(zip(english, italian, by_greedy, by_beam))
# helped = [line for line in lines if line[2] != line[1] == line[3]]
# failed = [line for line in lines if line[2] != line[1] != line[3]]
# for source, *found in helped[:3] + failed[:3]:
#     print(source)
#     for name, italian_text in zip(("right", "greedy", "beam 5"), found):
#         print(f"  {name:7} {nats(source, italian_text):.2f}  {italian_text}")

# %% tags=["active-ipynb"]
# losses = [(nats(source, right), nats(source, beam)) for source, right, _, beam in failed]
# print("the wrong one has the lower loss in 8 of 10:", mean(b < r for r, b in losses) > 0.8)

# %% [markdown]
# In the first three the search was to blame: the model prefers the right sentence, and greedy
# search took a wrong turn or ran into a loop. In the last three the model itself prefers the wrong
# one, and no search can mend that.

# %% [markdown]
# **BLEU** (Papineni et al. 2002) also says how wrong a wrong translation is. Over the whole test
# set, $p_n$ is the share of the translations' $n$-grams (runs of $n$ words) that the references
# have, too, and as often. The score is $100\,(p_1\,p_2\,p_3\,p_4)^{1/4}$, times $e^{1 - r/c}$ if
# the translations have fewer words, $c$, than the references, $r$. **chrF** compares runs of 1 to 6
# characters. For the translator of chapter 11:

# %% tags=["active-ipynb"]
# from transformer.metrics import scores
#
# found = scores(translator.translate(english), italian)
# print("BLEU above 95:", found["BLEU"] > 95, "· chrF above 95:", found["chrF"] > 95)
# print(*(signature.split("|version")[0] for signature in found["signatures"]), sep="\n")

# %% [markdown]
# The signature says how a score was computed: one reference (`nrefs:1`), upper and lower case kept
# (`case:mixed`), words split by the rules `13a`, and the version of sacrebleu. A BLEU this high
# says as much about the test set as about the model. Compare two systems on the same test set,
# never on different ones.

# %% [markdown]
# ## What if
#
# What if the length penalty is left out? Then hypotheses are ranked by the plain sum of their
# log-probabilities. A wider beam finds sentences that are more probable in this sense. Will its
# translations be better? The control is the same search with the penalty, with the same models.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# widths = (1, 2, 4, 8)
# n_words = len(" ".join(italian).split())
# bleu = {}
# length = {}
# for name, penalty in (("with the penalty", 1.0), ("without", 0.0)):
#     options = [dict(beam_size=beam, length_penalty=penalty) for beam in widths]
#     found = [[translate(beam_search, m, **each) for each in options] for m in models]
#     bleu[name] = torch.tensor([[scores(t, italian)["BLEU"] for t in row] for row in found])
#     words = torch.tensor([[len(" ".join(t).split()) for t in row] for row in found])
#     length[name] = (words / n_words).mean(0)
#
# plot_lines(
#     {name: runs.mean(0) for name, runs in bleu.items()},
#     x=widths,
#     xlabel="beam",
#     ylabel="BLEU",
#     title="Mean of 3 models",
# )
# for name, ratio in length.items():
#     print(f"{name:17} length / length of the reference:", [f"{x:.2f}" for x in ratio.tolist()])

# %% tags=["active-ipynb"]
# penalised = bleu["with the penalty"]
# plain = bleu["without"]
# assert (penalised[:, 2:] > plain[:, 2:]).all() and (penalised[:, 3] > penalised[:, 0]).all()
# assert length["without"][3] < length["with the penalty"][3] - 0.03

# %% [markdown]
# Not without the penalty. The wider the beam, the shorter the translations, because each token that
# is left out saves its $-\log p$, and beyond a beam of two the score falls. The search finds what
# its ranking asks for, and the plain sum asks for short sentences.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 12.1 | One position, with a cache | write the block | 25 | ★★☆ |
# | 12.2 | Greedy search | write the block | 20 | ★☆☆ |
# | 12.3 | Beam search | write the block | 45 | ★★★ |
# | 12.4 | Two beams on paper | by hand | 10 | ★☆☆ |
# | 12.5 | Cached is not uncached | find the bug | 20 | ★★☆ |
# | 12.6 | A test for a search | write the test | 25 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 12` says what is wrong, and `course hint 12.1` gives a hint.

# %% [markdown]
# ## Summary
#
# A translation is written token by token, and because the past never changes, its keys and values
# are kept: each step computes one position. Greedy search takes the best next token, a beam keeps
# several beginnings and ranks them with a length penalty, and sampling draws.
#
# **Write it from memory**: close the chapter and write `decode_position` and `greedy_search`;
# `check_incremental(IncrementalDecoder)` and `check_greedy(greedy_search)` say whether they are
# right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | beam of 4 ([section 6.1](https://arxiv.org/abs/1706.03762)) | 5 by default | a common choice |
# | length penalty $\alpha = 0.6$, by $((5 + t)/6)^\alpha$ (section 6.1; Wu et al. 2016) | $t^\alpha$ with $\alpha = 1$: the mean log-probability a token | simpler |
# | output up to 50 tokens longer than the input (section 6.1) | twice the input, whose length is rounded up to a multiple of 16 | captions are short |
# | says nothing of a cache | keys and values kept | the same output for a fraction of the work |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | memory, once | `b k d_model` | (2, 8, 24) | (64, 8, 512) |
# | source keys and values, once a layer | `b h k d_head` | (2, 4, 8, 6) | (64, 8, 8, 64) |
# | the new position | `b 1 d_model` | (2, 1, 24) | (64, 1, 512) |
# | target keys and values at step $t$ | `b h t d_head` | (2, 4, t, 6) | (64, 8, t, 64) |
# | logits of the next token | `b vocab` | (2, 588) | (64, 37000) |
# | rows with a beam of 5 | `r`, that is `(b beam)` | 10 | 320 |
#
# That is the whole Transformer, from ids to a translation. To train it on text of your own, see
# `python -m transformer train --help`. In [chapter 13](13_pretrained.ipynb), translators that others
# trained run in these blocks.
