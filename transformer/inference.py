# %% [markdown]
r"""
# 12 · Inference

**At last it translates: one token at a time, each new one read back in.**

![The architecture; the output and the way on which each new token goes back into the decoder are lit](../figures/architecture_12.svg)
"""

# %%
import functools
import heapq
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from itertools import chain, product
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from sacrebleu.metrics import BLEU, CHRF
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from transformer.data import cache_dir, decode, encode, pad
from transformer.decoder import DecoderLayer, padding_mask
from transformer.export import CTranslate2Engine, current_ctranslate2
from transformer.fast import PackedDecoder, top_k
from transformer.model import Config, Transformer, load_model

# %% [markdown]
# ## The question
#
# In training the right words were given. Now there is only a source, and the translation has to be *found*: the sequence
# $y$ of tokens that the model thinks likeliest,
#
# $$\log p(y \mid x) = \sum_t \log p(y_t \mid y_1 \dots y_{t-1},\, x)$$
#
# Try all of them? A vocabulary of 600 and a translation of 8 tokens:

# %% tags=["active-ipynb"]
# f"{600**8:.0e} sequences"

# %% [markdown]
# So it is written token by token, and two questions come up. **What does a token cost**, if every step reads again all that was
# written before? And **which token** to take, when the likeliest now may lead to a poor sentence later?

# %% [markdown]
# ## By hand
#
# *There is a cat on the mat* is 7 tokens. The model is 128 wide; one head keeps the shapes plain, and its weights are random,
# because shapes don't care. The encoder runs **once**. Its output, the memory, will be asked at every step:

# %% tags=["active-ipynb"]
# from einops import einsum
#
# torch.manual_seed(0)
# model = Transformer(Config.tiny(600, n_heads=1, n_layers=1, dropout=0.0)).eval().requires_grad_(False)
# layer = model.decoder.layers[0]
#
# src = torch.tensor([[31, 32, 33, 34, 35, 36, 37]])  # there is a cat on the mat
# memory = model.encode(src)
# print("src", *src.shape, "→ memory", *memory.shape)

# %% [markdown]
# ### Step 1
#
# All that is written is `<s>`. One query meets one key: a single score, and softmax of a single number is 1. Self-attention
# has nothing to choose yet.

# %% tags=["active-ipynb"]
# x = model.embed(torch.tensor([[1]]))  # <s>
# q, k = layer.self_attention.w_q(x), layer.self_attention.w_k(x)
# scores_self = einsum(q[0], k[0], "q d, k d -> q k") / 128**0.5
#
# print("x", tuple(x.shape), "· q·kᵀ", tuple(scores_self.shape), "· weights", scores_self.softmax(-1).tolist())

# %% [markdown]
# Then this one position asks the source. One query, seven keys: a mixing formula of seven numbers, and one vector comes back.

# %% tags=["active-ipynb"]
# x = layer.residuals[0](x, lambda y: layer.self_attention(y, y))
# q, k, v = layer.cross_attention.w_q(x), layer.cross_attention.w_k(memory), layer.cross_attention.w_v(memory)
#
# weights = (einsum(q, k, "b q d, b k d -> b q k") / 128**0.5).softmax(-1)
# mixed = einsum(weights, v, "b q k, b k d -> b q d")
# print("(1, 1, 128) × (1, 128, 7) →", tuple(weights.shape), "→", tuple(mixed.shape))

# %% [markdown]
# The rest of the decoder keeps that shape, and the last layer turns it into 600 logits. The best of them is the first token.

# %% tags=["active-ipynb"]
# first = model.decode(torch.tensor([[1]]), memory, src)
# token = first[:, -1].argmax(-1)
# print("logits", tuple(first.shape), "→ token", tuple(token.shape))

# %% [markdown]
# ### Step 2
#
# The new token is read back in: two positions, two rows of logits. **Only the last row is used**; the other one asks again what
# step 1 has answered. Is its answer the same?

# %% tags=["active-ipynb"]
# written = torch.tensor([[1, int(token)]])
# x = model.embed(written)
# second = model.decode(written, memory, src)
# print("x", tuple(x.shape), "· logits", tuple(second.shape))
#
# torch.testing.assert_close(second[:, :1], first)

# %% [markdown]
# It is. Because of the causal mask, a position never learns of what is written after it, so **nothing about the past changes**. All
# the work on it was done before. And what does a new position want from the old ones? Their keys and values, nothing else. So keep
# those:
#
# ![Three steps of decoding at width 128: self-attention's keys and values grow, those of the source stay](../figures/12_cache.svg)

# %% [markdown]
# That is the **KV cache**. In cross-attention, keys and values come from the memory: computed once for a sentence. In
# self-attention each step adds one row. A new token then is a single row on its way through the decoder, however much was
# written before.

# %% [markdown]
# ### Which token?
#
# **Greedy search** takes the likeliest token at every step. Here is a small tree of beginnings, and the chance of each next word
# (what is missing is rare). English: *I love you very much*.

# %% tags=["active-ipynb"]
# from math import exp, log
#
# chances = {
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
#     """All one-word extensions of some beginnings, each with its sum of log-probabilities, best first."""
#     longer = [(f"{text} {word}".strip(), score + log(p)) for text, score in beam for word, p in chances[text].items()]
#     return sorted(longer, key=lambda item: -item[1])

# %% [markdown]
# The search keeps the best $B$ beginnings, extends each, and again keeps the best $B$. With $B = 1$ it is greedy:

# %% tags=["active-ipynb"]
# for beam_size in (1, 2):
#     beam = [("", 0.0)]
#     for _ in range(4):
#         beam = extend(beam)[:beam_size]
#     print(f"B = {beam_size}:", " · ".join(f"{text} {score:.2f} = log {exp(score):.2f}" for text, score in beam))

# %% [markdown]
# On paper: greedy follows *io*, $0.48 \cdot 0.55 \cdot 0.85 \cdot 0.75 = 0.17$, and is not even done. The other way,
# $0.44 \cdot 0.9 \cdot 0.8 \cdot 0.95 = 0.30$, begins with the second best word. Greedy is **short-sighted**: one step cannot be undone,
# and what looks best now may be followed by doubt. (Italians drop *io*, too.)
#
# ![A beam search of width 2: of all continuations the two with the best sum of log-probabilities are kept](../figures/12_beam.svg)

# %% [markdown]
# Why keep only $B$? If each of $B$ beginnings goes on in its $B$ best ways, there are $B^2$, then $B^3$, then $B^4$. **Beam search**
# prunes them to $B$ after every step, so its cost grows with the length and no faster. No promise comes with it: the best sentence may be pruned early.

# %% tags=["active-ipynb"]
# beam_size, length = 5, 10
# print("unpruned:", f"{beam_size**length:,}", "· pruned, candidates in all:", beam_size + (length - 1) * beam_size**2)

# %% [markdown]
# ### Long or short?
#
# Every token makes the sum of log-probabilities smaller, so the plain sum likes short sentences. Dividing by
# $\text{length}^\alpha$ is the **length penalty**. Three tokens with a half each, against five with 0.6 each:

# %% tags=["active-ipynb"]
# for alpha in (0.0, 1.0):
#     short, long = 3 * log(0.5) / 3**alpha, 5 * log(0.6) / 5**alpha
#     print(f"α = {alpha:.0f}: short {short:.2f} · long {long:.2f} · wins: {'short' if short > long else 'long'}")

# %% [markdown]
# ### Or throw dice
#
# **Sampling** draws a token by its probability; there is another sentence every time. A **temperature** $T$ divides the logits first, which raises probabilities
# to the power $1/T$: with 0.5 they are squared, and the likely gets likelier. `top_k` leaves only the $k$ likeliest.

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
# ### The cache
#
# One for each decoder layer: the source's keys and values, and those of the target so far.


# %%
class KVCache:
    """What one decoder layer remembers: keys and values of the source, fixed, and of the target so far, growing."""

    def __init__(self, layer: DecoderLayer, memory: Float[Tensor, "b k d_model"]):
        self.layer = layer
        self.source = layer.cross_attention.keys_values(memory)
        self.target: tuple[Tensor, Tensor] | None = None

    def append(self, k: Float[Tensor, "b h 1 d"], v: Float[Tensor, "b h 1 d"]) -> tuple[Tensor, Tensor]:
        """Remember one more position and return all of them."""
        if self.target is not None:
            k, v = torch.cat([self.target[0], k], dim=2), torch.cat([self.target[1], v], dim=2)
        self.target = k, v
        return self.target

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keep the target rows named, in that order: when beams change places, so does what they remember."""
        self.target = self.target[0][rows], self.target[1][rows]

    def keep(self, sentences: Int[Tensor, " b"]) -> None:
        """Keep the sentences named, each with all its hypotheses; the others have ended."""
        n = len(self.target[0]) // len(self.source[0])
        self.source = self.source[0][sentences], self.source[1][sentences]
        self.select(rearrange(n * sentences.unsqueeze(-1) + torch.arange(n, device=sentences.device), "b n -> (b n)"))


# %% [markdown]
# A step is the layer of chapter 8 for one row: the same three sublayers with the same residuals, but self-attention appends to the
# cache and asks what is in it. No causal mask is needed, because the future is not there.
#
# Several hypotheses for one source need only one copy of its keys and values: they ask it together, as so many queries.


# %% tags=["exercise"]
def next_states(x: Float[Tensor, "b 1 d"], cache: KVCache, src_mask: Tensor) -> Float[Tensor, "b 1 d"]:
    """Run a decoder layer for one new position: equal to the last row of the whole, for a fraction of the work.

    When `x` has n hypotheses for each source, they ask it together, as n queries.
    """
    layer, n = cache.layer, len(x) // len(cache.source[0])

    def look_back(y: Tensor) -> Tensor:
        return layer.self_attention.attend(y, *cache.append(*layer.self_attention.keys_values(y)))

    def ask(y: Tensor) -> Tensor:
        together = rearrange(y, "(b n) 1 d -> b n d", n=n)
        return rearrange(layer.cross_attention.attend(together, *cache.source, src_mask), "b n d -> (b n) 1 d")

    for residual, sublayer in zip(layer.residuals, (look_back, ask, layer.feed_forward), strict=True):
        x = residual(x, sublayer)
    return x


# %% [markdown]
# Every new token needs its own **position**. A decoder that is fed one token at a time and calls each of them number 0
# is a well-known mistake; nothing crashes, it only translates badly.


# %%
class IncrementalDecoder:
    """Decode a batch of sentences token by token; with n hypotheses for each, row i · n + j is number j of sentence i."""

    def __init__(self, model: Transformer, src: Int[Tensor, "b k"]):
        memory = model.encode(src)
        self.model, self.position = model, 0
        self.src_mask = padding_mask(src, model.config.pad_id)
        self.caches = [KVCache(layer, memory) for layer in model.decoder.layers]

    def step(self, ids: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
        """Read one more token in each row and return the logits of the next."""
        x = self.model.embed(rearrange(ids, "b -> b 1"), start=self.position)
        for cache in self.caches:
            x = next_states(x, cache, self.src_mask)
        self.position += 1
        return rearrange(self.model.logits(self.model.decoder.norm(x)), "b 1 v -> b v")

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Continue with the rows named, in that order; a row takes the place of another one of its sentence."""
        for cache in self.caches:
            cache.select(rows)

    def keep(self, sentences: Int[Tensor, " b"]) -> None:
        """Continue with the sentences named, in that order."""
        self.src_mask = self.src_mask[sentences]
        for cache in self.caches:
            cache.keep(sentences)


# %% [markdown]
# ### Greedy search and sampling
#
# Decoding with dropout is another mistake that doesn't crash. `decoding` switches it off and leaves the model as it was.


# %%
@contextmanager
def decoding(model: Transformer) -> Iterator[None]:
    """Switch dropout and gradients off, and put the model back as it was."""
    training = model.training
    try:
        with torch.inference_mode():
            yield model.eval() if training else model
    finally:
        if training:
            model.train()


# %% [markdown]
# The loop is the same for both; only the choice differs. A row that has written `</s>` gets padding, and as soon as a quarter
# of the rows has ended, they leave the batch: why compute what nobody reads? Padding and `<s>` are never a next token. (`top_k` below is
# PyTorch's `topk`, quicker; chapter 15 shows how.)


# %%
def generate(
    model: Transformer,
    src: Int[Tensor, "b k"],
    max_len: int,
    choose: Callable[[Tensor], Tensor],
    decoder: Callable = IncrementalDecoder,
) -> Int[Tensor, "b t"]:
    """Write token after token as `choose` picks them from the logits, until </s> or `max_len` tokens.

    Rows that end early are filled with padding. `decoder` reads token by token: `IncrementalDecoder` or one like it.
    """
    config = model.config
    with decoding(model):
        steps, written = decoder(model, src), src.new_full((len(src), min(max_len, config.max_len)), config.pad_id)
        ids, going = src.new_full((len(src),), config.bos_id), torch.arange(len(src), device=src.device)
        done = torch.zeros_like(ids, dtype=torch.bool)
        for t in range(written.shape[1]):
            ids = choose(only_words(steps.step(ids), config)).masked_fill(done, config.pad_id)
            written[going, t] = ids
            done |= ids == config.eos_id
            ended = int(done.sum())
            if ended == len(done):
                return written[:, : t + 1]
            if 4 * ended >= len(done):
                stay = (~done).nonzero().squeeze(-1)
                steps.keep(stay)
                ids, done, going = ids[stay], done[stay], going[stay]
        return written


# %%
def only_words(logits: Float[Tensor, "... v"], config: Config) -> Float[Tensor, "... v"]:
    """Rule out, in place, what is never a next token: padding and <s>."""
    logits[..., config.pad_id] = logits[..., config.bos_id] = -torch.inf
    return logits


# %% tags=["exercise"]
def greedy_search(
    model: Transformer, src: Int[Tensor, "b k"], max_len: int = 64, decoder: Callable = IncrementalDecoder
) -> Int[Tensor, "b t"]:
    """Return the translation that takes the likeliest token at every step, without <s>, with </s>, padded."""
    return generate(model, src, max_len, lambda logits: top_k(logits, 1).indices.squeeze(-1), decoder)


# %% tags=["exercise"]
def sample(
    model: Transformer,
    src: Int[Tensor, "b k"],
    temperature: float = 1.0,
    top_k: int | None = None,
    max_len: int = 64,
    generator: torch.Generator | None = None,
    decoder: Callable = IncrementalDecoder,
) -> Int[Tensor, "b t"]:
    """Return a translation drawn at random: by probability, sharpened by a low temperature, from the top_k tokens."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}; greedy_search is its limit at 0")

    def choose(logits: Tensor) -> Tensor:
        if top_k is not None:
            logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
        return (logits / temperature).softmax(-1).multinomial(1, generator=generator).squeeze(-1)

    return generate(model, src, max_len, choose, decoder)


# %% [markdown]
# ### Beam search
#
# A hypothesis that reaches `</s>` leaves the beam: it must not be extended, and must not be lost. Its place is taken by the next
# best. For each sentence the best finished one is remembered, ranked with the length penalty.


# %% tags=["exercise"]
class Finished:
    """The best finished hypothesis of each sentence, by log-probability / length ** penalty."""

    def __init__(self, src: Int[Tensor, "b k"], max_len: int, penalty: float, pad_id: int):
        self.ids = src.new_full((len(src), max_len), pad_id)
        self.log_probs = torch.full((len(src),), -torch.inf, device=src.device)
        self.ranks = self.log_probs.clone()
        self.count = torch.zeros_like(src[:, 0])
        self.penalty, self.pad_id = penalty, pad_id

    def add(
        self,
        sentences: Int[Tensor, " b"],
        ids: Int[Tensor, "b n t"],
        log_probs: Float[Tensor, "b n"],
        ended: Bool[Tensor, "b n"],
        beam_size: int,
    ) -> None:
        """Take in those hypotheses of some sentences that have `ended`, where there are still fewer than beam_size."""
        if not ended.any():
            return
        ended = ended & log_probs.isfinite() & (self.count[sentences] < beam_size).unsqueeze(-1)
        self.count[sentences] += ended.sum(-1)
        ranks, best = (log_probs / ids.shape[-1] ** self.penalty).masked_fill(~ended, -torch.inf).max(-1)
        better = (ranks > self.ranks[sentences]).nonzero().squeeze(-1)
        rows, best = sentences[better], best[better]
        self.ids[rows, : ids.shape[-1]] = ids[better, best]
        self.log_probs[rows], self.ranks[rows] = log_probs[better, best], ranks[better]

    def result(self) -> tuple[Int[Tensor, "b t"], Float[Tensor, " b"]]:
        """Return the best hypothesis of each sentence and its log-probability."""
        longest = int((self.ids != self.pad_id).sum(-1).max())
        return self.ids[:, :longest], self.log_probs


# %% [markdown]
# What has not ended is the **beam**. At the start it holds one hypothesis, `<s>`; its $n$ best extensions are different, and fill it.


# %%
class Beam:
    """The unfinished hypotheses of each sentence that is still going, n of each, and their log-probabilities."""

    def __init__(self, src: Int[Tensor, "b k"], bos_id: int):
        self.sentences = torch.arange(len(src), device=src.device)
        self.written = src.new_full((len(src), 1, 1), bos_id)
        self.scores = torch.zeros(len(src), 1, device=src.device)

    def last(self) -> Int[Tensor, " b"]:
        """Return the tokens written last, one for each row."""
        return rearrange(self.written[..., -1], "b n -> (b n)")

    def go_on(self, scores: Float[Tensor, "b c"], written: Int[Tensor, "b c t"], rows: Tensor, size: int) -> Tensor:
        """Take the best of the candidates, at most `size`, and return the rows that these extend."""
        self.scores, best = scores.topk(min(size, scores.shape[1]))
        self.written = written.gather(1, repeat(best, "b n -> b n t", t=written.shape[-1]))
        return rearrange(rows.gather(1, best), "b n -> (b n)")

    def keep(self, going: Bool[Tensor, " b"]) -> Tensor:
        """Let the other sentences go, and return which stayed."""
        stay = going.nonzero().squeeze(-1)
        self.sentences, self.written, self.scores = self.sentences[stay], self.written[stay], self.scores[stay]
        return stay


# %% [markdown]
# Then, at every step, log-probabilities are added, not logits, which mean nothing across rows. The best $2n$ of all $n \cdot v$ extensions
# are taken, of which at most $n$ can have ended.


# %% tags=["exercise"]
def best_extensions(
    beam: Beam, log_probs: Float[Tensor, "... v"], count: int
) -> tuple[Float[Tensor, "b c"], Int[Tensor, "b c t"], Int[Tensor, "b c"]]:
    """Return the `count` best one-token extensions: log-probabilities, ids, and the row that each extends."""
    (b, n), v = beam.scores.shape, log_probs.shape[-1]
    top, index = top_k(log_probs, min(count, n * v), offsets=beam.scores)  # the largest of scores + log_probs
    parents, tokens = index // v, index % v
    prefixes = beam.written.gather(1, repeat(parents, "b c -> b c t", t=beam.written.shape[-1]))
    rows = parents + n * torch.arange(b, device=parents.device).unsqueeze(-1)
    return top, torch.cat([prefixes, tokens.unsqueeze(-1)], dim=-1), rows


# %% [markdown]
# And when hypotheses change places, **the cache changes with them**; forget that, and each continues with another's past. Sentences that are
# done leave, as in greedy search.


# %% tags=["exercise"]
def beam_search(
    model: Transformer,
    src: Int[Tensor, "b k"],
    beam_size: int = 5,
    length_penalty: float = 1.0,
    max_len: int = 64,
    decoder: Callable = IncrementalDecoder,
) -> tuple[Int[Tensor, "b t"], Float[Tensor, " b"]]:
    """Return the best translation found with beam_size hypotheses a sentence, and its log-probability.

    A sentence is done when beam_size hypotheses have reached </s>; of these the best by log-probability /
    length ** length_penalty is returned, padded. What has not ended after `max_len` tokens is cut off there.
    """
    config, n, max_len = model.config, at_least_one(beam_size), min(max_len, model.config.max_len)
    with decoding(model):
        steps, beam = decoder(model, src), Beam(src, config.bos_id)
        finished = Finished(src, max_len, length_penalty, config.pad_id)
        for t in range(1, max_len + 1):
            logits = steps.step(beam.last()).float()  # nobody else needs these: they become log-probabilities in place
            log_probs = only_words(torch.log_softmax(logits, -1, out=logits), config)
            top, written, rows = best_extensions(beam, log_probs, 2 * n)
            ended = (written[..., -1] == config.eos_id) | (t == max_len)
            finished.add(beam.sentences, written[:, :n, 1:], top[:, :n], ended[:, :n], n)
            done = finished.count[beam.sentences] >= n
            if done.all():
                break
            steps.select(beam.go_on(top.masked_fill(ended, -torch.inf), written, rows, n))
            if 4 * done.sum() >= len(done):
                steps.keep(beam.keep(~done))
        return finished.result()


# %%
def at_least_one(beam_size: int) -> int:
    """Return the beam size; ValueError when it holds no hypothesis."""
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, not {beam_size}")
    return beam_size


# %% [markdown]
# ### From text to text
#
# A model and its vocabulary make a translator. Sentences of like length go together, because padding is work for nothing. `PackedDecoder`
# does what `IncrementalDecoder` does, faster; chapter 15 tells how.


# %%
class TorchEngine:
    """Search with PyTorch: on a CPU as many groups at once as there are threads, on a GPU one after the other."""

    def __init__(self, model: Transformer):
        self.model, self.decoder = model, PackedDecoder(model)

    def search_all(
        self, groups: Sequence[tuple[list[list[int]], int]], beam_size: int = 5, length_penalty: float = 1.0
    ) -> Iterator[list[list[int]]]:
        """Yield the translations of each group of sources with its max_len, ids in and ids out, padding included."""
        model, device = self.model, self.model.bias.device

        def search(group: tuple[list[list[int]], int]) -> list[list[int]]:
            rows, max_len = group
            src = pad(rows, model.config.pad_id).to(device)
            if beam_size == 1:
                return greedy_search(model, src, max_len, self.decoder).tolist()
            return beam_search(model, src, beam_size, length_penalty, max_len, self.decoder)[0].tolist()

        workers = torch.get_num_threads() if device.type == "cpu" else 1
        pieces = shared_out(groups, workers)
        with decoding(model), closing(spread(search, list(chain(*pieces)), workers)) as found:
            for group in pieces:
                yield [ids for _ in group for ids in next(found)]


# %%
def shared_out(groups: Sequence[tuple[list[list[int]], int]], workers: int) -> list[list[tuple[list[list[int]], int]]]:
    """Cut the last groups into pieces, as many groups and as small as it takes for the workers to end soonest."""
    sizes = [len(rows) for rows, _ in groups]
    tries = [max(0, len(sizes) - whole) for whole in range(2 * workers + 1)], range(max(sizes, default=0), 7, -4)
    plans = [sizes[:whole] + [min(size, part) for size in sizes[whole:]] for whole, part in product(*tries)]
    plan = min(plans, key=lambda parts: last_end(sizes, parts, workers), default=sizes)
    return [
        [(rows[i : i + part], max_len) for i in range(0, len(rows), part)]
        for (rows, max_len), part in zip(groups, plan, strict=True)
    ]


# %%
def last_end(sizes: Sequence[int], parts: Sequence[int], workers: int, call: int = 8) -> int:
    """Return when the last worker ends, if pieces are taken in order and `call` sentences more would cost what each piece does."""
    ends = [0] * workers
    for size, part in zip(sizes, parts, strict=True):
        for start in range(0, size, part):
            heapq.heapreplace(ends, ends[0] + min(part, size - start) + call)
    return max(ends)


# %%
def spread(work: Callable, groups: Sequence, workers: int | None = None) -> Iterator:
    """Yield work(group) for each group, in order, by one-thread workers: as many as PyTorch has threads, unless said.

    A small operator has too little to do for two threads; a whole group has enough.
    """
    threads = torch.get_num_threads()
    workers = workers or threads
    if min(workers, len(groups)) < 2:
        yield from map(work, groups)
        return
    torch.set_num_threads(1)
    futures = [crew(workers, os.getpid()).submit(work, group) for group in groups]
    try:
        yield from (future.result() for future in futures)
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
        torch.set_num_threads(threads)


# %%
@functools.cache
def crew(workers: int, process: int) -> ThreadPoolExecutor:
    """Return one-thread workers, which a process keeps: memory that they have used before, they use again without page faults."""
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))


# %%
class Translator:
    """A model and its vocabulary: sentences in, sentences out.

    `engine` searches; by default it is PyTorch's, with a copy of the decoder's weights as they are now.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, engine: TorchEngine | CTranslate2Engine | None = None):
        self.model, self.tokenizer, self.engine = model, tokenizer, engine or TorchEngine(model)

    @classmethod
    def load(
        cls, name: str | Path, device: str = "cpu", engine: str = "torch", precision: str = "fp32"
    ) -> "Translator":
        """Read a translator from a folder, or by the name under which it was trained.

        `engine` is torch or ctranslate2 (exported at first use), `precision` fp32, bf16 (torch) or int8 (ctranslate2).
        """
        folder = model_folder(name)
        model = load_model(folder).to(device)
        tokenizer = read_tokenizer(folder / "tokenizer.json", model.config.vocab_size)
        if engine == "ctranslate2":
            exported = current_ctranslate2(model, tokenizer, folder / "ctranslate2")
            return cls(model, tokenizer, CTranslate2Engine(exported, model.config, device, precision))
        if engine != "torch" or precision not in ("fp32", "bf16"):
            raise ValueError(f"engine torch has fp32 and bf16, ctranslate2 fp32 and int8: not {engine} {precision}")
        return cls(model.bfloat16() if precision == "bf16" else model, tokenizer)

    def translate(
        self,
        texts: Sequence[str],
        beam_size: int = 5,
        length_penalty: float = 1.0,
        max_tokens: int = 4096,
        progress: bool = False,
    ) -> list[str]:
        """Return the translation of every text; `beam_size` 1 is greedy search.

        Texts of like length are translated together, up to `max_tokens` hypotheses × source places at once. ValueError for a text
        that is empty, has no known character, or is longer than the model's max_len.
        """
        if isinstance(texts, str):
            raise ValueError("translate takes a list of sentences, not one string")
        rows = encode(self.tokenizer, texts)
        check_lengths(rows, self.model.config.max_len)
        groups = groups_by_length(rows, max_tokens // at_least_one(beam_size))
        work = [([rows[i] for i in group], 2 * bucket(len(rows[group[0]]))) for group in groups]
        results = self.engine.search_all(work, beam_size, length_penalty)
        found: dict[int, list[int]] = {}
        for group, ids in zip(groups, tqdm(results, "translating", len(groups), disable=not progress), strict=True):
            found |= zip(group, ids, strict=True)
        return decode(self.tokenizer, [found[i] for i in range(len(rows))])


# %%
def check_lengths(rows: Sequence[Sequence[int]], limit: int) -> None:
    """Raise a ValueError that names the first text that is longer than the model can read."""
    for number, row in enumerate(rows, start=1):
        if len(row) > limit:
            raise ValueError(f"text {number} has {len(row)} tokens, the model's max_len is {limit}: split it")


# %%
def model_folder(name: str | Path) -> Path:
    """Return the folder that is named, or that was trained under that name; FileNotFoundError when there is neither."""
    folder = next((path for path in (Path(name), cache_dir() / name) if (path / "config.json").is_file()), None)
    if folder is None:
        raise FileNotFoundError(
            f"there is no model {str(name)!r}: give a folder with config.json, model.safetensors and tokenizer.json, "
            "or train one with `python -m transformer train`"
        )
    return folder


# %%
def bucket(length: int) -> int:
    """Return the length rounded up to a multiple of 16: a limit that does not depend on neighbours in a batch."""
    return 16 * math.ceil(length / 16)


# %%
def groups_by_length(rows: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Return the numbers of the rows, longest first, in groups of one bucket and of at most `max_tokens` places."""
    groups: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        longest = len(rows[groups[-1][0]]) if groups else 0
        if bucket(longest) != bucket(len(rows[i])) or longest * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
        groups[-1].append(i)
    return groups


# %%
def read_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    """Read a tokenizer.json; ValueError when it is damaged or made for another model."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:
        raise ValueError(f"{path} is not a tokenizer ({error!s:.200})") from None
    tokenizer.encode_special_tokens = True
    if tokenizer.get_vocab_size() != vocab_size:
        entries = tokenizer.get_vocab_size()
        raise ValueError(f"{path} has {entries} entries and the model {vocab_size}: they do not belong together")
    return tokenizer


# %% [markdown]
# How good is a translation? **BLEU** compares its word sequences with a reference's, **chrF** its character sequences, over a whole test set.
# Both depend on details, such as how words are split. So a score comes with a signature that says how it was computed; without one it
# cannot be compared.


# %%
def scores(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> dict[str, float | list[str]]:
    """Return BLEU and chrF of a whole test set with the signatures that say how they were computed.

    Source: Post 2018 (sacrebleu). `tokenize` "none" is for text that is tokenized already.
    """
    metrics = {"BLEU": BLEU(tokenize=tokenize, force=tokenize == "none"), "chrF": CHRF()}
    hypotheses, references = list(hypotheses), [list(references)]
    found = {name: round(metric.corpus_score(hypotheses, references).score, 2) for name, metric in metrics.items()}
    return found | {"signatures": [f"{name}: {metric.get_signature()}" for name, metric in metrics.items()]}


# %%
def moses_tokens(texts: Sequence[str], language: str) -> list[str]:
    """Return the texts as lowercased, normalised Moses tokens: the form in which papers on Multi30k score."""
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError:
        raise ValueError("Moses tokens need the package sacremoses: pip install sacremoses") from None
    normalizer, tokenizer = MosesPunctNormalizer(language), MosesTokenizer(language)
    return [tokenizer.tokenize(normalizer.normalize(text.lower()), return_str=True) for text in texts]


# %% [markdown]
# ## The proof
#
# **Cached equals uncached.** A model of four heads and two layers, three sources of different lengths, 20 tokens: once in a single pass as in
# training, once token by token.

# %% tags=["active-ipynb"]
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
# **And what does it save?** Count the multiplications with weight matrices, for a translation of 20 tokens: reading everything
# again at each step, and with the cache.

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
# without, with_cache = multiplications(uncached, 20), multiplications(cached, 20)
# print(f"without a cache {without:,} · with it {with_cache:,} · {without / with_cache:.0f} times as many without")

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
# Without a cache the cost grows with the square of the length, with it in proportion. (Attention itself still looks at all keys; at these
# lengths that is small change.)

# %% [markdown]
# **A beam of one is greedy search**, and a score is the **true log-probability**: give the finished translation back by teacher
# forcing, add up the log-probabilities of its tokens, and the same number must come out.

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
# **A beam that is wide enough finds the best of all.** Six ids, at most three tokens: few enough to try every sequence. Greedy
# search misses the best; a beam of 64 holds them all.

# %% tags=["active-ipynb"]
# from itertools import product
#
# torch.manual_seed(1)
# small = Transformer(Config.tiny(6, n_layers=1)).eval().requires_grad_(False)
# small.decoder.layers[-1].residuals[-1].norm.gain.normal_(std=2)  # fresh weights have hardly an opinion
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
# The checks try what goes wrong in practice: position 0 for every token, a search that runs on after `</s>` or in training mode, finished
# hypotheses thrown away, logits added as if they were log-probabilities, a cache that stays in the old order.

# %% tags=["active-ipynb"]
# from transformer.checks import check_beam_search, check_greedy, check_incremental, check_sample
#
# check_incremental(IncrementalDecoder)
# check_greedy(greedy_search)
# check_sample(sample)
# check_beam_search(beam_search)

# %% [markdown]
# ## The look
#
# Now the translator that chapter 11 trained. (If it is not there yet, the next cell trains it: a few minutes, once.)

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.training import trained_translator
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
# The first has three words for five: the subject is dropped, *you* has moved before the verb. In the second, *on the* has melted into one
# word. A negation and a question; Italian asks by a question mark alone:

# %% tags=["active-ipynb"]
# show("I do not love you", "does the girl read the interesting book?")

# %% [markdown]
# **Agreement** is what attention is for. *Red* and *tired* have four forms each; which one is right is decided by a word elsewhere in the
# sentence. And *it* can only be *la* or *lo* by looking back at what was read:

# %% tags=["active-ipynb"]
# show("the red house", "the red houses", "the girl is very tired", "the boys are very tired")
# show("she reads the book and buys it", "she reads the letter and buys it")

# %% [markdown]
# ### Where does it look?
#
# Cross-attention of the last layer while it writes the running sentence. Rows are queries: each stands for the token that is *being written*
# there. Columns are keys, the subwords of the source. The mask that the model used goes into the picture, too.

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
# from transformer.plotting import plot_attention
#
# trained, tokenizer = translator.model.requires_grad_(False), translator.tokenizer
# src = pad(encode(tokenizer, ["there is a cat on the mat"]))
# ids = greedy_search(trained, src)
#
# cross, seen = trained.decoder.layers[-1].cross_attention, []
# watch = cross.register_forward_pre_hook(lambda module, args: seen.append(args))
# trained(src, torch.cat([torch.tensor([[1]]), ids[:, :-1]], dim=1))
# watch.remove()
#
# rows, columns = ([tokenizer.id_to_token(i).strip("▁") for i in row[0].tolist()] for row in (ids, src))
# plot_attention(head_weights(cross, *seen[0])[0], queries=rows, keys=columns)

# %% [markdown]
# For *gatto* it looks at *cat*, for *sul* at *on*, for *tappeto* at *mat*: nobody ever told it which word belongs to which. The heads do not
# agree on *un*. Some look at *a*, which says that there is an article; others already at *cat*, which says which one, *un* or *una*.
# (Trained on another machine, the heads may share the work in another way.) One head alone, with its numbers:

# %% tags=["active-ipynb"]
# plot_attention(head_weights(cross, *seen[0])[0, 0], queries=rows, keys=columns, title="The first head")

# %% [markdown]
# ### Side by side
#
# 200 sentences of the test split, which it has never seen. What counts is the share of translations that are right to the
# letter: greedy, a beam of five, and four ways of throwing dice.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.data import english_italian
# from transformer.plotting import plot_bars
#
# english, italian = zip(*english_italian().test[:200])
# src = pad(encode(tokenizer, english))
#
#
# def exact(ids):
#     return sum(a == b for a, b in zip(decode(tokenizer, ids.tolist()), italian)) / len(italian)
#
#
# def dice(**options):
#     return exact(sample(trained, src, max_len=32, generator=torch.Generator().manual_seed(0), **options))
#
#
# shares = {
#     "greedy": exact(greedy_search(trained, src)),
#     "beam 5": exact(beam_search(trained, src, beam_size=5)[0]),
#     "sample": dice(),
#     "T = 0.5": dice(temperature=0.5),
#     "T = 3": dice(temperature=3.0),
#     "T = 3, top 3": dice(temperature=3.0, top_k=3),
# }
# plot_bars(shares, ylabel="exact match", title="Six ways to decode")

# %% tags=["active-ipynb"]
# for name in ("greedy", "beam 5", "sample", "T = 0.5"):
#     print(f"{name:8} at least 95 % right:", shares[name] >= 0.95)
# assert shares["T = 3"] < shares["T = 3, top 3"] < shares["greedy"]

# %% [markdown]
# This model is sure of itself, since every sentence has one translation: greedy and beam find the same. On real captions, where
# many words would do, a beam finds a little more. Heat makes the dice likelier to fall on nonsense, and one wrong token ruins
# a sentence; `top_k` keeps the worst away. Sampling is for when one wants *variety*, not the one best answer.

# %% tags=["active-ipynb"]
# found = scores(translator.translate(english), italian)
# print("BLEU above 95:", found["BLEU"] > 95, "· chrF above 95:", found["chrF"] > 95)
# print(*(signature.split("|version")[0] for signature in found["signatures"]), sep="\n")

# %% [markdown]
# The signature: one reference (`nrefs:1`), letters as they are (`case:mixed`), words split by the rules `13a`; the version of sacrebleu
# belongs to it as well. A BLEU this high says as much about the test as about the model. It is for comparing
# two systems on one test set, never numbers from different ones.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | beam of 4 (section 6.1) | 5 by default, free | a habit of the field |
# | length penalty $\alpha = 0.6$, by $((5 + t)/6)^\alpha$ (section 6.1; Wu et al. 2016) | $t^\alpha$ with $\alpha = 1$: the mean log-probability a token | simpler |
# | output up to 50 tokens longer than the input (section 6.1) | twice the input, rounded up to 16 | captions are short |
# | says nothing of a cache | keys and values kept | the same output for a fraction of the work |
# | checkpoint averaging (section 6.1) | averaged in training (chapter 11) | nothing left to do here |

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
# That is the whole Transformer, from ids to a translation. Now train it on text of your own:
# `python -m transformer train --help`. And to start over with open eyes: [the introduction](00_introduction.ipynb).
