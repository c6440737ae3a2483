# %% [markdown]
r"""
# 1 · Embeddings

**A network computes with numbers, a sentence is made of words. A table turns one into the other, and the table is learned.**

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
# Cut the sentence into **tokens** (here whole words; chapter 10 cuts finer). Write down every token that may occur, the
# **vocabulary**, and number it. The numbers are the **input ids**:

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
# Ids are fixed by the vocabulary, and now the sentence *is* numbers. Can a network compute with them?
#
# Ask for little: one weight and one bias that answer 1 for *cat* and 0 for every other word. The best fit, by least squares:

# %% tags=["active-ipynb"]
# numbers = torch.arange(7.0)
# inputs = torch.stack([numbers, torch.ones(7)], dim=1)
# is_cat = (numbers == vocabulary.index("cat")).float()
#
# answers = inputs @ torch.linalg.lstsq(inputs, is_cat[:, None]).solution
# for word, answer in zip(vocabulary, answers[:, 0].tolist()):
#     print(f"{word:5} {round(answer, 2) + 0.0:5.2f}")

# %% [markdown]
# *A* is more of a cat than *cat*. As a quantity, id 3 is three times id 1, and *is* lies halfway between *cat* and *mat*: an order and a distance
# that come from the alphabet, and that every layer would have to unlearn. An id is a **name**, not an amount.

# %% [markdown]
# ## By hand
#
# Give each word a feature of its own: 1 at its id, 0 elsewhere. This is **one-hot** coding. Nothing is ordered any more:

# %% tags=["active-ipynb"]
# one_hot = F.one_hot(ids, num_classes=7).float()
# print(one_hot.long())
# print(torch.cdist(one_hot, one_hot).unique())

# %% [markdown]
# Now every pair of different words is $\sqrt 2$ apart, *cat* as far from *mat* as from *on*, and a real vocabulary would make
# rows of 37,000 numbers. The first layer of a network multiplies them by a matrix. Take one with three features that can be followed by eye:

# %% tags=["active-ipynb"]
# table = torch.tensor([[i, 10.0 * i, 100.0 * i] for i in range(7)])
# one_hot @ table

# %% [markdown]
# A one-hot row times a matrix picks one row of it: *there*, id 6, got row 6. So nobody multiplies. The product is a
# **lookup**:

# %% tags=["active-ipynb"]
# assert (one_hot @ table).equal(table[ids])

# %% [markdown]
# ![Seven tokens become seven ids, each id points at a row of the table, and the rows are the vectors](../figures/01_lookup.svg)
#
# The table $E$ has one row for each of $v$ words and one column for each of $d$ features. Its numbers are weights like
# any others: they begin at random, and training moves them. Sentence → tokens → ids → vectors: **the ids are fixed by the
# vocabulary, the vectors are learned**.

# %% [markdown]
# ## The definition
#
# The vector of the token with id $i$ is
#
# $$x = \sqrt{d} \; E_i \qquad\text{with}\qquad E_{ij} \sim \mathcal{N}(0, 1/d) \text{ at the start}$$
#
# The root will need a reason; the proof below measures it.


# %% tags=["exercise"]
class TokenEmbedding(nn.Module):
    """Turn token ids into vectors: one learned row of the table for each id, times √d_model.

    The rows start with standard deviation 1/√d_model, so the product has unit variance. The same table read the other
    way round makes the logits (`Transformer.logits`), where rows of that size are what is wanted.
    Source: Vaswani et al. 2017, section 3.4.
    """

    def __init__(self, vocab_size: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model) / math.sqrt(d_model))

    def forward(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return the rows for `ids`, each in [0, vocab_size)."""
        return F.embedding(ids, self.weight) * math.sqrt(self.weight.shape[-1])


# %% [markdown]
# ## The proof
#
# PyTorch has this layer too, without the root. Give it our table, and the two agree:

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
# `ids[None]` makes a batch of one sentence, for the layer expects the axes `b t`. It adds one axis at the end: `b t d`. Every later layer
# up to the logits keeps this shape.

# %% [markdown]
# ### What is learned
#
# Any loss will do to see where a gradient arrives. It reaches the seven rows that were looked up, and none of the 993 others:

# %% tags=["active-ipynb"]
# embedding(ids[None]).pow(2).sum().backward()
# touched = embedding.weight.grad.any(dim=1).nonzero().flatten()
#
# assert touched.tolist() == sorted(ids.tolist())
# print("rows with a gradient:", touched.tolist(), "of", len(embedding.weight))

# %% [markdown]
# A rare word is looked up rarely, and so it learns slowly. That is one reason for the subwords of chapter 10, and part of the reason for what
# comes next.

# %% [markdown]
# ### The table, read backwards
#
# At its other end the model must turn a vector $x$ into a score for each word. It takes the same table a second time:
# the score of word $i$ is the dot product of $x$ and row $i$,
#
# $$\text{logits} = x E^\top$$
#
# Whichever row agrees most with $x$ wins. So a table that is read forwards and then backwards should give the
# words back:

# %% tags=["active-ipynb"]
# with torch.no_grad():
#     scores = embedding(ids[None])[0] @ embedding.weight.T
# print(*scores.shape)
# print(ids.tolist(), "→", scores.argmax(-1).tolist())

# %% [markdown]
# This is called **tying**: one table for the source, for the target and for the output. Source and target share a vocabulary,
# so a name or a number is learned once for both languages. Through the output every row gets a gradient at every step, rare words
# included. And it saves two of three tables, as the counts at the paper's size show:

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
# Of 63 million weights 19 million are this table; untied, the model would carry it three times. The first assertion matters: in some
# well-known code tying is announced in the text, and separate tables are trained.

# %% [markdown]
# ### Why times $\sqrt{d}$?
#
# The table has two readers, and they want different sizes.
#
# - **The input** adds a position to each word (chapter 2). Positions are sines and cosines, of typical size $\sqrt{1/2} = 0.71$. A
#   word should be about as large: entries of size 1.
# - **The output** sums $d$ products $x_j E_{ij}$. If the features of $x$ have size 1, a logit has size
#   $\sqrt{d}$ times that of the entries, and should be about 1: entries of size $1/\sqrt{d}$.
#
# The two wishes are $\sqrt{512} = 22.6$ apart. So start small, for the output, and multiply for the input.

# %% [markdown]
# Whether that works depends on the **initialisation**. Three ways to start a table of 8000 words, each of them then multiplied by
# $\sqrt{512}$. Before you run it: guessing among 8000 words costs $\ln 8000 = 9.0$; which table starts there?

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
# v, d = 8000, 512
# x, labels = torch.randn(500, d), torch.randint(v, (500,))
# starts = {"N(0, 1)": 1.0, "Xavier": math.sqrt(2 / (v + d)), "N(0, 1/d)": 1 / math.sqrt(d)}
#
# for name, std in starts.items():
#     table = std * torch.randn(v, d)
#     word = math.sqrt(d) * table.std().item()
#     loss = F.cross_entropy(x @ table.T, labels).item()
#     print(f"{name:10} word {word:5.2f}   position 0.71   first loss {loss:4.1f}")

# %% [markdown]
# - $\mathcal{N}(0, 1)$, the default of `nn.Embedding`, is right for the input without the root. With it, words drown their positions, 22.6
#   against 0.71, and as an output it is absurdly sure of itself: a first loss
#   of 86.
# - Xavier starts a good output, but its size depends on the vocabulary, and here words are half as large as positions.
# - $\mathcal{N}(0, 1/d)$ serves both, at any vocabulary and any width.
#
# The root, the initialisation and the tying make sense **only together**. Copy one of them alone, and a size is off by a factor
# of 22.6.

# %% [markdown]
# ### The check
#
# `check_embedding` looks for what goes wrong in practice: a missing root, a factor of $d$ or $1/\sqrt d$ in its place, rows from
# $\mathcal{N}(0, 1)$ or Xavier, a table that gets no gradient, another precision than the table's.

# %% tags=["active-ipynb"]
# from transformer.checks import check_embedding
#
# check_embedding(TokenEmbedding)

# %% [markdown]
# And an id that is not in the vocabulary? On a CPU the lookup raises an error; on a GPU it may end the program with a message about an
# assertion in a kernel. So the model looks at the ids before it uses them:

# %% tags=["active-ipynb"]
# try:
#     model.encode(torch.tensor([[6, 2, 1000]]))
# except ValueError as error:
#     print(error)

# %% [markdown]
# ## The look
#
# A new table knows nothing. Draw rows for eleven words and compare each with each: the cosine of two vectors is 1 if they
# point the same way and 0 if they have nothing in common.

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
# Now let it learn. *There is a cat on the mat*, *there is one dog under the sofa* … 54 such sentences, and a task: guess each word
# from its two neighbours. Nobody says what a cat is. (The weight decay lets numbers fade that the task does not need.)

# %% tags=["active-ipynb"]
# sentences = [f"there is {a} {thing} {where} the {place}" for thing, place, where, a in product(*groups)]
# ids = torch.tensor([[vocabulary.index(word) for word in sentence.split()] for sentence in sentences])
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
# guess = nn.Linear(16, len(vocabulary))
# optimizer = torch.optim.Adam([*embedding.parameters(), *guess.parameters()], lr=0.01, weight_decay=1e-3)
# for _ in range(600):
#     x = embedding(ids)
#     logits = guess(x[:, :-2] + x[:, 2:])
#     optimizer.zero_grad()
#     F.cross_entropy(rearrange(logits, "b t v -> b v t"), ids[:, 1:-1]).backward()
#     optimizer.step()
#
# plot_matrix(cosines(embedding.weight), names, names, "After training", center=True)

# %% [markdown]
# Animals, pieces of furniture, prepositions, articles: four blue blocks, and not one of them was in the data. Words that may stand
# in for each other are looked for in the same places, so their rows are pushed the same way.

# %% tags=["active-ipynb"]
# group = torch.tensor([i for i, words in enumerate(groups) for _ in words])
# same = group[:, None] == group[None, :]
#
# assert cosines(embedding.weight)[same].min() > cosines(embedding.weight)[~same].max()

# %% [markdown]
# Any word is nearer to all of its kind than to any other word. In a translator the table is learned in the same way, from a different
# task, and there each row serves two languages.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | multiplies the table by $\sqrt{d_{\text{model}}}$ (section 3.4) | the same | words and positions of like size |
# | one table for source, target and output (section 3.4) | the same; the output adds a bias | 38 million weights less |
# | says nothing of how the table starts | $\mathcal{N}(0, 1/d)$ | the size for which the root and the tying fit together |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | one sentence: ids → vectors | `t` → `t d` | (8,) → (8, 512) |
# | the table | `v d` | (37000, 512) |
# | a batch: ids → vectors | `b t` → `b t d` | (64, 8) → (64, 8, 512) |
#
# A row knows its word. It does not know whether the cat is on the mat or the mat on the cat: both sentences are the same seven
# rows. [Chapter 2](02_positional_encoding.ipynb) tells each row its place.
