# %% [markdown]
r"""
# 10 · Data

**Sentences come in words and in all lengths. A model wants ids, in rectangles.**
"""

# %%
import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pooch
import torch
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from transformer import grammar

# %% [markdown]
# ## Text to subwords

# %%
PAD, BOS, EOS, UNK = range(4)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


# %%
def train_tokenizer(texts: Iterable[str], vocab_size: int, lowercase: bool = False) -> Tokenizer:
    """Learn a byte-pair encoding of at most `vocab_size` subwords from `texts`: the training split and nothing else.

    A subword that begins a word begins with ▁, so that decoding knows where the spaces were.
    Source: Sennrich et al. 2016.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    spelling = [normalizers.NFC()] + [normalizers.Lowercase()] * lowercase
    tokenizer.normalizer = normalizers.Sequence(spelling)
    words = pre_tokenizers.Split(Regex(r"▁?\w+|▁?[^\w▁]+|▁"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(split=True), words])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


# %%
def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of every text, each ended by </s>; ValueError for a text with nothing to translate."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    for number, (text, ids) in enumerate(zip(texts, rows, strict=True), start=1):
        if not text.strip():
            raise ValueError(f"text {number} is empty: there is nothing to translate")
        if set(ids) <= {UNK}:
            raise ValueError(f"text {number} has no character that the vocabulary knows: {text[:40]!r}")
    return [[*ids, EOS] for ids in rows]


# %%
def decode(tokenizer: Tokenizer, rows: Iterable[Sequence[int]]) -> list[str]:
    """Return the text of every row of ids, up to the first </s>."""
    rows = [list(row) for row in rows]
    return tokenizer.decode_batch([row[: row.index(EOS)] if EOS in row else row for row in rows])


# %% [markdown]
# ## Subwords to batches


# %%
@dataclass(frozen=True)
class Batch:
    """A rectangle of source ids and one of target ids, the target starting with <s>."""

    src: Int[Tensor, "b k"]
    tgt: Int[Tensor, "b t"]

    @property
    def decoder_input(self) -> Tensor:
        """What the decoder reads: the target without its last token."""
        return self.tgt[:, :-1]

    @property
    def labels(self) -> Tensor:
        """What it should say at each place: the target, one step on."""
        return self.tgt[:, 1:]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on another device."""
        return Batch(self.src.to(device), self.tgt.to(device))


# %% tags=["exercise"]
def pad(rows: Sequence[Sequence[int]], pad_id: int = PAD) -> Int[Tensor, "b t"]:
    """Fill rows of ids with padding up to the longest and stack them."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])


# %%
Pair = tuple[list[int], list[int]]


# %% tags=["exercise"]
def batches_by_length(pairs: Sequence[Pair], max_tokens: int) -> list[list[Pair]]:
    """Group pairs of like length so that no batch has more than `max_tokens` places, padding counted, on either side.

    A pair longer than `max_tokens` gets a batch of its own.
    """
    groups: list[list[Pair]] = []
    width = 0
    for pair in sorted(pairs, key=lambda pair: (len(pair[1]), len(pair[0]))):
        width = max(width, len(pair[0]), len(pair[1]))
        if not groups or width * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
            width = max(len(pair[0]), len(pair[1]))
        groups[-1].append(pair)
    return groups


# %%
def collate(pairs: Sequence[Pair]) -> Batch:
    """Pad a group of pairs into a batch."""
    return Batch(pad([src for src, _ in pairs]), pad([tgt for _, tgt in pairs]))


# %%
def epoch(pairs: Sequence[Pair], max_tokens: int, seed: int, skip: int = 0) -> Iterator[Batch]:
    """Yield every pair once, in batches by length, in an order that the seed decides; leave out the first `skip`."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = [pairs[i] for i in torch.randperm(len(pairs), generator=generator).tolist()]
    groups = batches_by_length(shuffled, max_tokens)
    for i in torch.randperm(len(groups), generator=generator).tolist()[skip:]:
        yield collate(groups[i])


# %% [markdown]
# ## Where sentences come from


# %%
@dataclass(frozen=True)
class Corpus:
    """Pairs of sentences in three splits that share none, and further test sets by name."""

    name: str
    train: list[tuple[str, str]]
    val: list[tuple[str, str]]
    test: list[tuple[str, str]] = field(default_factory=list)
    more: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    lowercase: bool = False

    def tokenizer(self, vocab_size: int) -> Tokenizer:
        """Learn one vocabulary for both languages from the training split."""
        return train_tokenizer((text for pair in self.train for text in pair), vocab_size, self.lowercase)


# %%
def to_ids(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
    """Return the pairs as ids: sources end with </s>, targets begin with <s> and end with </s>."""
    sources, targets = (encode(tokenizer, texts) for texts in zip(*pairs, strict=True))
    return [(src, [BOS, *tgt]) for src, tgt in zip(sources, targets, strict=True)]


# %%
def english_italian(seed: int = 0) -> Corpus:
    """Return the embedded corpus: 100,000 sentences of the course's own grammar, made on the spot."""
    splits = grammar.english_italian(seed)
    return Corpus("en-it", splits.train, splits.val, splits.test, {"compositional": splits.compositional}, True)


# %%
def cache_dir() -> Path:
    """Return the folder for downloads and trained models: $TRANSFORMER_CACHE, or the user's cache."""
    return Path(os.environ.get("TRANSFORMER_CACHE") or pooch.os_cache("transformer"))


# %%
def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file (UTF-8, gzipped if the name ends in .gz), without surrounding spaces."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return [line.strip() for line in content.decode("utf-8").removesuffix("\n").split("\n")]
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or not UTF-8 text ({error})") from None


# %%
def read_pairs(src: str | Path, tgt: str | Path) -> list[tuple[str, str]]:
    """Read two aligned text files, line by line; pairs with an empty side are left out."""
    sources, targets = read_lines(src), read_lines(tgt)
    if len(sources) != len(targets):
        raise ValueError(f"{src} has {len(sources)} lines and {tgt} has {len(targets)}: they must be aligned")
    pairs = [pair for pair in zip(sources, targets, strict=True) if all(pair)]
    if not pairs:
        raise ValueError(f"{src} and {tgt} hold no pair of sentences")
    return pairs


# %%
def text_files(train: Sequence[str], val: Sequence[str] | None = None, test: Sequence[str] | None = None) -> Corpus:
    """Read a corpus of your own: for each split the path of the source and of the target.

    Without `val`, one pair in twenty, at most 1,000 and spread evenly, is taken out of `train` for validation.
    """
    pairs = list(dict.fromkeys(read_pairs(*train)))
    if val:
        return Corpus("text", pairs, read_pairs(*val), read_pairs(*test) if test else [])
    stride = max(20, len(pairs) // 1_000)
    kept = [pair for i, pair in enumerate(pairs) if i % stride]
    if not kept:
        raise ValueError(f"{train[0]} has {len(pairs)} pairs: too few to keep one for validation")
    return Corpus("text", kept, pairs[::stride], read_pairs(*test) if test else [])


# %% [markdown]
# Multi30k: 29,000 captions of photographs in English, German, French and Czech (Elliott et al. 2016).

# %%
MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/"


# %%
def multi30k_file(name: str, folder: str | Path | None = None) -> Path:
    """Return a file of Multi30k such as raw/train.de.gz: from `folder`, or downloaded, checked and kept in the cache."""
    if folder:
        paths = [Path(folder) / name, Path(folder) / f"{name}.gz"]
        if not any(path.is_file() for path in paths):
            raise FileNotFoundError(f"there is no {name} in {folder}, where Multi30k was to be")
        return next(path for path in paths if path.is_file())
    table = (Path(__file__).parent / "multi30k.sha256").read_text(encoding="utf-8").splitlines()
    sums = {path.removeprefix("data/task1/"): sha256 for sha256, _, path in map(str.split, table)}
    if name not in sums:
        raise ValueError(f"Multi30k has no {name}; its files are {', '.join(sorted(sums))}")
    where = cache_dir() / "multi30k" / Path(name).parent
    try:
        address = f"{MULTI30K}data/task1/{name}"
        return Path(pooch.retrieve(address, sums[name], Path(name).name, where, progressbar=True))
    except OSError as error:
        raise OSError(
            f"could not download {name} of Multi30k ({error}); copy its files into a folder and name it by "
            "--folder or the environment variable MULTI30K"
        ) from None


# %%
def multi30k(src: str = "en", tgt: str = "de", folder: str | Path | None = None, tokenized: bool = False) -> Corpus:
    """Read Multi30k; `folder` (or $MULTI30K) holds raw/ and tok/, otherwise it is downloaded.

    `tokenized` takes the lowercased Moses tokens that papers score, instead of the captions as they were written.
    """
    folder = folder or os.environ.get("MULTI30K")
    pattern = "tok/{}.lc.norm.tok.{}" if tokenized else "raw/{}.{}.gz"

    def split(name: str) -> list[tuple[str, str]]:
        return read_pairs(*(multi30k_file(pattern.format(name, language), folder) for language in (src, tgt)))

    name = f"multi30k-{src}-{tgt}" + "-tok" * tokenized
    return Corpus(name, split("train"), split("val"), split("test_2016_flickr"))
