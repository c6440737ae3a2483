# %% [markdown]
r"""
# 10 · Data

**From sentences of any length to the rectangular batches of ids that a model reads.**

![The architecture; the source, the target and the labels are lit](../figures/architecture_10.svg)
"""

# %% [markdown]
# **What you need**: [chapter 1](01_embeddings.ipynb), for ids and vocabularies;
# [chapter 8](08_decoder.ipynb), for the masks; [chapter 9](09_model.ipynb), for the model. About 45
# minutes. In the paper: [section 5.1](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/10_data.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/10_data.ipynb).
#
# **What you will be able to do**
#
# - learn a byte-pair encoding by hand, and split a word that was not in the text;
# - turn pairs of sentences into batches, with decoder input and labels one token apart;
# - say why padding must not change a result, and why the training loss does not show it if it does.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

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
# Every chapter so far started from two rows of ids. Where do they come from? Number the words of a
# text, as in chapter 1, and look up two other sentences. Two things go wrong. Which?

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
# form a tensor, which is a rectangle. The first problem is solved by splitting words into
# **subwords**, the second by **padding**, which must not change the model's output.

# %% [markdown]
# ## By hand
#
# How should a word be split? **Byte-pair encoding** starts with single letters. Again and again it
# merges the two neighbours that occur together most often. A frequent word becomes one token, a
# rare word several, and no word is unknown as long as its letters are known. Take eleven words.
# Which two letters are merged first?

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
# merges = []
# for _ in range(4):
#     counts = Counter()
#     for word, n in words.items():
#         for pair in pairwise(spelled[word]):
#             counts[pair] += n
#     pair, n = counts.most_common(1)[0]
#     merges.append(pair)
#     spelled = {word: merge(tokens, pair) for word, tokens in spelled.items()}
#     print(f"{' + '.join(pair):8} occurs {n} times → {''.join(pair)}")
# print(*("·".join(tokens) for tokens in spelled.values()))

# %% [markdown]
# *a* and *t* are neighbours in every *cat*, *mat* and *sat*: six times. After four merges *cats* is
# `cat` + `s` and shares a token with *cat*. The list of merges, in order, is all that is learned.
# To split a new word, apply them again:

# %% tags=["active-ipynb"]
# for word in ("cathat", "hats"):
#     pieces = list(word)
#     for pair in merges:
#         pieces = merge(pieces, pair)
#     print("·".join(pieces))

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
# It has only some three hundred words, yet translating word by word would be wrong. This is what
# makes the sentences hard:

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
# Each sentence of the split `compositional` joins a verb or an adjective to a noun that it is
# joined to in no other split, although both words are common there. A model that had only memorised
# sentences would fail on it.

# %% tags=["active-ipynb"]
# print(*corpus.more["compositional"][0], sep=" → ")
# likes = {en for en in known if "like" in en}
# backpacks = {en for en in known if "backpack" in en}
# both = likes & backpacks
# print("in training: like", len(likes), "· backpack", len(backpacks), "· both", len(both))

# %% [markdown]
# ### Text to subwords
#
# Four ids are reserved: padding, the beginning of a sentence `<s>` (often called `<sos>`), its end
# `</s>`, and `<unk>` for characters that are not in the vocabulary.


# %%
PAD, BOS, EOS, UNK = range(4)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


# %% [markdown]
# The library `tokenizers` learns the merges by the rule above, and is written in Rust, which makes
# it fast. Three details matter. A token that begins a word begins with `▁`, so that decoding can
# restore the spaces. Punctuation is never merged with a word. And `NFC` gives *è* one spelling,
# whether it came as one character or as *e* and a combining accent.


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
# score would no longer measure how well the model does on unseen text. Here are the tokenizer of
# the running example and one with half as many tokens:

# %% tags=["active-ipynb"]
# texts = list(corpus.texts())
# tokenizer = train_tokenizer(texts, 600, corpus.lowercase)
# smaller = train_tokenizer(texts[:20_000], 300, corpus.lowercase)
#
# for text in ("there is a cat on the mat", "c'è un gatto sul tappeto"):
#     print(*tokenizer.encode(text).tokens)
#     print(*smaller.encode(text).tokens, end="\n\n")
# print("vocabularies of", tokenizer.get_vocab_size(), "and", smaller.get_vocab_size())

# %% [markdown]
# With 300 tokens *gatto* and *tappeto* are cut, and share their end. We asked for 600 and got 588:
# then no two neighbours were left to merge, and every word of this small language had become one
# token. A real language does not run out of words, and a vocabulary cuts the rare ones.
#
# Compare both with the two extremes, single letters and whole words: how many entries the
# vocabulary has, and how many tokens a sentence needs, on average over the first thousand pairs.

# %% tags=["active-ipynb"]
# some = texts[:2000]
# rows = {
#     "letters": (len(set("".join(texts))), some),
#     "300 subwords": (300, smaller.encode_batch(some)),
#     "588 subwords": (588, tokenizer.encode_batch(some)),
#     "words": (len({word for text in texts for word in text.split()}), map(str.split, some)),
# }
# for name, (entries, sentences) in rows.items():
#     print(f"{name:13}{entries} entries, {sum(map(len, sentences)) / 2000:4.1f} to a sentence")

# %% [markdown]
# (A word with a comma or a question mark counts as a word of its own here.) Subwords make sentences
# nearly as short as words do, which matters because the cost of attention grows with the square of
# the length. Yet like letters they can spell words that were never in the training split. Only an
# unknown *character* becomes `<unk>`:

# %% tags=["active-ipynb"]
# for text in ("the elephant sleeps", "The CAT sleeps", "the cat ø"):
#     print(f"{text:20}", *tokenizer.encode(text).tokens)
#
# assert tokenizer.encode("è").ids == tokenizer.encode("e\N{COMBINING GRAVE ACCENT}").ids

# %% [markdown]
# ### Text to ids
#
# `encode` ends every text with `</s>`, and `decode` stops there. A text with nothing to translate
# raises an error that says which text it is.


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
UNKNOWN = "has no character that the vocabulary knows"


def problem_of(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> str:
    """Return why a text cannot be translated, or "" if it can be."""
    if not text.strip():
        return BLANK
    if {UNK, tokenizer.token_to_id("▁")}.issuperset(ids):
        return f"{UNKNOWN}: {text[:40]!r}"
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
# from transformer.example import SENTENCES, after
#
# cat, love = encode_pairs(tokenizer, SENTENCES)
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
# The ids mean nothing without the vocabulary, so a tokenizer is saved beside the weights, as JSON.
# `load_tokenizer` reads it and can check that it fits the model.


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
#     assert encode(load_tokenizer(path, 588), some) == encode(tokenizer, some)
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
# print("src", *batch.src.shape, "· tgt", *batch.tgt.shape, end=" ")
# print("· decoder input and labels", *batch.labels.shape)
# print("labels", batch.labels.numel(), "· without padding", batch.n_tokens)
#
# for read, label in zip(batch.decoder_input[1].tolist(), batch.labels[1].tolist()):
#     print(f"{tokenizer.id_to_token(read):8}→ {tokenizer.id_to_token(label)}")

# %% [markdown]
# Without this shift the label would be the token that the decoder has just read, and it would only
# learn to copy. After `</s>` comes padding, and a padding label does not count in chapter 11's
# loss. (If source and target have vocabularies of their own, the labels are padded with the
# target's id.)

# %% [markdown]
# ### Batches by length
#
# Every row of a batch becomes as long as the longest, so a batch should hold pairs of similar
# length. What limits its size is not a number of sentences but a number of *tokens*, padding
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
# groups = batches_by_length(pairs, max_tokens=576)
#
# batches = map(collate, groups)
# eight = next(each for each in batches if (each.src.shape, each.tgt.shape) == ((64, 8), (64, 9)))
# print("src", *eight.src.shape, "· tgt", *eight.tgt.shape, end=" ")
# print("· decoder input", *eight.decoder_input.shape)
# print(len(groups), "batches of", min(map(len, groups)), "to", max(map(len, groups)), "pairs")

# %% [markdown]
# One of them has the 64 × 8 ids that the chapters use as the paper's size. Short sentences come in
# large batches, long ones in small batches.
#
# In sorted order, training would see all short sentences first and all long ones last. So `epoch`
# shuffles the pairs before it groups them, which makes other batches in every epoch, and then
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
# first = list(epoch(pairs, 576, seed=1))
# again = list(epoch(pairs, 576, seed=1, skip=3))
#
# assert sum(len(batch.src) for batch in first) == len(pairs)
# assert all(torch.equal(a.tgt, b.tgt) for a, b in zip(first[3:], again, strict=True))
# print("widths of the first batches:", [batch.tgt.shape[1] for batch in first[:12]])

# %% [markdown]
# ## The proof
#
# ### The running example
#
# The batch of our two pairs is `after(10)`. Chapters 10 and 11 work on the input and the output of
# the model, so this batch is where the example began: its `src` is `after(0)`, the ids of chapter
# 1, and its decoder input is what chapter 8 gave to the decoder.

# %% tags=["active-ipynb"]
# assert batch.src.equal(after(0)) and batch.src.equal(after(10).src)
# assert batch.tgt.equal(after(10).tgt)
#
# print("src", batch.src, "tgt", batch.tgt, sep="\n")

# %% [markdown]
# ### Equal to PyTorch
#
# PyTorch can pad, too. Its default is `batch_first=False`, which returns the transpose.

# %% tags=["active-ipynb"]
# from torch.nn.utils.rnn import pad_sequence
#
# rows = [torch.tensor(src) for src, _ in pairs[:64]]
# theirs = pad_sequence(rows, batch_first=True, padding_value=PAD)
# assert pad([src for src, _ in pairs[:64]]).equal(theirs)

# %% [markdown]
# ### Padding makes no difference
#
# In the example the second sentence is padded, from 6 tokens to 8 and from 4 to 8. The trained
# model now reads it alone. If anything in the network depended on padding, the logits would differ
# from those of chapter 9:

# %% tags=["active-ipynb"]
# from torch.nn import functional as F
#
# from transformer.example import example_model
#
# model = example_model()
# alone = collate([love])
# logits = model(alone.src, alone.decoder_input)
# torch.testing.assert_close(logits, after(9)[1:, :4], atol=1e-4, rtol=1e-4)
# print("alone", *logits.shape, "· in the batch", *after(9)[1:].shape, "· equal in 4 positions")

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
#         torch.testing.assert_close(together[row, : len(logits)], logits, atol=1e-4, rtol=1e-4)
# print("tgt", *crowd.tgt.shape, "· of these padding", int((crowd.tgt == PAD).sum()))

# %% [markdown]
# Is this due to the mask? Without it, padding is embedded like any token, has a key, and receives
# attention from every word. Encode the sentence with and without the two tokens of padding that the
# batch gave it:

# %% tags=["active-ipynb"]
# padded = batch.src[1:]
# masked = model.encode(padded)[:, :6] - model.encode(alone.src)
# unmasked = model.encoder(model.embed(padded))[:, :6] - model.encoder(model.embed(alone.src))
# print(f"with the mask below 1e-5: {masked.abs().max().item() < 1e-5}")
# print(f"without it above 0.5:     {unmasked.abs().max().item() > 0.5}")

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
# The checks look for mistakes that are made in practice: padding on the left, a fixed padding id,
# the two sides sorted separately so that a sentence gets the translation of another, a limit of
# tokens that ignores padding, a lost last batch, and a vocabulary that was learned from more than
# the training texts.

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
# How much does sorting save? Fill batches of at most 576 tokens, padding included, with pairs in
# their original order, and with pairs of similar length. What share of the tokens is padding?

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
# size = 576 // widest
# unsorted = [pairs[i : i + size] for i in range(0, len(pairs), size)]
# wasted = {"original order": padding(unsorted), "by length": padding(groups)}
# assert wasted["by length"] < 0.05 < 0.25 < wasted["original order"]
#
# percent = {name: round(100 * share, 1) for name, share in wasted.items()}
# plot_bars(percent, ylabel="% of tokens", title="Padding")

# %% [markdown]
# In the original order more than a quarter of all tokens are padding; by length it is one in a
# hundred. Here are 12 targets of a batch in the original order beside 12 of a batch by length (■ is
# a token, · is padding):

# %% tags=["active-ipynb"]
# unsorted_rows = pad([tgt for _, tgt in pairs[:12]])
# sorted_rows = pad([tgt for _, tgt in groups[40][:12]])
# for rows in zip(unsorted_rows.tolist(), sorted_rows.tolist()):
#     print("      ".join("".join("■" if i != PAD else "·" for i in row) for row in rows))

# %% [markdown]
# ## What if
#
# What if the mask is left out in training, too, so that the model can get used to padding? A small
# model learns to write two to four signs backwards, in batches by length. The control has the same
# seeds, batches and first weights. To leave the mask out, the model is told that padding has the id
# 3, which never occurs, so nothing is hidden.


# %% tags=["active-ipynb"]
# from transformer import Config, Transformer
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
#
#
# def signs(n):
#     rows = [torch.randint(4, 10, (int(length),)).tolist() for length in torch.randint(2, 5, (n,))]
#     return [([*row, EOS], [BOS, *row[::-1], EOS]) for row in rows]
#
#
# def learn(pad_id, seed, steps=250):
#     torch.manual_seed(seed)
#     sizes = dict(d_model=32, n_heads=2, n_layers=1, d_ff=64, dropout=0.0)
#     model = Transformer(Config(vocab_size=10, **sizes, pad_id=pad_id))
#     optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98))
#     losses = []
#     for step, batch in zip(range(1, steps + 1), epoch(signs(20_000), 256, seed)):
#         optimizer.param_groups[0]["lr"] = 6e-3 * min(step / 20, (steps + 1 - step) / steps)
#         optimizer.zero_grad()
#         logits = model(batch.src, batch.decoder_input).flatten(0, 1)
#         loss = F.cross_entropy(logits, batch.labels.flatten(), ignore_index=PAD)
#         loss.backward()
#         optimizer.step()
#         losses.append(loss.item())
#     return model, sum(losses[-20:]) / 20


# %% tags=["active-ipynb"]
# @torch.no_grad()
# def share_right(model, padding):
#     right = 0
#     for group in batches_by_length(new, 256):
#         batch = collate(group)
#         guesses = model(F.pad(batch.src, (0, padding)), batch.decoder_input).argmax(-1)
#         right += ((guesses == batch.labels) | (batch.labels == PAD)).all(1).sum().item()
#     return right / len(new)

# %% [markdown]
# Now give each new source 0 to 16 tokens of padding more, as longer neighbours in a batch would.
# Will the training loss show which model has no mask? And how many sequences stay right?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# widths = (0, 1, 2, 4, 8, 16)
# trained = {(pad_id, seed): learn(pad_id, seed) for pad_id in (PAD, 3) for seed in range(3)}
# torch.manual_seed(9)
# new = signs(300)
# shares = {
#     key: torch.tensor([share_right(model, width) for width in widths])
#     for key, (model, _) in trained.items()
# }
# for seed in range(3):
#     assert abs(trained[PAD, seed][1] - trained[3, seed][1]) < 0.03, "the losses are alike"
#     assert shares[PAD, seed].max() - 0.01 < shares[PAD, seed].min() > 0.7
#     assert shares[3, seed][-1] < 0.3
#
# means = {
#     name: torch.stack([shares[pad_id, seed] for seed in range(3)]).mean(0)
#     for name, pad_id in (("with the mask", PAD), ("without", 3))
# }
# plot_lines(means, x=widths, xlabel="more padding", ylabel="share right", title="Mean of 3 seeds")

# %% [markdown]
# The training losses are the same within 0.03, because batches by length have little padding. But
# with 16 tokens more, the model without a mask is right in hardly any sequence, and the other is
# exactly as good as before. Such a model translates a sentence well or badly depending on which
# others are in its batch, and no learning curve shows it.

# %% [markdown]
# ## Your own sentences
#
# `transformer.corpora` reads other text into the same `Corpus`, and all of the above works
# unchanged.
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
# file is noticed. The course runs without a network, so it is not called here. It also reads a
# folder with a copy of the files. If one is missing, the error names it:

# %% tags=["active-ipynb"]
# from transformer.corpora import multi30k
#
# try:
#     multi30k("en", "de", folder="my_captions")
# except FileNotFoundError as error:
#     print(error)

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 10.1 | A rectangle of ids | write the block | 10 | ★☆☆ |
# | 10.2 | Batches by length | write the block | 25 | ★★☆ |
# | 10.3 | Three merges on paper | by hand | 10 | ★☆☆ |
# | 10.4 | It depends on the batch | find the bug | 10 | ★★☆ |
# | 10.5 | A test for batches | write the test | 20 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 10` says what is wrong, and `course hint 10.1` gives a hint.

# %% [markdown]
# ## Summary
#
# Text becomes subwords, whose merges are learned from the training split, and subwords become ids.
# A batch holds pairs of similar length, padded to a rectangle, and its labels are the decoder's
# input one token on. Padding costs time, and with its mask it changes no result.
#
# **Write it from memory**: close the chapter and write `pad` and `batches_by_length`;
# `check_pad(pad)` and `check_batches(batches_by_length)` say whether they are right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | WMT 2014 English-German, 4.5 million pairs ([section 5.1](https://arxiv.org/abs/1706.03762)) | 100,000 pairs from a grammar | learned in minutes, exact, no download |
# | byte-pair encoding, one vocabulary of about 37,000 | the same, of 588 to 10,000 | a smaller language needs fewer tokens |
# | batches by approximate length, about 25,000 tokens a side | by length, at most `max_tokens` a side | padding included: it costs as much as words |
# | does not mention padding or its mask | `<pad>` = 0, hidden from all queries | batches are rectangles |
# | outputs "shifted right" (figure 1) | `decoder_input` and `labels`, one step apart | the same |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | texts | list of `b` strings | 2 | 64 |
# | `src` ends with `</s>` | `b k` | (2, 8) | (64, 8) |
# | `tgt` from `<s>` to `</s>` | `b t` | (2, 9) | (64, 9) |
# | `decoder_input`, `labels` | `b t` | (2, 8) each | (64, 8) each |
# | memory | `b k d_model` | (2, 8, 24) | (64, 8, 512) |
# | decoder states | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
# | logits | `b t vocab` | (2, 8, 588) | (64, 8, 37000) |
#
# The batches have an input and a label for every position. [Chapter 11](11_training.ipynb) trains
# the model on them.
