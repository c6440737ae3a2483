# %% [markdown]
r"""
# 10 · Data

**Sentences come in words and in all lengths. A model wants ids, in rectangles.**

![The architecture; the source, the target and the labels are lit](../figures/architecture_10.svg)
"""

# %%
import gzip
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from transformer import grammar

# %% [markdown]
# ## The question
#
# Chapter 9 fed the model random ids. To feed it sentences, give every word a number, as in chapter 1. Two things go wrong at
# once:

# %% tags=["active-ipynb"]
# vocabulary = {word: i for i, word in enumerate("there is a cat on the mat".split())}
# rows = [[vocabulary.get(word) for word in text.split()] for text in ("a cat is there", "there are cats on the mat")]
# print(*rows, sep="\n")
#
# try:
#     torch.tensor([[2, 3, 1, 0], [0, 4, 5]])
# except ValueError as error:
#     print(error)

# %% [markdown]
# A table of words that knows *cat* does not know *cats*. And rows of different lengths are no tensor: a GPU wants a rectangle.
# The first is answered by cutting words into pieces, the second by padding, which had better change nothing.

# %% [markdown]
# ## By hand
#
# How to cut? **Byte-pair encoding** starts from letters and, again and again, glues together the two neighbours that meet
# most often. What is frequent becomes one piece, what is rare stays in crumbs, and nothing is unknown as long as its letters
# are known. Eleven words:

# %% tags=["active-ipynb"]
# from collections import Counter
# from itertools import pairwise
#
# words = Counter("the cat sat on the mat the cats sat on mats".split())
# spelled = {word: list(word) for word in words}
#
#
# def glue(pieces, pair):
#     glued = []
#     for piece in pieces:
#         if glued and (glued[-1], piece) == pair:
#             glued[-1] += piece
#         else:
#             glued.append(piece)
#     return glued

# %% tags=["active-ipynb"]
# for _ in range(4):
#     meetings = Counter()
#     for word, n in words.items():
#         for pair in pairwise(spelled[word]):
#             meetings[pair] += n
#     pair, n = meetings.most_common(1)[0]
#     spelled = {word: glue(pieces, pair) for word, pieces in spelled.items()}
#     print(f"{' + '.join(pair):8} met {n} times → {''.join(pair)}")
# print(*("·".join(pieces) for pieces in spelled.values()))

# %% [markdown]
# *a* meets *t* in every *cat*, *mat* and *sat*: six times. After four merges *cats* is `cat` + `s`, and the two words have a
# piece in common. The merges, in their order, are the whole model: a new word is cut by applying them again.

# %% [markdown]
# ## The definition
#
# ### A corpus
#
# A corpus is three lists of pairs: to learn from, to decide by (validation) and to be judged on (test). No sentence may be in
# two of them.


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


# %% [markdown]
# The course brings its own: a small grammar writes English and Italian side by side, so each translation is exact and nothing
# is downloaded.


# %%
def english_italian(seed: int = 0) -> Corpus:
    """Return the embedded corpus: 100,000 sentences of the course's own grammar, made on the spot."""
    splits = grammar.english_italian(seed)
    return Corpus("en-it", splits.train, splits.val, splits.test, {"compositional": splits.compositional}, True)


# %% tags=["active-ipynb"]
# corpus = english_italian()
# splits = {"train": corpus.train, "val": corpus.val, "test": corpus.test, **corpus.more}
#
# english = [en for split in splits.values() for en, _ in split]
# assert len(set(english)) == len(english), "a sentence is in two places"
# print({name: len(split) for name, split in splits.items()}, "· share a sentence: none")

# %% [markdown]
# Few words, but no word-by-word translation gets them right. Here is what the grammar makes hard:

# %% tags=["active-ipynb"]
# known = dict(corpus.train)
# hard = {
#     "agreement": "the boys are tired|the girls are tired",
#     "adjectives change places": "the old cat|the black cat|the old black cat",
#     "articles follow the sound": "the book|the backpack|the tree",
#     "plurals": "the books|the backpacks|the trees",
#     "the subject is dropped": "she is tired|we do not have two cars",
#     "pronouns jump": "i love you|she sees him|he sees her",
#     "who likes is turned round": "i like the mat|i like the books",
#     "negation": "i see you|i do not see you",
#     "questions": "do you see me?|are the cats on the mat?",
# }
# for name, sentences in hard.items():
#     for en in sentences.split("|"):
#         print(f"{name:26}{en:28}{known[en]}")
#         name = ""

# %% [markdown]
# Italian has no *do*, drops *she* and keeps the news in the ending: *stanca*, not *stanco*. So the model must carry a gender
# across the sentence, as in *i see the books and read **them***.

# %% tags=["active-ipynb"]
# print("there is a cat on the mat →", known["there is a cat on the mat"])
# for en in ("i see the books and read them", "i see the book and buy it"):
#     print(en, "→", known[en])

# %% [markdown]
# The split `compositional` holds pairings of two words, a verb or an adjective and a noun, that no other split has, though both
# are common there. A model that only memorised would fail on it.

# %% tags=["active-ipynb"]
# print(*corpus.more["compositional"][0], sep=" → ")
# likes, backpacks = ({en for en in known if word in en} for word in ("like", "backpack"))
# print("in training: like", len(likes), "· backpack", len(backpacks), "· both", len(likes & backpacks))

# %% [markdown]
# ### Text to subwords
#
# Four ids are set aside: padding, the beginning `<s>` (the `<sos>` of other texts), the end `</s>`, and whatever cannot be
# spelled.


# %%
PAD, BOS, EOS, UNK = range(4)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


# %% [markdown]
# The library learns its merges in Rust (`tokenizers`), by the rule above. Details that matter: a piece that begins a word
# begins with `▁`, so spaces survive; punctuation never sticks to a word; and `NFC` makes the one *è* and the *e* with a
# separate accent the same text.


# %%
def train_tokenizer(texts: Iterable[str], vocab_size: int, lowercase: bool = False) -> Tokenizer:
    """Learn a byte-pair encoding of at most `vocab_size` subwords from `texts`: the training split and nothing else.

    A subword that begins a word begins with ▁, so that decoding knows where the spaces were.
    Source: Sennrich et al. 2016.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.encode_special_tokens = True  # a </s> that somebody types is text
    spelling = [normalizers.NFC()] + [normalizers.Lowercase()] * lowercase
    tokenizer.normalizer = normalizers.Sequence(spelling)
    words = pre_tokenizers.Split(Regex(r"▁?\w+|▁?[^\w▁]+|▁"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(split=True), words])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


# %% [markdown]
# One vocabulary serves both languages, as in the paper, because the model has one table. It is learned from the *training*
# split: a vocabulary that has seen the test sentences has been told about them.

# %% tags=["active-ipynb"]
# tokenizer = corpus.tokenizer(500)
#
# for text in ("there is a cat on the mat", "c'è un gatto sul tappeto", "la ragazza è sull'albero"):
#     print(*tokenizer.encode(text).tokens)

# %% [markdown]
# Frequent words are one piece, rarer ones two or three. What did that buy? Compare with the two extremes: how many kinds there
# are in the training split, and how many it takes to write one of the first thousand pairs.

# %% tags=["active-ipynb"]
# texts = [text for pair in corpus.train for text in pair]
# some = texts[:2000]
# pieces = [encoding.tokens for encoding in tokenizer.encode_batch(some)]
# kinds = {"words": len({w for t in texts for w in t.split()}), "letters": len(set("".join(texts))), "subwords": 500}
# for (name, n), rows in zip(kinds.items(), ([t.split() for t in some], some, pieces)):
#     print(f"{name:9} {n} kinds, {sum(map(len, rows)) / len(rows):4.1f} to a sentence")

# %% [markdown]
# Subwords are nearly as short as words, and attention's cost grows with the square of the length. Yet like letters they can spell
# what was never seen. Only a *character* that training never showed becomes `<unk>`:

# %% tags=["active-ipynb"]
# for text in ("the elephant sleeps", "The CAT sleeps", "the cat ø"):
#     print(f"{text:20}", *tokenizer.encode(text).tokens)
#
# assert tokenizer.encode("è").ids == tokenizer.encode("e\N{COMBINING GRAVE ACCENT}").ids

# %% [markdown]
# ### Subwords to ids
#
# `encode` ends every text with `</s>`; `decode` stops there. Text without anything to translate is refused here, where its number
# is known.


# %%
def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of every text, each ended by </s>; ValueError for a text with nothing to translate."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    for number, (text, ids) in enumerate(zip(texts, rows, strict=True), start=1):
        if not text.strip():
            raise ValueError(f"text {number} is empty: there is nothing to translate")
        if set(ids) <= {UNK, tokenizer.token_to_id("▁")}:
            raise ValueError(f"text {number} has no character that the vocabulary knows: {text[:40]!r}")
    return [[*ids, EOS] for ids in rows]


# %%
def decode(tokenizer: Tokenizer, rows: Iterable[Sequence[int]]) -> list[str]:
    """Return the text of every row of ids, up to the first </s>."""
    rows = [list(row) for row in rows]
    return tokenizer.decode_batch([row[: row.index(EOS)] if EOS in row else row for row in rows])


# %%
Pair = tuple[list[int], list[int]]


# %%
def to_ids(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
    """Return the pairs as ids: sources end with </s>, targets begin with <s> and end with </s>."""
    sources, targets = (encode(tokenizer, texts) for texts in zip(*pairs, strict=True))
    return [(src, [BOS, *tgt]) for src, tgt in zip(sources, targets, strict=True)]


# %% tags=["active-ipynb"]
# cat, love = to_ids(tokenizer, [(en, known[en]) for en in ("there is a cat on the mat", "i love you very much")])
# print("source", cat[0])
# print("target", cat[1])
# print(decode(tokenizer, [cat[1][1:]]))
#
# for bad in ("", "øøø"):
#     try:
#         encode(tokenizer, ["there is a cat", bad])
#     except ValueError as error:
#         print(error)

# %% [markdown]
# The source needs no `<s>`: nobody writes it. The target does: it is what the decoder reads before it has written anything.

# %% [markdown]
# ### Ids to batches
#
# A batch is two rectangles. The decoder reads the target without its last token; the labels are the target without its first.
# Every position is asked for the *next* token.
#
# ![Two sentences become rows of ids, are padded to one length, and the labels are the decoder's input one step on](../figures/10_batch.svg)
#
# (Pieces and ids in the picture are made up.)


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
def collate(pairs: Sequence[Pair]) -> Batch:
    """Pad a group of pairs into a batch."""
    return Batch(pad([src for src, _ in pairs]), pad([tgt for _, tgt in pairs]))


# %% tags=["active-ipynb"]
# batch = collate([cat, love])
# print("src", batch.src, "tgt", batch.tgt, sep="\n")
#
# for read, say in zip(batch.decoder_input[1].tolist(), batch.labels[1].tolist()):
#     print(f"{tokenizer.id_to_token(read):8}→ {tokenizer.id_to_token(say)}")

# %% [markdown]
# `<s>` should say `▁ti`, and `▁molto` should say `</s>`. Without the shift the decoder would be asked for the token that it
# has just read, and copying is all it would learn. After `</s>` comes padding, and a label of padding counts for nothing in
# chapter 11's loss. (Who keeps two vocabularies must mind whose padding id that is: the target's.)

# %% [markdown]
# ### Batches by length
#
# Every row becomes as long as the longest of its batch: so put like with like. The budget is not a number of sentences but of *places*,
# padding included, since places are what memory and time are spent on.


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


# %% tags=["active-ipynb"]
# pairs = to_ids(tokenizer, corpus.train[:10_000])
# groups = batches_by_length(pairs, max_tokens=512)
#
# eight = next(batch for batch in map(collate, groups) if batch.src.shape == batch.tgt.shape == (64, 8))
# print("src", *eight.src.shape, "· tgt", *eight.tgt.shape, "· decoder input", *eight.decoder_input.shape)
# print(len(groups), "batches of", min(map(len, groups)), "to", max(map(len, groups)), "pairs")

# %% [markdown]
# There it is, the batch of 64 × 8 that runs through the course. Short sentences come many at a time, long ones few.
#
# Sorted batches in sorted order would be a poor school: first all the short sentences, then all the long. `epoch` shuffles the
# pairs before sorting, so that neighbours of equal length differ each time, and the batches after it.


# %%
def epoch(pairs: Sequence[Pair], max_tokens: int, seed: int, skip: int = 0) -> Iterator[Batch]:
    """Yield every pair once, in batches by length, in an order that the seed decides; leave out the first `skip`."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = [pairs[i] for i in torch.randperm(len(pairs), generator=generator).tolist()]
    groups = batches_by_length(shuffled, max_tokens)
    for i in torch.randperm(len(groups), generator=generator).tolist()[skip:]:
        yield collate(groups[i])


# %% [markdown]
# The seed decides the order, so that an interrupted run can go on where it stopped: `skip` leaves out what was done.

# %% tags=["active-ipynb"]
# first, again = list(epoch(pairs, 512, seed=1)), list(epoch(pairs, 512, seed=1, skip=3))
#
# assert sum(len(batch.src) for batch in first) == len(pairs)
# assert all(torch.equal(a.tgt, b.tgt) for a, b in zip(first[3:], again, strict=True))
# print("widths of the first batches:", [batch.tgt.shape[1] for batch in first[:12]])

# %% [markdown]
# ## The proof
#
# ### Padding makes no difference
#
# The model of chapter 9, untrained, reads one pair as it is, and then padded to the fixed length 20. If anything in the
# network looked at padding, the logits would move.

# %% tags=["active-ipynb"]
# from transformer import Config, Transformer
#
# torch.manual_seed(0)
# model = Transformer(Config.tiny(tokenizer.get_vocab_size())).eval()
#
# alone = collate([love])
# src, tgt = (torch.nn.functional.pad(ids, (0, 20 - ids.shape[1]), value=PAD) for ids in (alone.src, alone.tgt))
# with torch.no_grad():
#     short, long = model(alone.src, alone.tgt), model(src, tgt)
# torch.testing.assert_close(long[:, : short.shape[1]], short, atol=1e-5, rtol=1e-5)
# print("alone", *short.shape, "· padded", *long.shape, "· equal in the first", short.shape[1], "places")

# %% [markdown]
# Nor do the neighbours in a batch matter. Each of 64 sentences of mixed lengths, alone and in the crowd:

# %% tags=["active-ipynb"]
# crowd = collate(pairs[:64])
# with torch.no_grad():
#     together = model(crowd.src, crowd.tgt)
#     for row, pair in enumerate(pairs[:64]):
#         single = collate([pair])
#         logits = model(single.src, single.tgt)[0]
#         torch.testing.assert_close(together[row, : len(logits)], logits, atol=1e-5, rtol=1e-5)
# print("tgt", *crowd.tgt.shape, "· of these padding", int((crowd.tgt == PAD).sum()))

# %% [markdown]
# Is that the mask's doing? Take it away and read again. Position by position the padding is embedded like any word, offers keys,
# and is listened to:

# %% tags=["active-ipynb"]
# n = alone.src.shape[1]
# with torch.no_grad():
#     masked = model.encode(src)[:, :n] - model.encode(alone.src)
#     unmasked = model.encoder(model.embed(src))[:, :n] - model.encoder(model.embed(alone.src))
# print(f"with the mask below 1e-5: {masked.abs().max().item() < 1e-5}")
# print(f"without it above 0.5:     {unmasked.abs().max().item() > 0.5}")

# %% [markdown]
# A model trained without the mask can give a sentence another translation in another batch. The loss still falls, so nobody
# notices.

# %% [markdown]
# ### Nothing is lost
#
# Each sentence that the tokenizer has not seen comes back from its ids letter by letter, and none needs `<unk>`.

# %% tags=["active-ipynb"]
# for name in ("val", "test", "compositional"):
#     texts = [text for pair in splits[name] for text in pair]
#     rows = encode(tokenizer, texts)
#     assert decode(tokenizer, rows) == texts
#     print(f"{name:14}{len(texts)} texts back · unknown {sum(row.count(UNK) for row in rows)}")

# %% [markdown]
# ### The check
#
# The checks know the usual mistakes: padding on the left, a fixed id for it, sides sorted apart so that sentences meet another's
# translation, budgets that forget the padding, a last batch that is lost, a vocabulary that has seen more than the training
# texts.

# %% tags=["active-ipynb"]
# from transformer.checks import check_batches, check_pad, check_tokenizer
#
# check_pad(pad)
# check_batches(batches_by_length)
# few = [text for pair in corpus.train[:1000] for text in pair]
# check_tokenizer(train_tokenizer(few, 300), train=few)

# %% [markdown]
# ## The look
#
# What does sorting save? Batches of at most 512 places, filled with pairs as they come or with pairs of like length:

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_bars
#
#
# def padding(groups):
#     sides = [side for batch in map(collate, groups) for side in (batch.src, batch.tgt)]
#     return sum((side == PAD).sum().item() for side in sides) / sum(side.numel() for side in sides)
#
#
# widest = max(len(row) for pair in pairs for row in pair)
# size = 512 // widest
# wasted = {
#     "as they come": padding([pairs[i : i + size] for i in range(0, len(pairs), size)]),
#     "by length": padding(groups),
# }
# assert wasted["by length"] < 0.05 < 0.25 < wasted["as they come"]
# plot_bars({name: round(100 * share) for name, share in wasted.items()}, ylabel="% of places", title="Padding")

# %% [markdown]
# More than a quarter of the work for nothing, or next to none. Seen from above, 12 targets of a batch as they come, and 12 of a
# batch by length:

# %% tags=["active-ipynb"]
# for rows in zip(pad([tgt for _, tgt in pairs[:12]]), pad([tgt for _, tgt in groups[40][:12]])):
#     print("      ".join("".join("■" if id != PAD else "·" for id in row.tolist()) for row in rows))

# %% [markdown]
# ## Other doors
#
# The grammar is a school; the world is larger. What follows reads other text into the same `Corpus`, and everything above works
# unchanged. Downloads and trained models live in one folder of the user's cache.


# %%
def downloader() -> ModuleType:
    """Return pooch, imported when it is needed and without its complaint about notebooks that have no widgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pooch
    return pooch


# %%
def cache_dir() -> Path:
    """Return the folder for downloads and trained models: $TRANSFORMER_CACHE, or the user's cache."""
    return Path(os.environ.get("TRANSFORMER_CACHE") or downloader().os_cache("transformer"))


# %% [markdown]
# **Text files of your own**: two files for each split, aligned line by line. What cannot be aligned is refused.


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
        raise ValueError(f"{path} is damaged or not UTF-8 text ({error!s:.200})") from None


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
def text_files(
    train: Sequence[str | Path], val: Sequence[str | Path] | None = None, test: Sequence[str | Path] | None = None
) -> Corpus:
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


# %% tags=["active-ipynb"]
# import tempfile
#
# with tempfile.TemporaryDirectory() as folder:
#     en, it = Path(folder) / "train.en", Path(folder) / "train.it"
#     en.write_text("\n".join(en for en, _ in corpus.train[:100]), encoding="utf-8")
#     it.write_text("\n".join(it for _, it in corpus.train[:100]), encoding="utf-8")
#     mine = text_files(train=(en, it))
#
#     it.write_text("one line", encoding="utf-8")
#     try:
#         text_files(train=(en, it))
#     except ValueError as error:
#         print(str(error).replace(f"{folder}{os.sep}", ""))
# print("train", len(mine.train), "· val", len(mine.val), "· vocabulary", mine.tokenizer(200).get_vocab_size())

# %% [markdown]
# **Multi30k**: 29,000 captions of photographs in English, German, French and Czech (Elliott et al. 2016). Each file has a known
# checksum, so a download that was cut off or changed is noticed; and a folder of your own will do, because hosts die.


# %%
MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/"


# %%
def multi30k_file(name: str, folder: str | Path | None = None) -> Path:
    """Return a file such as raw/train.de.gz: from `folder`, or downloaded, checked and kept in the cache."""
    if folder:
        paths = [Path(folder) / name, Path(folder) / f"{name}.gz"]
        if not any(path.is_file() for path in paths):
            raise FileNotFoundError(f"there is no {name} in {folder}, where Multi30k was to be")
        return next(path for path in paths if path.is_file())
    table = resources.files("transformer").joinpath("multi30k.sha256").read_text(encoding="utf-8").splitlines()
    sums = {path.removeprefix("data/task1/"): sha256 for sha256, _, path in map(str.split, table)}
    if name not in sums:
        raise ValueError(f"Multi30k has no {name}; its files are {', '.join(sorted(sums))}")
    where = cache_dir() / "multi30k" / Path(name).parent
    try:
        address = f"{MULTI30K}data/task1/{name}"
        return Path(downloader().retrieve(address, sums[name], Path(name).name, where, progressbar=True))
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


# %% [markdown]
# `multi30k("en", "de")` downloads 1.3 MB, once. It is not called here, so that the course runs without a network. Asked for a
# folder that has no such files, it says so:

# %% tags=["active-ipynb"]
# try:
#     multi30k("en", "de", folder="my_captions")
# except FileNotFoundError as error:
#     print(error)

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | WMT 2014 English-German, 4.5 million pairs (section 5.1) | 100,000 pairs from a grammar | learned in minutes, exact, no download |
# | byte-pair encoding, one vocabulary of about 37,000 | the same, of 500 to 10,000 | fewer words, fewer pieces |
# | batches by approximate length, about 25,000 tokens a side | by length, a budget of places a side | padding costs as much as words |
# | does not mention padding or its mask | `<pad>` = 0, hidden from every query | batches are rectangles |
# | outputs "shifted right" (figure 1) | `decoder_input` and `labels`, one step apart | the same |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | texts | list of `b` strings | 64 |
# | `src` ends with `</s>` | `b k` | (64, 8) |
# | `tgt` from `<s>` to `</s>` | `b t` | (64, 9) |
# | `decoder_input`, `labels` | `b t` | (64, 8) each |
# | memory, states | `b k d`, `b t d` | (64, 8, 512) |
# | logits | `b t v` | (64, 8, 37000) |
#
# Questions and answers are ready, one for each place. [Chapter 11](11_training.ipynb) makes the model learn from them.
