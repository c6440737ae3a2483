# %% [markdown]
r"""
# 12 · Inference

**At last it translates: one token at a time, each new one read back in.**
"""

# %%
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from sacrebleu.metrics import BLEU, CHRF
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from transformer.data import cache_dir, decode, encode, pad
from transformer.decoder import DecoderLayer, padding_mask
from transformer.model import Config, Transformer, load_model

# %% [markdown]
# ## The definition


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
        """Continue with the rows named, in that order."""
        for cache in self.caches:
            cache.select(rows)


# %%
@contextmanager
def decoding(model: Transformer) -> Iterator[None]:
    """Switch dropout and gradients off, and put the model back as it was."""
    training = model.training
    try:
        with torch.inference_mode():
            yield model.eval()
    finally:
        model.train(training)


# %%
def generate(
    model: Transformer, src: Int[Tensor, "b k"], max_len: int, choose: Callable[[Tensor], Tensor]
) -> Int[Tensor, "b t"]:
    """Write token after token as `choose` picks them from the logits, until </s> or `max_len` tokens.

    Rows that end early are filled with padding.
    """
    config = model.config
    with decoding(model):
        decoder, written = IncrementalDecoder(model, src), []
        ids = src.new_full((len(src),), config.bos_id)
        done = torch.zeros_like(ids, dtype=torch.bool)
        for _ in range(max_len):
            ids = choose(only_words(decoder.step(ids), config)).masked_fill(done, config.pad_id)
            written.append(ids)
            done |= ids == config.eos_id
            if done.all():
                break
        return torch.stack(written, dim=1)


# %%
def only_words(logits: Float[Tensor, "... v"], config: Config) -> Float[Tensor, "... v"]:
    """Rule out what is never a next token: padding and <s>."""
    return logits.index_fill(-1, torch.tensor([config.pad_id, config.bos_id], device=logits.device), -torch.inf)


# %% tags=["exercise"]
def greedy_search(model: Transformer, src: Int[Tensor, "b k"], max_len: int = 64) -> Int[Tensor, "b t"]:
    """Return the translation that takes the likeliest token at every step, without <s>, with </s>, padded."""
    return generate(model, src, max_len, lambda logits: logits.argmax(-1))


# %% tags=["exercise"]
def sample(
    model: Transformer,
    src: Int[Tensor, "b k"],
    temperature: float = 1.0,
    top_k: int | None = None,
    max_len: int = 64,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "b t"]:
    """Return a translation drawn at random: by probability, sharpened by a low temperature, from the top_k tokens."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}; greedy_search is its limit at 0")

    def choose(logits: Tensor) -> Tensor:
        if top_k is not None:
            logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
        return (logits / temperature).softmax(-1).multinomial(1, generator=generator).squeeze(-1)

    return generate(model, src, max_len, choose)


# %% tags=["exercise"]
class Finished:
    """The best finished hypothesis of each sentence, by log-probability / length ** penalty."""

    def __init__(self, src: Int[Tensor, "b k"], max_len: int, penalty: float, pad_id: int):
        self.ids = src.new_full((len(src), max_len), pad_id)
        self.log_probs = torch.full((len(src),), -torch.inf, device=src.device)
        self.ranks = self.log_probs.clone()
        self.count = torch.zeros_like(src[:, 0])
        self.penalty = penalty

    def add(self, ids: Int[Tensor, "b n t"], log_probs: Float[Tensor, "b n"], ended: Tensor, beam_size: int) -> None:
        """Take in the hypotheses that have `ended`, for sentences that still have fewer than beam_size."""
        ended = ended & log_probs.isfinite() & (self.count < beam_size).unsqueeze(-1)
        ranks, best = (log_probs / ids.shape[-1] ** self.penalty).masked_fill(~ended, -torch.inf).max(-1)
        rows = (ranks > self.ranks).nonzero().squeeze(-1)
        best = best[rows]
        self.ids[rows, : ids.shape[-1]] = ids[rows, best]
        self.log_probs[rows], self.ranks[rows] = log_probs[rows, best], ranks[rows]
        self.count += ended.sum(-1)


# %% tags=["exercise"]
def beam_search(
    model: Transformer, src: Int[Tensor, "b k"], beam_size: int = 5, length_penalty: float = 1.0, max_len: int = 64
) -> tuple[Int[Tensor, "b t"], Float[Tensor, " b"]]:
    """Return the best translation found with beam_size hypotheses a sentence, and its log-probability.

    A sentence is done when beam_size hypotheses have reached </s>; of these the best by log-probability /
    length ** length_penalty is returned, padded. What has not ended after `max_len` tokens is cut off there.
    """
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, not {beam_size}")
    config, n = model.config, beam_size
    with decoding(model):
        decoder, finished = IncrementalDecoder(model, src), Finished(src, max_len, length_penalty, config.pad_id)
        written = src.new_full((len(src), n, 1), config.bos_id)
        scores = torch.zeros(len(src), n, device=src.device).index_fill(
            1, torch.arange(1, n, device=src.device), -torch.inf
        )
        for t in range(1, max_len + 1):
            log_probs = only_words(decoder.step(rearrange(written[..., -1], "b n -> (b n)")).log_softmax(-1), config)
            total = rearrange(scores, "b n -> b n 1") + rearrange(log_probs, "(b n) v -> b n v", n=n).float()
            top, written, parents = best_extensions(written, total, 2 * n)
            ended = (written[..., -1] == config.eos_id) | (t == max_len)
            finished.add(written[:, :n, 1:], top[:, :n], ended[:, :n], n)
            if (finished.count >= n).all() or t == max_len:
                break
            scores, alive = top.masked_fill(ended, -torch.inf).topk(n)
            written = written.gather(1, repeat(alive, "b n -> b n t", t=t + 1))
            first = n * torch.arange(len(src), device=src.device)
            decoder.select(rearrange(parents.gather(1, alive) + first.unsqueeze(-1), "b n -> (b n)"))
        longest = int((finished.ids != config.pad_id).sum(-1).max())
        return finished.ids[:, :longest], finished.log_probs


# %% tags=["exercise"]
def best_extensions(
    written: Int[Tensor, "b n t"], total: Float[Tensor, "b n v"], count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the `count` best of all n · v one-token extensions: log-probabilities, ids, and which hypothesis each extends."""
    v = total.shape[-1]
    flat = rearrange(total, "b n v -> b (n v)")
    top, index = flat.topk(min(count, flat.shape[-1]))
    parents, tokens = index // v, index % v
    prefixes = written.gather(1, repeat(parents, "b n -> b n t", t=written.shape[-1]))
    return top, torch.cat([prefixes, tokens.unsqueeze(-1)], dim=-1), parents


# %% [markdown]
# ## From text to text


# %%
class Translator:
    """A model and its vocabulary: sentences in, sentences out."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(cls, name: str | Path, device: str = "cpu") -> "Translator":
        """Read a translator from a folder, or by the name under which it was trained."""
        folder = next((path for path in (Path(name), cache_dir() / name) if (path / "config.json").is_file()), None)
        if folder is None:
            raise FileNotFoundError(
                f"there is no model {str(name)!r}: give a folder with config.json, model.safetensors and tokenizer.json, "
                "or train one with `python -m transformer train`"
            )
        return cls(load_model(folder).to(device), read_tokenizer(folder / "tokenizer.json"))

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
        limit = self.model.config.max_len
        for number, row in enumerate(rows, start=1):
            if len(row) > limit:
                raise ValueError(f"text {number} has {len(row)} tokens, the model's max_len is {limit}: split it")
        found: dict[int, list[int]] = {}
        for group in tqdm(groups_by_length(rows, max_tokens // beam_size), "translating", disable=not progress):
            src = pad([rows[i] for i in group], self.model.config.pad_id).to(self.model.bias.device)
            max_len = min(limit, 2 * src.shape[1] + 10)
            ids, _ = beam_search(self.model, src, beam_size, length_penalty, max_len)
            found |= zip(group, ids.tolist(), strict=True)
        return decode(self.tokenizer, [found[i] for i in range(len(rows))])


# %%
def groups_by_length(rows: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Return the numbers of the rows in groups of like length, longest first, each of at most `max_tokens` places."""
    groups: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        if not groups or len(rows[groups[-1][0]]) * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
        groups[-1].append(i)
    return groups


# %%
def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json; ValueError when it is damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:
        raise ValueError(f"{path} is not a tokenizer ({error})") from None


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
