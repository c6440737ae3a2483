# %% [markdown]
r"""
# 6 · Feed-forward

**Attention moves information between words. This block transforms what arrived, at each word
separately.**

![The architecture; the feed-forward block of encoder and decoder is
lit](../figures/architecture_06.svg)
"""

# %% [markdown]
# **What you need**: [chapter 4](04_multi_head.ipynb), for attention; [chapter
# 5](05_residual_norm.ipynb), for the residual and the norm around each block. About 25 minutes. In
# the paper: [section 3.3](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/06_feed_forward.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/06_feed_forward.ipynb).
#
# **What you will be able to do**
#
# - prove that attention alone cannot compute "one of the two, but not both";
# - write the block, and show that it treats every position alike and separately;
# - say where most of the parameters are, and what they may be for.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# %% [markdown]
# ## The question
#
# Attention relates all words to each other, with several heads at once, in as many layers as we
# like. What could be missing?
#
# Look at what it does with the **values**. Chapter 2's rows are a sum, word plus position. Take the
# weights of a trained head, and mix the rows. Is the mix of the sums the sum of the two mixes?

# %% tags=["active-ipynb"]
# import torch
#
# from transformer.example import after, tokens, weights
# from transformer.multi_head import MultiHeadAttention, head_weights
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
#
# attend = MultiHeadAttention(24, 4).requires_grad_(False)
# attend.load_state_dict(weights("encoder.layers.0.self_attention"))
# looks = head_weights(attend, after(2)[:1], after(2)[:1])[0, 2]
#
# word = after(1)[0]
# position = after(2)[0] - word
# torch.testing.assert_close(looks @ (word + position), looks @ word + looks @ position)
# torch.testing.assert_close(looks @ (3 * word), 3 * (looks @ word))

# %% [markdown]
# It is. Once its weights are fixed, attention is **linear in the values**. It can collect *furry*
# and *purrs* in one row, but it cannot conclude *both of these, so a cat*. Values are averaged,
# never compared. Does that matter?

# %% [markdown]
# ## By hand
#
# In chapter 3 each word had two features, *thing* and *place*. A cat is a thing, *on* points to a
# place, a mat is both, and *there*, as in *there is*, is neither. The block has to answer: **one of
# the two, but not both** (XOR)?
#
# | | thing | place | wanted |
# |---|---|---|---|
# | cat | 1 | 0 | 1 |
# | on | 0 | 1 | 1 |
# | mat | 1 | 1 | 0 |
# | there | 0 | 0 | 0 |

# %% [markdown]
# No linear function can do this, with or without a bias, and the proof fits on one line. As
# vectors, *cat* + *on* = *mat* + *there*: $(1, 0) + (0, 1) = (1, 1) + (0, 0)$. So for every such
# $f$
#
# $$f(\text{cat}) + f(\text{on}) = f(\text{mat}) + f(\text{there}),$$
#
# but we want $1 + 1$ on the left and $0 + 0$ on the right.

# %% [markdown]
# Can attention do it? Give it a single word. Softmax over one score is 1, whatever the score, so
# only linear steps are left: $W^V$, $W^O$, the sum of chapter 5. Take six layers with random
# weights, and four sentences of one word each. Will the equation still hold after six layers?

# %% tags=["active-ipynb"]
# features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
#
# x = (features @ torch.randn(2, 16))[:, None]
# for layer in [MultiHeadAttention(16, 4) for _ in range(6)]:
#     x = x + layer(x, x)
#
# cat, on, mat, there = x
# torch.testing.assert_close(cat + on, mat + there, rtol=1e-4, atol=1e-4)

# %% [markdown]
# It does, and for any weights, so training cannot help. One nonlinear step can. Count the features,
# $h_1 = t + p$; and count those beyond the first, $h_2 = \max(0,\, t + p - 1)$. Then
# $h_1 - 2 h_2$ is the answer:

# %% tags=["active-ipynb"]
# t_and_p = features.sum(-1)
# h_1 = F.relu(t_and_p)
# h_2 = F.relu(t_and_p - 1)
# print(h_1 - 2 * h_2)

# %% [markdown]
# Three steps: compute hidden features, set the negative ones to 0, and return by a weighted sum.
# That is the feed-forward block.

# %% [markdown]
# ## The definition
#
# For a row $x$ of $d_\text{model}$ features, and a wider layer of $d_\text{ff}$ in between,
#
# $$\operatorname{FFN}(x) = \max(0,\; x W_1 + b_1)\, W_2 + b_2$$
#
# The maximum with 0, taken for each number, is called **ReLU**.
#
# ![Each word goes through the same two matrices, 512 to 2048 to 512, and no arrow leads from one
# word to another](../figures/06_feed_forward.svg)


# %% tags=["exercise"]
class FeedForward(nn.Module):
    """Apply two linear layers to every vector, d_model → d_ff → d_model, with a ReLU between them.

    `activation` replaces the ReLU. Source: Vaswani et al. 2017, equation 2.
    """

    def __init__(self, d_model: int, d_ff: int, activation: Callable[[Tensor], Tensor] = F.relu):
        super().__init__()
        self.w_1 = nn.Linear(d_model, d_ff)
        self.w_2 = nn.Linear(d_ff, d_model)
        self.activation = activation
        for linear in (self.w_1, self.w_2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "b t d_model"]) -> Float[Tensor, "b t d_model"]:
        """Return every vector of `x` transformed on its own."""
        return self.w_2(self.activation(self.w_1(x)))


# %% [markdown]
# The activation is an argument, so GELU or another function needs no change here. ReLU is the
# paper's.

# %% [markdown]
# ## The proof
#
# ### The running example
#
# The trained block goes from 24 features to 48 and back. With chapter 5's residual and norm around
# it, it turns `after(5)` into `after(6)`, which is the result of the encoder's whole first layer:

# %% tags=["active-ipynb"]
# from transformer.residual_norm import PostNorm
#
# trained = FeedForward(24, 48).requires_grad_(False)
# trained.load_state_dict(weights("encoder.layers.0.feed_forward"))
# residual = PostNorm(24).requires_grad_(False)
# residual.load_state_dict(weights("encoder.layers.0.residuals.1"))
#
# x = after(5)
# torch.testing.assert_close(residual(x, trained), after(6))
# print("x", *x.shape, "→ hidden", *trained.w_1(x).shape, "→", *after(6).shape)

# %% [markdown]
# ### Equal to PyTorch
#
# At the paper's size, against PyTorch's own layers with the same weights:

# %% tags=["active-ipynb"]
# ours = FeedForward(512, 2048)
# theirs = nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512))
# theirs[0].load_state_dict(ours.w_1.state_dict())
# theirs[2].load_state_dict(ours.w_2.state_dict())
#
# batch = torch.randn(64, 8, 512)
# torch.testing.assert_close(ours(batch), theirs(batch))
# print("x", *batch.shape, "→ hidden", *ours.w_1(batch).shape, "→", *ours(batch).shape)

# %% [markdown]
# ### The same at every position, and each separately
#
# Feed in the sentence word by word, and the result is the same. Then change *cat*: which rows will
# change after this block, and which after attention?

# %% tags=["active-ipynb"]
# one_by_one = torch.cat([trained(x[:, t : t + 1]) for t in range(8)], dim=1)
# torch.testing.assert_close(trained(x), one_by_one)
#
# words = tokens(after(0))[0]
# changed = x.clone()
# changed[:, words.index("cat")] += 1
# for name, block in (("feed-forward", trained), ("attention", lambda x: attend(x, x))):
#     moved = (block(changed) - block(x)).abs().amax(-1)[0] > 1e-5
#     print(f"{name:13} rows that changed:", *(word for word, yes in zip(words, moved) if yes))

# %% [markdown]
# So the same matrices serve sentences of any length, and a batch of (64, 8) words is simply 512
# rows. The paper describes the same thing as two **convolutions with kernel size 1**: a window that
# slides over the words and is one word wide.

# %% tags=["active-ipynb"]
# from einops import rearrange
#
# rows = rearrange(batch, "b t d_model -> b d_model t")
# hidden = F.conv1d(rows, ours.w_1.weight[:, :, None], ours.w_1.bias).relu()
# out = F.conv1d(hidden, ours.w_2.weight[:, :, None], ours.w_2.bias)
# torch.testing.assert_close(rearrange(out, "b d_model t -> b t d_model"), ours(batch))

# %% [markdown]
# ### Width alone is not enough
#
# Without the ReLU, the 2048 features add nothing: two matrices in a row are one matrix of 512 ×
# 512.

# %% tags=["active-ipynb"]
# flat = FeedForward(512, 2048, activation=lambda hidden: hidden)
# one = flat.w_2.weight @ flat.w_1.weight
# torch.testing.assert_close(flat(batch), batch @ one.T, rtol=1e-4, atol=1e-4)
# print("w_2 · w_1:", *one.shape)

# %% [markdown]
# ### A memory of questions
#
# With the ReLU, each hidden feature is a question about the word, *does this pattern match?* The
# answer is 0 for *no*, or a positive number for how well it matches. Each positive answer adds its
# own row of $W_2$ to the result. Seen this way, the block looks like attention to keys and values
# that belong to the model and not to the sentence (Geva et al. 2021): a memory.

# %% tags=["active-ipynb"]
# keys = trained.w_1.weight
# values = trained.w_2.weight.T
# answers = F.relu(x @ keys.T + trained.w_1.bias)
# torch.testing.assert_close(answers @ values + trained.w_2.bias, trained(x))
# print("keys", *keys.shape, "· values", *values.shape, "· answers", *answers.shape)

# %% [markdown]
# ### Where the parameters are
#
# Attention has four matrices of 512 × 512. This block has two of 512 × 2048. What share of an
# encoder layer is that?

# %% tags=["active-ipynb"]
# from transformer.residual_norm import LayerNorm
#
# parts = MultiHeadAttention(512, 8), ours, LayerNorm(512)
# attention, block, norm = (sum(p.numel() for p in part.parameters()) for part in parts)
# print(f"attention {attention:,} · feed-forward {block:,} · norm {norm:,}")
# print(f"share of an encoder layer {block / (attention + block + 2 * norm):.1%}")
# print(f"share of a decoder layer  {block / (2 * attention + block + 3 * norm):.1%}")

# %% [markdown]
# **Two thirds** of an encoder layer's parameters are here, and half of a decoder layer's, which has
# two attention blocks. The paper is called *Attention Is All You Need*, but by count the larger
# part of its layers is feed-forward.

# %% [markdown]
# ### The check
#
# `check_feed_forward` looks for a missing or misplaced activation, positions that are treated
# differently or mixed, a residual inside the block, and weights without a gradient.

# %% tags=["active-ipynb"]
# from transformer.checks import check_feed_forward
#
# check_feed_forward(FeedForward)

# %% [markdown]
# ## The look
#
# The hidden features of the trained block for *there is a cat on the mat*. White is 0, and only the
# features that are active somewhere in the sentence are shown. How many of the 48 will answer at
# one word?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines, plot_matrix
#
# hidden = answers[0]
# active = hidden.any(0).nonzero().flatten()
# print(f"silent: {hidden.eq(0).float().mean():.1f}")
#
# names = [str(feature) for feature in active.tolist()]
# plot_matrix(hidden[:, active], words, names, "Which features (columns) fire for which word")

# %% [markdown]
# About one in ten, different ones at each word, and none at *the*. Most are hard to name. For three
# that can be named, take the sentences *i see him*, *they like her* and so on, in all combinations.
# Here is how strongly each feature answers at each word, as a mean over the sentences:

# %% tags=["active-ipynb"]
# from itertools import product
#
# from transformer.data import decode, encode, pad
# from transformer.example import example_model, example_tokenizer
#
# tokenizer = example_tokenizer()
# kinds = "i you we they".split(), "see like love".split(), "him her it them".split()
# ids = pad(encode(tokenizer, [" ".join(three) for three in product(*kinds)]))
# layer = example_model().encoder.layers[0]
#
# x = layer.residuals[0](example_model().embed(ids), lambda x: layer.self_attention(x, x))
# fires = F.relu(trained.w_1(x))
# names = [name for kind in kinds for name in kind]
# at = [ids == tokenizer.token_to_id(f"▁{name}") for name in names]
# means = torch.stack([fires[here].mean(0) for here in at])[:, [31, 32, 27]]
# plot_matrix(means.T, ["31", "32", "27"], names, "Three hidden features, and where they fire")
# assert means.argmax(0)[:2].tolist() == [0, 5] and means[7:, 2].min() > means[:7, 2].max()

# %% [markdown]
# Feature 31 fires for *i*, and a little for *them*. Feature 32 fires for *like*, the verb whose
# Italian *piacere* turns the sentence round: *mi piacciono le mele*, "apples please me". Feature 27
# fires most for *him*, *her*, *it* and *them*, which in Italian move before the verb.
#
# What does the model need the blocks for? Switch off the first layer's block, then the blocks of
# all four layers. Which translation will suffer first?

# %% tags=["active-ipynb"]
# from transformer.inference import greedy_search
#
# english = ["there is a cat on the mat", "i love you very much", "i like apples"]
# ids = pad(encode(tokenizer, english))
#
#
# def translate(without=()):
#     model = example_model()
#     layers = [*model.encoder.layers, *model.decoder.layers]
#     for number in without:
#         layers[number].feed_forward.w_2.weight.zero_()
#     return [text[:24] for text in decode(tokenizer, greedy_search(model, ids).tolist())]
#
#
# print("with all         ", translate())
# print("without the first", translate([0]))
# print("without any      ", translate(range(4)))

# %% [markdown]
# Without the first block, *i like* becomes *ci piacciono*, "we like"; the other two sentences do
# not need it. Without any block, no sentence survives. This shows what a model that was trained
# *with* the blocks uses. Whether one could do without them is another question.

# %% [markdown]
# And the nonlinear step itself: the block that we made by hand, over the whole plane of *thing* and
# *place*. White is 0, dark is 1. The answer rises up to the diagonal and falls beyond it; the ReLU
# makes the fold. A linear function could only tilt the plane.

# %% tags=["active-ipynb"]
# steps = torch.linspace(0, 1, 11)
# plane = steps[:, None] + steps
# labels = [f"{step:.1f}" for step in steps.tolist()]
# sheet = F.relu(plane) - 2 * F.relu(plane - 1)
#
# plot_matrix(sheet, rows=labels, columns=labels, title="Rows: thing · columns: place")

# %% [markdown]
# ## What if
#
# What if there were no such block? A layer must learn facts: each of 256 words, random vectors of
# 16 features, has a *yes* or a *no*. The words come in sentences of four, in a new order at every
# step, and the layer must answer at each word. Leaving out the block leaves out two thirds of the
# parameters, too. So two controls have as many as attention with the block: three attentions, and a
# block without its ReLU.


# %% tags=["active-ipynb"]
# def share_right(kind, seed):
#     torch.manual_seed(seed)
#     facts = torch.randint(2, (256,)).float()
#     dictionary = torch.randn(256, 16)
#     sublayers = nn.ModuleList(kind())
#     wraps = nn.ModuleList(PostNorm(16) for _ in sublayers)
#     read = nn.Linear(16, 1)
#     parameters = nn.ModuleList([sublayers, wraps, read]).parameters()
#     optimizer = torch.optim.Adam(parameters, lr=0.01, fused=True)
#     right = []
#     for _ in range(120):
#         ids = torch.randperm(256).reshape(64, 4)
#         x = dictionary[ids]
#         for wrap, sublayer in zip(wraps, sublayers):
#             attends = isinstance(sublayer, MultiHeadAttention)
#             x = wrap(x, (lambda x: sublayer(x, x)) if attends else sublayer)
#         answers = read(x)[..., 0]
#         optimizer.zero_grad()
#         F.binary_cross_entropy_with_logits(answers, facts[ids]).backward()
#         optimizer.step()
#         right.append(((answers > 0) == (facts[ids] > 0)).float().mean())
#     return torch.stack(right)

# %% [markdown]
# A single attention of 16 features has 1088 parameters. Guessing is right half of the time. Which
# of the four will know all 256 facts after 120 steps?

# %% tags=["active-ipynb"]
# def attentions(n):
#     return [MultiHeadAttention(16, 4) for _ in range(n)]
#
#
# variants = {
#     "attention": lambda: attentions(1),
#     "three attentions": lambda: attentions(3),
#     "attention, block without ReLU": lambda: [*attentions(1), FeedForward(16, 64, lambda h: h)],
#     "attention, feed-forward": lambda: [*attentions(1), FeedForward(16, 64)],
# }
# curves = {}
# for name, kind in variants.items():
#     curves[name] = torch.stack([share_right(kind, seed) for seed in range(3)])
#     at_the_end = curves[name][:, -10:].mean(1)
#     assert at_the_end.min() > 0.95 if name.endswith("forward") else at_the_end.max() < 0.9
#     print(f"{sum(p.numel() for part in kind() for p in part.parameters()):5} parameters: {name}")
#
# means = {name: right.mean(0) for name, right in curves.items()}
# plot_lines(means, xlabel="step", ylabel="share right", title="256 facts, mean of 3 seeds")

# %% [markdown]
# Only the one with the feed-forward block. The others are better than chance and keep learning:
# attention's weights and the norm's division are nonlinear, too, so attention *can* compute with a
# word, but slowly, and three attentions are no better than one. Attention decides *which words
# exchange information*; the feed-forward block computes with what was exchanged.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 6.1 | The feed-forward block | write the block | 10 | ★☆☆ |
# | 6.2 | Three hidden features | by hand | 10 | ★☆☆ |
# | 6.3 | What a new block does to its input | predict, then run | 10 | ★★☆ |
# | 6.4 | Two matrices and a mistake | find the bug | 10 | ★★☆ |
# | 6.5 | A test for one word at a time | write the test | 15 | ★★☆ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 6` says what is wrong, and `course hint 6.1` gives a hint.

# %% [markdown]
# ## Summary
#
# Attention mixes values and is linear in them; the feed-forward block transforms each word on its
# own, by two linear layers with a ReLU between them, $d_\text{model}$ to $d_\text{ff}$ and back.
# Without the ReLU the two layers would be one. The block holds two thirds of an encoder layer's
# parameters and works like a memory of patterns; in the example, about one in ten matches at a
# word.
#
# **Write it from memory**: close the chapter and write `FeedForward`;
# `check_feed_forward(FeedForward)` says whether it is right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $\max(0, xW_1 + b_1)W_2 + b_2$ ([equation 2](https://arxiv.org/abs/1706.03762)) | the same, by two `nn.Linear` | they hold $W^\top$; the product is the same |
# | "two convolutions with kernel size 1" (section 3.3) | two linear layers | the same numbers, shown above |
# | ReLU | ReLU, or what is passed in | a variant is an argument |
# | no dropout between the two | none | later code often adds it; the paper has it on the output only |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | attention, with residual and norm | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
# | hidden features | `b t d_ff` | (2, 8, 48) | (64, 8, 2048) |
# | feed-forward, with residual and norm | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
#
# One block exchanges information between words, the other transforms it. [Chapter
# 7](07_encoder.ipynb) puts the two together, six times, and calls it an encoder.
