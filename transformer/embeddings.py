# %% [markdown]
r"""
# 1 · Embeddings

**A network computes with numbers; a sentence is made of words. A learned table turns each word
into a vector.**

![The architecture; the two embedding boxes, below the encoder and below the decoder, are lit](../figures/architecture_01.svg)
"""

# %%
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

# %% [markdown]
# ## The question
#
# Cut the sentence into **tokens**: here whole words, in chapter 10 smaller pieces. List every token
# that may occur and number the list. The list is the **vocabulary**; the numbers are the **input
# ids**:

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
#
# tokens = "there is a cat on the mat".split()
# vocabulary = sorted(set(tokens))
# ids = torch.tensor([vocabulary.index(token) for token in tokens])
# print(vocabulary)
# print(ids.tolist())

# %% [markdown]
# The vocabulary fixes the ids, so the sentence now *is* a row of numbers. Can a network compute
# with them?
#
# Try a small task: one weight and one bias that should give 1 for *cat* and 0 for every other word.
# This is the best fit by least squares:

# %% tags=["active-ipynb"]
# numbers = torch.arange(7.0)
# inputs = torch.stack([numbers, torch.ones(7)], dim=1)
# is_cat = (numbers == vocabulary.index("cat")).float()
#
# answers = inputs @ torch.linalg.lstsq(inputs, is_cat[:, None]).solution
# for word, answer in zip(vocabulary, answers[:, 0].tolist()):
#     print(f"{word:5} {round(answer, 2) + 0.0:5.2f}")

# %% [markdown]
# *A* scores higher than *cat* itself. As a quantity, id 3 is three times id 1, and *is* lies
# halfway between *cat* and *mat*. This order comes from the alphabet and means nothing, and every
# layer would have to unlearn it. An id is a **name**, not an amount.

# %% [markdown]
# ## By hand
#
# Give each word a feature of its own: 1 at its id, 0 elsewhere. This is **one-hot** encoding. The
# words are no longer ordered:

# %% tags=["active-ipynb"]
# one_hot = F.one_hot(ids, num_classes=7).float()
# print(one_hot.long())
# print(torch.cdist(one_hot, one_hot).unique())

# %% [markdown]
# Now any two different words are $\sqrt 2$ apart: *cat* is as far from *mat* as from *on*. But with
# a real vocabulary each row has 37,000 numbers. The first layer of a network multiplies these rows
# by a matrix. Take a matrix with three columns whose numbers are easy to follow:

# %% tags=["active-ipynb"]
# table = torch.tensor([[i, 10.0 * i, 100.0 * i] for i in range(7)])
# one_hot @ table

# %% [markdown]
# A one-hot row times a matrix picks one row of the matrix: *there* has id 6 and got row 6. So there
# is no need to multiply; the product is a **lookup**:

# %% tags=["active-ipynb"]
# assert (one_hot @ table).equal(table[ids])

# %% [markdown]
# ![Seven tokens become seven ids, each id points at a row of the table, and the rows are the vectors](../figures/01_lookup.svg)
#
# The table $E$ has one row for each of $v$ words and one column for each of $d$ features. Its
# numbers are weights like any others: they start at random, and training changes them. Sentence →
# tokens → ids → vectors: **the ids are fixed by the vocabulary, the vectors are learned**.

# %% [markdown]
# ## The definition
#
# The vector of the token with id $i$ is
#
# $$x = \sqrt{d} \; E_i
# \qquad\text{with}\qquad E_{ij} \sim \mathcal{N}(0, 1/d) \text{ at the start}$$
#
# Why the factor $\sqrt{d}$? The proof below measures what happens without it.


# %% tags=["exercise"]
class TokenEmbedding(nn.Module):
    """Embed token ids: look up one learned row for each id and scale it by √d_model.

    The rows start with standard deviation 1/√d_model, so the scaled rows have unit variance. The
    output layer (`Transformer.logits`) uses the same table and needs the smaller, unscaled rows.
    Source: Vaswani et al. 2017, section 3.4.
    """

    def __init__(self, vocab_size: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model) / math.sqrt(d_model))

    def forward(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d_model"]:
        """Return the scaled rows of `ids`; on a CPU an id outside the table raises IndexError."""
        return F.embedding(ids, self.weight) * math.sqrt(self.weight.shape[-1])


# %% [markdown]
# ## The proof
#
# PyTorch has this layer too, without the root. With our table, its result times $\sqrt{d}$ equals
# ours:

# %% tags=["active-ipynb"]
# embedding = TokenEmbedding(vocab_size=1000, d_model=512)
# theirs = nn.Embedding(1000, 512)
# theirs.weight = embedding.weight
#
# torch.testing.assert_close(embedding(ids[None]), theirs(ids[None]) * math.sqrt(512))
#
# batch = torch.randint(1000, (64, 8))
# print("one sentence:", *ids.shape, "→", *embedding(ids[None])[0].shape)
# print("a batch:     ", *batch.shape, "→", *embedding(batch).shape)

# %% [markdown]
# The layer expects the axes `b t`, so `ids[None]` makes a batch of one sentence. The layer adds one
# axis at the end: `b t d`. Every later layer up to the logits keeps this shape.

# %% [markdown]
# ### What is learned
#
# Which rows does training change? Any loss will show it. The gradient reaches the seven rows that
# were looked up and none of the other 993:

# %% tags=["active-ipynb"]
# embedding(ids[None]).pow(2).sum().backward()
# touched = embedding.weight.grad.any(dim=1).nonzero().flatten()
#
# assert touched.tolist() == sorted(ids.tolist())
# print("rows with a gradient:", touched.tolist(), "of", len(embedding.weight))

# %% [markdown]
# A rare word is looked up rarely, so its row is trained slowly. This is one reason for the subwords
# of chapter 10, and one reason for the next step.

# %% [markdown]
# ### The table, read backwards
#
# At the output, the model must turn a vector $x$ into a score for each word. It uses the same table
# a second time: the score of word $i$ is the dot product of $x$ and row $i$,
#
# $$\text{logits} = x E^\top$$
#
# The word whose row agrees most with $x$ gets the highest score. So reading the table forwards and
# then backwards should return the same words:

# %% tags=["active-ipynb"]
# with torch.no_grad():
#     scores = embedding(ids[None])[0] @ embedding.weight.T
# print(*scores.shape)
# print(ids.tolist(), "→", scores.argmax(-1).tolist())

# %% [markdown]
# This is called **tying**: one table serves the source, the target and the output. Source and
# target share a vocabulary, so a name or a number is learned once for both languages. Through the
# output, every row gets a gradient at every step, even the rows of rare words. And one table takes
# the place of three, as the counts at the paper's size show:

# %% tags=["active-ipynb"]
# from transformer import Config, Transformer
#
# model = Transformer(Config.base(vocab_size=1000))
# assert sum(weights.shape == (1000, 512) for weights in model.parameters()) == 1
#
# x = torch.randn(2, 5, 512)
# torch.testing.assert_close(model.logits(x), x @ model.embedding.weight.T + model.bias)
# model.logits(x).logsumexp(-1).sum().backward()
# assert model.embedding.weight.grad.any(dim=1).all()
#
# with torch.device("meta"):  # shapes without numbers
#     base = Transformer(Config.base())
# print("one table:      ", base.embedding.weight.numel())
# print("the whole model:", sum(weights.numel() for weights in base.parameters()))

# %% [markdown]
# The table has 19 of the model's 63 million weights; untied, the model would have three such
# tables. The first assertion matters: if the tying is forgotten, no error is raised, and separate
# tables are trained.

# %% [markdown]
# ### Why times $\sqrt{d}$?
#
# The table is used in two ways, and they need different sizes.
#
# - **The input** adds a position to each word (chapter 2). Positions are sines and cosines, whose
#   typical size is $\sqrt{1/2} = 0.71$. A word should be about as large: entries of size 1.
# - **The output** sums $d$ products $x_j E_{ij}$. If the features of $x$ have size 1, a logit is
#   $\sqrt{d}$ times as large as the entries. It should be about 1: entries of size $1/\sqrt{d}$.
#
# The two sizes differ by a factor of $\sqrt{512} = 22.6$. So the table starts small, for the
# output, and its rows are multiplied for the input.

# %% [markdown]
# Whether this works depends on the **initialisation**. The next cell starts a table of 8000 words
# in three ways and multiplies each by $\sqrt{512}$. Guessing among 8000 words costs
# $\ln 8000 = 9.0$. Before you run the cell: which table starts close to that loss?

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
# v = 8000
# d = 512
# x = torch.randn(500, d)
# labels = torch.randint(v, (500,))
# starts = {"N(0, 1)": 1.0, "Xavier": math.sqrt(2 / (v + d)), "N(0, 1/d)": 1 / math.sqrt(d)}
#
# for name, std in starts.items():
#     table = std * torch.randn(v, d)
#     word = math.sqrt(d) * table.std().item()
#     loss = F.cross_entropy(x @ table.T, labels).item()
#     print(f"{name:10} word {word:5.2f}   position 0.71   first loss {loss:4.1f}")

# %% [markdown]
# - $\mathcal{N}(0, 1)$, the default of `nn.Embedding`, suits the input without the root. With the
#   root, words drown their positions, 22.6 against 0.71. As an output layer it is wrong and very
#   confident: the first loss is 86.
# - Xavier starts well as an output layer, but its size depends on the vocabulary, and here words
#   are half as large as positions.
# - $\mathcal{N}(0, 1/d)$ suits both, at any vocabulary and any width.
#
# The root, the initialisation and the tying make sense **only together**. Copy one without the
# others, and a size is wrong by a factor of 22.6.

# %% [markdown]
# ### The check
#
# `check_embedding` looks for mistakes that are made in practice: a missing root, a factor of $d$ or
# $1/\sqrt d$ in its place, rows from $\mathcal{N}(0, 1)$ or Xavier, a table that gets no gradient,
# and a result in another precision than the table's.

# %% tags=["active-ipynb"]
# from transformer.checks import check_embedding
#
# check_embedding(TokenEmbedding)

# %% [markdown]
# What about an id outside the vocabulary? On a CPU the lookup raises an error, and the model turns
# it into one that names the ids. On a GPU the lookup runs later, and its error is a failed
# assertion in a CUDA kernel, so check your ids before you send them there.

# %% tags=["active-ipynb"]
# try:
#     model.encode(torch.tensor([[6, 2, 1000]]))
# except ValueError as error:
#     print(error)

# %% [markdown]
# ## The look
#
# A new table holds only random numbers. Draw rows for eleven words and compare every pair by
# **cosine**, which is 1 if the two vectors point the same way and 0 if they are orthogonal.

# %% tags=["active-ipynb"]
# from itertools import product
#
# from einops import rearrange
#
# from transformer.plotting import plot_matrix
#
# groups = [["cat", "dog", "bird"], ["mat", "sofa", "table"], ["on", "under", "near"], ["a", "one"]]
# names = [word for group in groups for word in group]
# vocabulary = [*names, "there", "is", "the"]
#
#
# def cosines(table):
#     rows = F.normalize(table.detach()[: len(names)], dim=-1)
#     return rows @ rows.T
#
#
# torch.manual_seed(2)
# embedding = TokenEmbedding(len(vocabulary), 16)
# plot_matrix(cosines(embedding.weight), names, names, "Before training", center=True)

# %% [markdown]
# Now train it on 54 sentences: *there is a cat on the mat*, *there is one dog under the sofa* … The
# task is to guess each word from its two neighbours; the groups are not part of the data. (Weight
# decay shrinks the numbers that the task does not need.)

# %% tags=["active-ipynb"]
# sentences = [
#     f"there is {a} {thing} {where} the {place}".split()
#     for thing, place, where, a in product(*groups)
# ]
# ids = torch.tensor([[vocabulary.index(word) for word in sentence] for sentence in sentences])
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
# guess = nn.Linear(16, len(vocabulary))
# weights = [*embedding.parameters(), *guess.parameters()]
# optimizer = torch.optim.Adam(weights, lr=0.01, weight_decay=1e-3)
# for _ in range(600):
#     x = embedding(ids)
#     logits = guess(x[:, :-2] + x[:, 2:])
#     optimizer.zero_grad()
#     F.cross_entropy(rearrange(logits, "b t v -> b v t"), ids[:, 1:-1]).backward()
#     optimizer.step()
#
# plot_matrix(cosines(embedding.weight), names, names, "After training", center=True)

# %% [markdown]
# Animals, furniture, prepositions, articles: four blue blocks, although no sentence names a group.
# Words that can replace each other occur between the same neighbours, so training moves their rows
# in the same direction.

# %% tags=["active-ipynb"]
# group = torch.tensor([i for i, words in enumerate(groups) for _ in words])
# same = group[:, None] == group[None, :]
#
# assert cosines(embedding.weight)[same].min() > cosines(embedding.weight)[~same].max()

# %% [markdown]
# Every word is closer to all words of its group than to any other word. A translator learns its
# table in the same way from a different task, and there each row serves both languages.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | multiplies the table by $\sqrt{d_{\text{model}}}$ (section 3.4) | the same | words and positions of similar size |
# | one table for source, target and output (section 3.4) | the same; the output adds a bias | 38 million fewer weights |
# | does not say how the table starts | $\mathcal{N}(0, 1/d)$ | the size for which the root and the tying fit together |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | one sentence: ids → vectors | `t` → `t d` | (8,) → (8, 512) |
# | the table | `v d` | (37000, 512) |
# | a batch: ids → vectors | `b t` → `b t d` | (64, 8) → (64, 8, 512) |
#
# A row identifies its word but not its place: *there is a cat on the mat* and *there is a mat on
# the cat* are the same seven rows in another order. [Chapter 2](02_positional_encoding.ipynb) adds
# the position to each row.
