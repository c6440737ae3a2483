# %% [markdown]
r"""
# 10 · Data

**From sentences of any length to the rectangular batches of ids that a model reads.**

![The architecture; the source, the target and the labels are lit](../figures/architecture_10.svg)
"""

# %%
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

# %% [markdown]
# ## The question
#
# Chapter 9 fed the model random ids. To feed it sentences, number the words as in chapter 1. Two
# things go wrong:

# %% tags=["active-ipynb"]
# vocabulary = {word: i for i, word in enumerate("there is a cat on the mat".split())}
# for text in ("a cat is there", "there are cats on the mat"):
#     print([vocabulary.get(word) for word in text.split()])
#
# try:
#     torch.tensor([[2, 3, 1, 0], [0, 4, 5]])
# except ValueError as error:
#     print(error)

# %% [markdown]
# A table of words with an entry for *cat* has none for *cats*. And rows of different lengths do not
# form a tensor, which is a rectangle. The first problem is solved by splitting words into subwords,
# the second by padding, which must not change the model's output.

# %% [markdown]
# ## By hand
#
# How should a word be split? **Byte-pair encoding** starts with single letters, and again and again
# it merges the two neighbours that occur together most often. A frequent word becomes one token, a
# rare word several, and no word is unknown as long as its letters are known. Take eleven words:

# %% tags=["active-ipynb"]
# from collections import Counter
# from itertools import pairwise
#
# words = Counter("the cat sat on the mat the cats sat on mats".split())
# spelled = {word: list(word) for word in words}
#
#
# def merge(tokens, pair):
#     merged = []
#     for token in tokens:
#         if merged and (merged[-1], token) == pair:
#             merged[-1] += token
#         else:
#             merged.append(token)
#     return merged

# %% tags=["active-ipynb"]
# for _ in range(4):
#     counts = Counter()
#     for word, n in words.items():
#         for pair in pairwise(spelled[word]):
#             counts[pair] += n
#     pair, n = counts.most_common(1)[0]
#     spelled = {word: merge(tokens, pair) for word, tokens in spelled.items()}
#     print(f"{' + '.join(pair):8} occurs {n} times → {''.join(pair)}")
# print(*("·".join(tokens) for tokens in spelled.values()))

# %% [markdown]
# *a* and *t* are neighbours in every *cat*, *mat* and *sat*: six times. After four merges *cats* is
# `cat` + `s` and shares a token with *cat*. The list of merges, in order, is all that is learned.
# To split a new word, apply them again.

# %% [markdown]
# ## The definition
#
# ### The corpus
#
# A corpus has three lists of sentence pairs: for training, for validation (to choose between
# models) and for the final test. No sentence may be in two of them.
#
# `transformer.corpora` holds the corpus of this course. A small grammar writes English and Italian
# side by side, so every translation is exact and nothing is downloaded.

# %% tags=["active-ipynb"]
# from transformer.corpora import english_italian
#
# corpus = english_italian()
# splits = {"train": corpus.train, "val": corpus.val, "test": corpus.test, **corpus.more}
#
# english = [en for split in splits.values() for en, _ in split]
# assert len(set(english)) == len(english), "a sentence is in two splits"
# print({name: len(split) for name, split in splits.items()}, "· shared sentences: none")

# %% [markdown]
# The vocabulary is small, yet a word-by-word translation would be wrong. This is what makes the
# sentences hard:

# %% tags=["active-ipynb"]
# known = dict(corpus.train)
# hard = {
#     "agreement": "the boys are tired|the girls are tired",
#     "adjectives change places": "the old cat|the black cat|the old black cat",
#     "articles follow the sound": "the book|the backpack|the tree",
#     "plurals": "the books|the backpacks|the trees",
#     "subjects are dropped": "she is tired|we do not have two cars",
#     "pronouns move": "i love you|she sees him|he sees her",
#     "what is liked is subject": "i like the mat|i like the books",
#     "negation": "i see you|i do not see you",
#     "questions": "do you see me?|are the cats on the mat?",
# }
# for name, sentences in hard.items():
#     for en in sentences.split("|"):
#         print(f"{name:26}{en:28}{known[en]}")
#         name = ""

# %% [markdown]
# Italian has no *do*, drops *she*, and shows her gender in the ending instead: *stanca*, not
# *stanco*. So the model must carry a gender across the sentence, as in *i see the books and read
# **them***.

# %% tags=["active-ipynb"]
# for en in (
#     "there is a cat on the mat",
#     "i see the books and read them",
#     "i see the book and buy it",
# ):
#     print(en, "→", known[en])

# %% [markdown]
# The split `compositional` combines a verb or an adjective with a noun that it meets in no other
# split, although both words are common there. A model that only memorised would fail on it.

# %% tags=["active-ipynb"]
# print(*corpus.more["compositional"][0], sep=" → ")
# likes = {en for en in known if "like" in en}
# backpacks = {en for en in known if "backpack" in en}
# both = likes & backpacks
# print("in training: like", len(likes), "· backpack", len(backpacks), "· both", len(both))

# %% [markdown]
# ### Text to subwords
#
# Four ids are reserved: padding, the beginning of a sentence `<s>` (elsewhere often `<sos>`), its
# end `</s>`, and `<unk>` for characters that the vocabulary does not know.


# %%
PAD, BOS, EOS, UNK = range(4)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


# %% [markdown]
# The library `tokenizers` learns the merges in Rust, by the rule above. Three details matter. A
# token that begins a word begins with `▁`, so that decoding can restore the spaces. Punctuation is
# never merged with a word. And `NFC` gives *è* one spelling, whether it came as one character or as
# *e* and a combining accent.


# %%
def train_tokenizer(texts: Iterable[str], vocab_size: int, lowercase: bool = False) -> Tokenizer:
    """Learn a byte-pair encoding of at most `vocab_size` tokens from the training split.

    A token that begins a word begins with ▁, so that decoding knows where the spaces were. If the
    texts have more characters than fit, the rarest become <unk>. ValueError if not even one fits.
    Source: Sennrich et al. 2016.
    """
    if vocab_size <= len(SPECIAL):
        raise ValueError(f"vocab_size must be above {len(SPECIAL)}, not {vocab_size}")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.encode_special_tokens = True  # a </s> that somebody types is text
    spelling = [normalizers.NFC()] + [normalizers.Lowercase()] * lowercase
    tokenizer.normalizer = normalizers.Sequence(spelling)
    spaces = pre_tokenizers.Metaspace(split=True)
    words = pre_tokenizers.Split(Regex(r"▁?\w+|▁?[^\w▁]+|▁"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, words])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        limit_alphabet=vocab_size - len(SPECIAL),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


# %% [markdown]
# One vocabulary serves both languages, as in the paper, because the model has one embedding table.
# It is learned from the *training* split only. If test sentences shaped the vocabulary, the test
# score would no longer measure how well the model does on unseen text.

# %% tags=["active-ipynb"]
# tokenizer = train_tokenizer(corpus.texts(), 500, corpus.lowercase)
#
# for text in ("there is a cat on the mat", "c'è un gatto sul tappeto", "la ragazza è sull'albero"):
#     print(*tokenizer.encode(text).tokens)

# %% [markdown]
# Frequent words are one token, rarer ones two or three. Compare this with the two extremes, whole
# words and single letters: how many different tokens the training split has, and how many a
# sentence needs, on average over the first thousand pairs.

# %% tags=["active-ipynb"]
# texts = list(corpus.texts())
# some = texts[:2000]
# subwords = [encoding.tokens for encoding in tokenizer.encode_batch(some)]
# rows = {"words": [text.split() for text in some], "letters": some, "subwords": subwords}
# kinds = {
#     "words": len({word for text in texts for word in text.split()}),
#     "letters": len(set("".join(texts))),
#     "subwords": tokenizer.get_vocab_size(),
# }
# for name, n in kinds.items():
#     print(f"{name:9} {n} kinds, {sum(map(len, rows[name])) / len(some):4.1f} to a sentence")

# %% [markdown]
# Subwords make sentences nearly as short as words do, which matters because the cost of attention
# grows with the square of the length. Yet like letters they can spell words that were never in the
# training split. Only an unknown *character* becomes `<unk>`:

# %% tags=["active-ipynb"]
# for text in ("the elephant sleeps", "The CAT sleeps", "the cat ø"):
#     print(f"{text:20}", *tokenizer.encode(text).tokens)
#
# assert tokenizer.encode("è").ids == tokenizer.encode("e\N{COMBINING GRAVE ACCENT}").ids

# %% [markdown]
# ### Text to ids
#
# `encode` ends every text with `</s>`, and `decode` stops there. `encode` also rejects a text with
# nothing to translate, and its error says which text that is.


# %%
def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of every text, each ended by </s>.

    Raises ValueError for a text that is empty or has no known character.
    """
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    for number, (text, ids) in enumerate(zip(texts, rows, strict=True), start=1):
        if problem := problem_of(tokenizer, text, ids):
            raise ValueError(f"text {number} {problem}")
    return [[*ids, EOS] for ids in rows]


BLANK = "is empty: there is nothing to translate"


def problem_of(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> str:
    """Return why a text cannot be translated, or "" if it can be."""
    if not text.strip():
        return BLANK
    if {UNK, tokenizer.token_to_id("▁")}.issuperset(ids):
        return f"has no character that the vocabulary knows: {text[:40]!r}"
    return ""


# %%
def decode(tokenizer: Tokenizer, rows: Iterable[Sequence[int]]) -> list[str]:
    """Return the text of every row of ids, up to the first </s>."""
    texts = []
    for row in rows:
        ids = list(row)
        texts.append(ids[: ids.index(EOS)] if EOS in ids else ids)
    return tokenizer.decode_batch(texts)


# %%
Pair = tuple[list[int], list[int]]  # the ids of a source and of its target


# %%
def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
    """Return the pairs as ids: sources end with </s>, targets begin with <s> and end with </s>.

    Raises the errors of `encode`.
    """
    sources = encode(tokenizer, [src for src, _ in pairs])
    targets = encode(tokenizer, [tgt for _, tgt in pairs])
    return [(src, [BOS, *tgt]) for src, tgt in zip(sources, targets, strict=True)]


# %% tags=["active-ipynb"]
# texts = ("there is a cat on the mat", "i love you very much")
# cat, love = encode_pairs(tokenizer, [(en, known[en]) for en in texts])
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
# The source needs no `<s>`, because the encoder reads it as a whole. The target does: `<s>` is the
# decoder's input when nothing has been written yet.

# %% [markdown]
# A model is of no use without its vocabulary, so a tokenizer is saved beside the weights, as JSON.
# `load_tokenizer` reads it and can check that it belongs to the model.


# %%
def load_tokenizer(path: str | Path, vocab_size: int | None = None) -> Tokenizer:
    """Read a tokenizer.json; `vocab_size` is that of the model it is for.

    Raises FileNotFoundError if there is no such file, ValueError if it is damaged or has another
    number of entries than `vocab_size`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more specific
        raise ValueError(f"{path} is not a tokenizer ({error!s:.200})") from None
    tokenizer.encode_special_tokens = True  # the file does not keep this setting
    entries = tokenizer.get_vocab_size()
    if vocab_size not in (None, entries):
        sizes = f"{path} has {entries} entries and the model {vocab_size}"
        raise ValueError(f"{sizes}: they do not belong together")
    return tokenizer


# %% tags=["active-ipynb"]
# import tempfile
#
# with tempfile.TemporaryDirectory() as folder:
#     path = Path(folder) / "tokenizer.json"
#     tokenizer.save(str(path))
#     assert encode(load_tokenizer(path, 500), texts) == encode(tokenizer, texts)
#     try:
#         load_tokenizer(path, vocab_size=37_000)
#     except ValueError as error:
#         print(str(error).removeprefix(folder)[1:])

# %% [markdown]
# ### Ids to batches
#
# A batch is two rectangles of ids. The decoder's input is the target without its last token, and
# the labels are the target without its first. So the label at every position is the *next* token.
#
# ![Two sentences become rows of ids, are padded to one length, and the labels are the decoder's input one step on](../figures/10_batch.svg)
#
# (The tokens and ids in the picture are made up.)


# %%
@dataclass(frozen=True)
class Batch:
    """A rectangle of source ids and one of target ids, the target starting with <s>."""

    src: Int[Tensor, "b k"]
    tgt: Int[Tensor, "b t"]

    @property
    def decoder_input(self) -> Int[Tensor, "b t"]:
        """What the decoder reads: the target without its last token."""
        return self.tgt[:, :-1]

    @property
    def labels(self) -> Int[Tensor, "b t"]:
        """The token to predict at each position: the target without its first token."""
        return self.tgt[:, 1:]

    @property
    def n_tokens(self) -> int:
        """The number of labels that are not padding."""
        return int((self.labels != PAD).sum())

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
# print("labels", batch.labels.numel(), "· without padding", batch.n_tokens)
#
# for read, label in zip(batch.decoder_input[1].tolist(), batch.labels[1].tolist()):
#     print(f"{tokenizer.id_to_token(read):8}→ {tokenizer.id_to_token(label)}")

# %% [markdown]
# The label of `<s>` is `▁ti`, and the label of `▁molto` is `</s>`. Without the shift the label
# would be the token that the decoder has just read, and it would only learn to copy. After `</s>`
# comes padding, and a padding label does not count in chapter 11's loss. (With two vocabularies,
# that is the padding id of the target's.)

# %% [markdown]
# ### Batches by length
#
# Every row of a batch becomes as long as its longest row, so a batch should hold pairs of similar
# length. Its size is limited not by a number of sentences but by a number of *tokens*, padding
# included, because they determine memory and time.


# %% tags=["exercise"]
def batches_by_length(pairs: Sequence[Pair], max_tokens: int) -> list[list[Pair]]:
    """Group pairs of similar length into batches of at most `max_tokens` tokens on either side.

    Padding is included. A pair longer than `max_tokens` gets a batch of its own.
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
# pairs = encode_pairs(tokenizer, corpus.train[:10_000])
# groups = batches_by_length(pairs, max_tokens=512)
#
# batches = map(collate, groups)
# eight = next(batch for batch in batches if batch.src.shape == batch.tgt.shape == (64, 8))
# print("src", *eight.src.shape, "· tgt", *eight.tgt.shape, end=" ")
# print("· decoder input", *eight.decoder_input.shape)
# print(len(groups), "batches of", min(map(len, groups)), "to", max(map(len, groups)), "pairs")

# %% [markdown]
# This is the batch of 64 × 8 that runs through the course. Short sentences come in large batches,
# long ones in small batches.
#
# In sorted order, training would see all short sentences first and all long ones last. So `epoch`
# shuffles the pairs before it sorts them, which changes the batches from epoch to epoch, and then
# shuffles the batches.


# %%
def epoch(pairs: Sequence[Pair], max_tokens: int, seed: int, skip: int = 0) -> Iterator[Batch]:
    """Yield every pair once, in batches by length, in an order that the seed determines.

    The first `skip` batches are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pairs), generator=generator).tolist()
    groups = batches_by_length([pairs[i] for i in order], max_tokens)
    for i in torch.randperm(len(groups), generator=generator).tolist()[skip:]:
        yield collate(groups[i])


# %% [markdown]
# Because the seed determines the order, an interrupted run can continue where it stopped: `skip`
# leaves out the batches that were done.

# %% tags=["active-ipynb"]
# first = list(epoch(pairs, 512, seed=1))
# again = list(epoch(pairs, 512, seed=1, skip=3))
#
# assert sum(len(batch.src) for batch in first) == len(pairs)
# assert all(torch.equal(a.tgt, b.tgt) for a, b in zip(first[3:], again, strict=True))
# print("widths of the first batches:", [batch.tgt.shape[1] for batch in first[:12]])

# %% [markdown]
# ## The proof
#
# ### Padding makes no difference
#
# The untrained model of chapter 9 reads one pair as it is, and then padded to 20 tokens. If
# anything in the network depended on padding, the logits would change.

# %% tags=["active-ipynb"]
# from torch.nn import functional as F
#
# from transformer import Config, Transformer
#
# torch.manual_seed(0)
# model = Transformer(Config.tiny(tokenizer.get_vocab_size())).eval()
#
# alone = collate([love])
# src = F.pad(alone.src, (0, 20 - alone.src.shape[1]), value=PAD)
# tgt = F.pad(alone.tgt, (0, 20 - alone.tgt.shape[1]), value=PAD)
# with torch.no_grad():
#     short = model(alone.src, alone.tgt)
#     long = model(src, tgt)
#
# n = short.shape[1]
# torch.testing.assert_close(long[:, :n], short, atol=1e-5, rtol=1e-5)
# print("alone", *short.shape, "· padded", *long.shape, "· equal in the first", n, "positions")

# %% [markdown]
# Nor do the other sentences of a batch matter. Here are 64 sentences of various lengths, each
# alone and all together:

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
# Is this due to the mask? Without it, padding is embedded like any token, has a key, and receives
# attention at every position:

# %% tags=["active-ipynb"]
# n = alone.src.shape[1]
# with torch.no_grad():
#     masked = model.encode(src)[:, :n] - model.encode(alone.src)
#     unmasked = model.encoder(model.embed(src))[:, :n] - model.encoder(model.embed(alone.src))
# print(f"with the mask below 1e-5: {masked.abs().max().item() < 1e-5}")
# print(f"without it above 0.5:     {unmasked.abs().max().item() > 0.5}")

# %% [markdown]
# A model trained without the mask can translate the same sentence differently in another batch.
# Its training loss still falls, so the mistake is easy to miss.

# %% [markdown]
# ### Nothing is lost
#
# Every sentence that the tokenizer has not seen comes back from its ids unchanged, and none needs
# `<unk>`.

# %% tags=["active-ipynb"]
# for name in ("val", "test", "compositional"):
#     texts = [text for pair in splits[name] for text in pair]
#     rows = encode(tokenizer, texts)
#     assert decode(tokenizer, rows) == texts
#     print(f"{name:14}{len(texts)} texts restored · unknown {sum(row.count(UNK) for row in rows)}")

# %% [markdown]
# ### The check
#
# The checks find the usual mistakes: padding on the left, a fixed padding id, the two sides sorted
# separately so that a sentence gets the translation of another, a budget that ignores padding, a
# lost last batch, and a vocabulary learned from more than the training texts.

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
# How much does sorting save? Fill batches of at most 512 tokens, padding included, with pairs in
# their original order, and with pairs of similar length:

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
# unsorted = [pairs[i : i + size] for i in range(0, len(pairs), size)]
# wasted = {"original order": padding(unsorted), "by length": padding(groups)}
# assert wasted["by length"] < 0.05 < 0.25 < wasted["original order"]
#
# percent = {name: round(100 * share) for name, share in wasted.items()}
# plot_bars(percent, ylabel="% of tokens", title="Padding")

# %% [markdown]
# In the original order more than a quarter of all tokens are padding; by length there is almost
# none. These are 12 targets of a batch in the original order, and 12 of a batch by length:

# %% tags=["active-ipynb"]
# unsorted_rows = pad([tgt for _, tgt in pairs[:12]])
# sorted_rows = pad([tgt for _, tgt in groups[40][:12]])
# for rows in zip(unsorted_rows.tolist(), sorted_rows.tolist()):
#     print("      ".join("".join("■" if i != PAD else "·" for i in row) for row in rows))

# %% [markdown]
# ## Your own sentences
#
# The grammar is small. `transformer.corpora` reads other text into the same `Corpus`, and all of
# the above works unchanged.
#
# **Text files**: two files for each split, aligned line by line. Files that are not aligned are
# rejected.

# %% tags=["active-ipynb"]
# from transformer.corpora import text_files
#
# with tempfile.TemporaryDirectory() as folder:
#     en = Path(folder) / "train.en"
#     it = Path(folder) / "train.it"
#     en.write_text("\n".join(en for en, _ in corpus.train[:100]), encoding="utf-8")
#     it.write_text("\n".join(it for _, it in corpus.train[:100]), encoding="utf-8")
#     own = text_files(train=(en, it))
#
#     it.write_text("one line", encoding="utf-8")
#     try:
#         text_files(train=(en, it))
#     except ValueError as error:
#         print(str(error).replace(str(Path(folder) / "train"), "train"))
# size = train_tokenizer(own.texts(), 200).get_vocab_size()
# print("train", len(own.train), "· val", len(own.val), "· vocabulary", size)

# %% [markdown]
# **Multi30k**: 29,000 captions of photographs in English, German, French and Czech (Elliott et al.
# 2016). `multi30k("en", "de")` downloads 1.3 MB, once, and compares checksums, so that a damaged
# file is noticed. It is not called here, because the course also runs without a network. A folder
# with a copy of the files will do, too. If one is missing, the error names it:

# %% tags=["active-ipynb"]
# from transformer.corpora import multi30k
#
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
# | byte-pair encoding, one vocabulary of about 37,000 | the same, of 500 to 10,000 | a smaller language needs fewer tokens |
# | batches by approximate length, about 25,000 tokens a side | by length, at most `max_tokens` a side | padding included: it costs as much as words |
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
# | memory, decoder states | `b k d`, `b t d` | (64, 8, 512) |
# | logits | `b t v` | (64, 8, 37000) |
#
# The batches have an input and a label for every position. [Chapter 11](11_training.ipynb) trains
# the model on them.
