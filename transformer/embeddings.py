# %% [markdown]
r"""
# 1 · Embeddings

**A network computes with numbers; a sentence is made of words. A learned table turns each word
into a vector.**

![The architecture; the two embedding boxes, below the encoder and below the decoder, are lit](../figures/architecture_01.svg)
"""

# %% [markdown]
# **What you need**: [chapter 0](00_introduction.ipynb), for the running example and the letters.
# About 25 minutes. In the paper: [section 3.4](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/01_embeddings.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/01_embeddings.ipynb).
#
# **What you will be able to do**
#
# - turn token ids into vectors, and say why an id must not be used as a number;
# - write the embedding layer, with the right size of its first weights and its factor;
# - explain how one table can serve the source, the target and the output.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

# %% [markdown]
# ## The question
#
# Cut the sentence into **tokens**: in our two sentences they are whole words, in chapter 10 some
# are smaller pieces. List every token that may occur and number the list. The list is the
# **vocabulary**; the numbers are the **input ids**. That of the running example has 588 tokens:

# %% tags=["active-ipynb"]
# from transformer.example import after, tokens
#
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
#
# ids = after(0)
# for words, numbers in zip(tokens(ids), ids.tolist()):
#     print(words, numbers, sep="\n")

# %% [markdown]
# `</s>` marks the end of a sentence. The second sentence is shorter, so it is filled up with
# `<pad>`. The ids are fixed by the vocabulary, so a sentence now *is* a row of numbers. Can a
# network compute with them?
#
# Try a small task: one weight and one bias that should give 1 for *cat* and 0 for every other word.
# Which word gets the highest score in the best fit by least squares?

# %% tags=["active-ipynb"]
# words = tokens(ids)[0]
# inputs = torch.stack([ids[0].float(), torch.ones(8)], dim=1)
# is_cat = torch.tensor([[float(word == "cat")] for word in words])
#
# answers = inputs @ torch.linalg.lstsq(inputs, is_cat).solution
# for word, answer in zip(words, answers[:, 0].tolist()):
#     print(f"{word:5} {answer:5.2f}")

# %% [markdown]
# *Mat* scores higher than *cat* itself, because its id is larger: 222 against 206. The ids only say
# in which order chapter 10's tokenizer learned its tokens. This order means nothing, and every
# layer would have to unlearn it. An id is a **name**, not an amount.

# %% [markdown]
# ## By hand
#
# Give each word a feature of its own: 1 at its id, 0 elsewhere. This is **one-hot** encoding. Take
# a vocabulary of four, `<pad>`, *cat*, *on*, *mat*, and the words *cat on mat*, whose ids are 1, 2
# and 3. The words are no longer ordered:

# %% tags=["active-ipynb"]
# cat_on_mat = torch.tensor([1, 2, 3])
# one_hot = F.one_hot(cat_on_mat, num_classes=4).float()
# print(one_hot.long())
# print(torch.cdist(one_hot, one_hot))

# %% [markdown]
# Any two different words are $\sqrt 2$ apart: *cat* is as far from *mat* as from *on*. But with the
# paper's vocabulary each row has 37,000 numbers. The first layer of a network multiplies these rows
# by a matrix. Take a matrix with three columns whose numbers are easy to follow:

# %% tags=["active-ipynb"]
# table = torch.tensor([[i, 10.0 * i, 100.0 * i] for i in range(4)])
# one_hot @ table

# %% [markdown]
# A one-hot row times a matrix picks one row of the matrix: *mat* has id 3 and got row 3. So there
# is no need to multiply; the product is a **lookup**:

# %% tags=["active-ipynb"]
# assert (one_hot @ table).equal(table[cat_on_mat])

# %% [markdown]
# ![Seven tokens become seven ids, each id points at a row of the table, and the rows are the vectors](../figures/01_lookup.svg)
#
# The table $E$ has a row for each token of the vocabulary and a column for each of $d_\text{model}$
# features. Its numbers are weights like any others: they start at random, and training changes
# them. Sentence → tokens → ids → vectors: **the ids are fixed by the vocabulary, the vectors are
# learned**.

# %% [markdown]
# ## The definition
#
# The vector of the token with id $i$ is
#
# $$x = \sqrt{d_\text{model}} \; E_i
# \qquad\text{with}\qquad E_{ij} \sim \mathcal{N}(0, 1/d_\text{model}) \text{ at the start}$$
#
# that is, the entries of the table are drawn from a normal distribution with mean 0 and variance
# $1/d_\text{model}$. Why the factor $\sqrt{d_\text{model}}$? Below we measure what happens without
# it.


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
# ### The running example
#
# Give our layer the table of the trained model. It turns the ids of both sentences into the vectors
# that chapter 2 will start from, `after(1)`:

# %% tags=["active-ipynb"]
# from transformer.example import weights
#
# embedding = TokenEmbedding(vocab_size=588, d_model=24)
# embedding.load_state_dict(weights("embedding"))
# x = embedding(ids)
#
# torch.testing.assert_close(x, after(1))
# cat = words.index("cat")
# print("ids", *ids.shape, "→ vectors", *x.shape)
# print("cat, the first 4 of 24 features:", x[0, cat, :4].detach())

# %% [markdown]
# ### Equal to PyTorch
#
# PyTorch has this layer too, without the root. With the same table, its result times
# $\sqrt{d_\text{model}}$ equals ours. Here it is at the paper's size:

# %% tags=["active-ipynb"]
# ours = TokenEmbedding(vocab_size=37_000, d_model=512)
# theirs = nn.Embedding(37_000, 512)
# theirs.weight = ours.weight
#
# batch = torch.randint(37_000, (64, 8))
# torch.testing.assert_close(ours(batch), theirs(batch) * math.sqrt(512))
# print("ids", *batch.shape, "→ vectors", *ours(batch).shape)

# %% [markdown]
# The layer adds one axis at the end, from `b t` to `b t d_model`: batch, position, feature. Every
# later layer up to the logits keeps this shape.

# %% [markdown]
# ### What is learned
#
# Which rows does training change? Any loss will show it. How many of the 588 rows will get a
# gradient from the first sentence?

# %% tags=["active-ipynb"]
# embedding(ids[:1]).pow(2).sum().backward()
# touched = embedding.weight.grad.any(dim=1).nonzero().flatten()
#
# assert touched.tolist() == sorted(ids[0].tolist())
# print("rows with a gradient:", touched.tolist())

# %% [markdown]
# Only the eight that were looked up. A rare word is looked up rarely, so its row is trained slowly.
# This is one reason for the subwords of chapter 10, and one reason for the next step.

# %% [markdown]
# ### The table, read backwards
#
# At the output, the model must turn a vector $x$ into a score for each token. It uses the same
# table a second time: the score of token $i$ is the dot product of $x$ and row $i$,
#
# $$\text{logits} = x E^\top$$
#
# The token whose row agrees most with $x$ gets the highest score. So reading a new table forwards
# and then backwards should return the same tokens:

# %% tags=["active-ipynb"]
# with torch.no_grad():
#     scores = ours(ids)[0] @ ours.weight.T
# print(*scores.shape)
# print(ids[0].tolist(), "→", scores.argmax(-1).tolist())

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
# vectors = torch.randn(2, 5, 512)
# by_hand = vectors @ model.embedding.weight.T + model.bias
# torch.testing.assert_close(model.logits(vectors), by_hand)
# model.logits(vectors).logsumexp(-1).sum().backward()
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
# ### Why times $\sqrt{d_\text{model}}$?
#
# The table is used in two ways, and they need different sizes.
#
# - **The input** adds a position to each word (chapter 2). Positions are sines and cosines, whose
#   typical size is $\sqrt{1/2} = 0.71$. A word should be about as large: entries of size 1.
# - **The output** sums $d_\text{model}$ products $x_j E_{ij}$. If the features of $x$ have size 1,
#   a logit is $\sqrt{d_\text{model}}$ times as large as the entries. It should be about 1: entries
#   of size $1/\sqrt{d_\text{model}}$.
#
# The two sizes differ by a factor of $\sqrt{512} = 22.6$. So the table starts small, for the
# output, and its rows are multiplied for the input.

# %% [markdown]
# Whether this works depends on the **initialisation**. The next cell starts a table of 8000 words
# in three ways and multiplies each by $\sqrt{512}$. (*Xavier*'s initialisation chooses the size
# from the number of rows and columns, chapter 4.) Guessing among 8000 words costs $\ln 8000 = 9.0$.
# Which table starts close to that loss?

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
# vectors = torch.randn(500, 512)
# labels = torch.randint(8000, (500,))
# xavier = math.sqrt(2 / (8000 + 512))
# starts = {"N(0, 1)": 1.0, "Xavier": xavier, "N(0, 1/512)": 1 / math.sqrt(512)}
#
# for name, std in starts.items():
#     table = std * torch.randn(8000, 512)
#     word = math.sqrt(512) * table.std().item()
#     loss = F.cross_entropy(vectors @ table.T, labels).item()
#     print(f"{name:12} word {word:5.2f}   position 0.71   first loss {loss:4.1f}")

# %% [markdown]
# - $\mathcal{N}(0, 1)$, the default of `nn.Embedding`, suits the input without the root. With the
#   root, words drown their positions, 22.6 against 0.71. As an output layer it is wrong and very
#   confident: the first loss is 86.
# - Xavier starts well as an output layer, but its size depends on the vocabulary, and here words
#   are half as large as positions.
# - $\mathcal{N}(0, 1/d_\text{model})$ suits both, at any vocabulary and any width.

# %% [markdown]
# ### The check
#
# `check_embedding` looks for mistakes that are made in practice: a missing root, a factor of
# $d_\text{model}$ or $1/\sqrt{d_\text{model}}$ in its place, rows from $\mathcal{N}(0, 1)$ or
# Xavier, a table that gets no gradient, and a result in another precision than the table's.

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
# A new table holds only random numbers. What did training put into it? Compare pairs of rows by
# **cosine**, which is 1 if two vectors point the same way and 0 if they are orthogonal. Here are
# ten nouns, four colours and two articles, before training:

# %% tags=["active-ipynb"]
# from transformer.example import example_tokenizer
# from transformer.plotting import plot_matrix
#
# groups = ["cat dog boy book mat", "girl woman chair letter car", "red black green blue", "a an"]
# names = " ".join(groups).split()
# rows = torch.tensor([example_tokenizer().token_to_id(f"▁{name}") for name in names])
#
#
# def cosines(table):
#     vectors = F.normalize(table.detach()[rows], dim=-1)
#     return vectors @ vectors.T
#
#
# torch.manual_seed(0)
# new = TokenEmbedding(588, 24)
# plot_matrix(cosines(new.weight), names, names, "Before training", center=True)

# %% [markdown]
# And in the trained table of the running example. Before you run the cell: will *boy* be closer to
# *girl* or to *mat*?

# %% tags=["active-ipynb"]
# plot_matrix(cosines(embedding.weight), names, names, "After training", center=True)

# %% [markdown]
# To *mat*. Colours are close to colours, and articles to articles. But the nouns fall into two
# groups that English does not have: *cat, dog, boy, book, mat* are masculine in Italian, *girl,
# woman, chair, letter, car* are feminine. To translate *a* or *red*, the model needs the gender of
# the noun. No sentence names it; training found it, because words that are used alike get gradients
# alike.

# %% tags=["active-ipynb"]
# group = torch.tensor([i for i, words in enumerate(groups) for _ in words.split()])
# same = group[:, None] == group[None, :]
#
# trained = cosines(embedding.weight)
# assert trained[same].min() > trained[~same].max()

# %% [markdown]
# ## What if
#
# What if the root is left out? A small network, trained with *Adam* (an optimiser, chapter 11), is
# given a word and its position, and must name the word that follows it in a fixed list of 100.
# Everything else stays the same: the width is 256, the seed and the learning rate are equal, and
# the output is read from the same table. As a control, two separate tables without a root: one of
# size 1 for the input and one of size $1/16$ for the output.


# %% tags=["active-ipynb"]
# from transformer.positional_encoding import sinusoidal_positions
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
#
#
# def share_right(factor, std, tied, seed, d_model=256):
#     torch.manual_seed(seed)
#     table = nn.Parameter(std * torch.randn(100, d_model))
#     output = table if tied else nn.Parameter(torch.randn(100, d_model) / math.sqrt(d_model))
#     network = nn.Sequential(nn.Linear(d_model, 256), nn.ReLU(), nn.Linear(256, d_model))
#     optimizer = torch.optim.Adam({table, output, *network.parameters()}, lr=1e-3)
#     following = torch.randperm(100)
#     curve = []
#     for _ in range(100):
#         ids = torch.randint(100, (16, 8))
#         x = factor * table[ids] + sinusoidal_positions(8, d_model)
#         logits = F.layer_norm(network(x), (d_model,)) @ output.T
#         optimizer.zero_grad()
#         F.cross_entropy(logits.flatten(0, 1), following[ids].flatten()).backward()
#         optimizer.step()
#         curve.append((logits.argmax(-1) == following[ids]).float().mean())
#     return torch.stack(curve)

# %% [markdown]
# Without the root a word's entries have size $1/16 = 0.06$, beside positions of 0.71. Will the
# network still learn, and will the control?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# variants = {
#     "with the root": (16, 1 / 16, True),
#     "without it": (1, 1 / 16, True),
#     "control: two tables": (1, 1, False),
# }
# curves = {
#     name: torch.stack([share_right(*variant, seed) for seed in range(3)])
#     for name, variant in variants.items()
# }
# at_step_50 = {name: runs[:, 50].min() for name, runs in curves.items()}
# assert at_step_50["with the root"] > 0.9 and at_step_50["control: two tables"] > 0.9
# assert curves["without it"][:, 50].max() < 0.5
#
# means = {name: runs.mean(0) for name, runs in curves.items()}
# plot_lines(means, xlabel="step", ylabel="share right", title="Name the next word, 3 seeds")

# %% [markdown]
# Without the root, almost nothing is learned until training has made the words large enough beside
# their positions. The control learns as fast as the model with the root (the two curves coincide),
# so what counts is the **size**, not the root itself. The root, the initialisation and the tying
# make sense only together: copy one without the others, and a size is wrong by a factor of
# $\sqrt{d_\text{model}}$.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 1.1 | The table of embeddings | write the block | 10 | ★☆☆ |
# | 1.2 | Which rows learn? | predict, then run | 10 | ★☆☆ |
# | 1.3 | In by the table, and out again | by hand | 10 | ★☆☆ |
# | 1.4 | The wrong size | find the bug | 10 | ★★☆ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 1` says what is wrong, and `course hint 1.1` gives a hint.

# %% [markdown]
# ## Summary
#
# An id is a name, so the model looks up a learned row for it. The rows start with variance
# $1/d_\text{model}$ and are multiplied by $\sqrt{d_\text{model}}$, so that one table fits both ends
# of the model: as large as positions at the input, and small enough for logits at the output.
# Training moves words that are used alike in the same direction.
#
# **Write it from memory**: close the chapter and write `TokenEmbedding`, with its first weights and
# its factor; `check_embedding(TokenEmbedding)` says whether it is right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | multiplies the table by $\sqrt{d_\text{model}}$ ([section 3.4](https://arxiv.org/abs/1706.03762)) | the same | words and positions of similar size |
# | one table for source, target and output (section 3.4) | the same; the output adds a bias | 38 million fewer weights |
# | does not say how the table starts | $\mathcal{N}(0, 1/d_\text{model})$ | the size for which the root and the tying fit together |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | ids | `b t` | (2, 8) | (64, 8) |
# | the table | `vocab d_model` | (588, 24) | (37000, 512) |
# | vectors | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
#
# A row identifies its word but not its place: *there is a cat on the mat* and *there is a mat on
# the cat* are the same rows in another order. [Chapter 2](02_positional_encoding.ipynb) adds the
# position to each row.
