# %% [markdown]
r"""
# 4 · Multi-head attention

**One attention gives each word one weighted mean. Eight small ones look at eight things at once,
at the cost of one.**

![The architecture; its three attention blocks, two in the decoder and one in the encoder, are lit](../figures/architecture_04.svg)
"""

# %% [markdown]
# **What you need**: [chapter 3](03_attention.ipynb), for one attention and its weights; what a
# linear layer is. About 40 minutes. In the paper: [section
# 3.2.2](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/04_multi_head.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/04_multi_head.ipynb).
#
# **What you will be able to do**
#
# - split vectors into heads and join them again, and say why `view` does it wrong;
# - write multi-head attention, and say what each of its four matrices is for;
# - give a task that one head cannot do, and explain why more heads cost nothing.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
from collections.abc import Callable

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from transformer.attention import attention, attention_weights

# %% [markdown]
# ## The question
#
# In chapter 3, one head let *on* attend to its noun *mat*. But *on* also needs to know what lies
# there, and *love* needs to know who loves and who is loved. A head has **one** mixing formula for
# each word, and so it gives each word one mean.
#
# What does a mean lose? Take chapter 3's three values and two queries. The first mixes values 0 and
# 1 in equal parts; the second takes value 2 alone. Can you tell their results apart?

# %% tags=["active-ipynb"]
# import torch
#
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
#
# v = torch.tensor([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])
# formulas = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
# formulas @ v

# %% [markdown]
# No: they are equal. Two values went into the first mean, and no later layer can separate them.
# With two formulas for each query and the two results **side by side**, both values are kept:

# %% tags=["active-ipynb"]
# first = torch.tensor([0, 2])
# second = torch.tensor([1, 2])
# torch.cat([v[first], v[second]], dim=1)

# %% [markdown]
# ## By hand
#
# Two formulas need not cost twice as much. Cut each vector into pieces, and give each formula, or
# **head**, a piece of its own. Take three words with four features, numbered so that 21 is feature
# 1 of word 2, and two heads of two features:

# %% tags=["active-ipynb"]
# x = 10 * torch.arange(3)[:, None] + torch.arange(4)
# heads = rearrange(x, "t (h d_head) -> h t d_head", h=2)
# print(x, heads, sep="\n\n")

# %% [markdown]
# Head 0 has the first half of *every* word, head 1 the second half. A plain `view` gives the same
# shape and no error. What will be in its head 0?

# %% tags=["active-ipynb"]
# wrong = x.view(2, 3, 2)
# print(wrong.shape == heads.shape, wrong, sep="\n")

# %% [markdown]
# All of word 0 and half of word 1: words are mixed before any attention is computed.
#
# Now let head 0 look one word **back** and head 1 one word **ahead**; a word without such a
# neighbour looks at itself. Each head mixes its own pieces by its own formula, and the pieces are
# joined again:

# %% tags=["active-ipynb"]
# back = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
# ahead = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 1]])
#
# mixed = torch.stack([back, ahead]) @ heads
# rearrange(mixed, "h q d_head -> q (h d_head)")

# %% [markdown]
# Row 1 is the middle word: 0 and 1 come from the word before it, 22 and 23 from the word after it.
# It holds parts of both neighbours at once, its width is still 4, and every number in it can be
# traced.

# %% [markdown]
# ## The definition
#
# The model should learn which features go to which head. So each head $i$ gets its own matrices for
# queries, keys and values, and one matrix at the end combines all heads:
#
# $$\text{head}_i = \operatorname{Attention}(X W^Q_i,\; M W^K_i,\; M W^V_i)$$
#
# $$\operatorname{MultiHead}(X, M)
# = \operatorname{Concat}(\text{head}_1, \dots, \text{head}_h)\, W^O$$
#
# Queries come from $X$, keys and values from $M$, the *memory*; in self-attention they are the
# same. Each matrix of a head goes from $d_\text{model} = 512$ features to
# $d_\text{head} = 512 / 8 = 64$.

# %% [markdown]
# ![x becomes q, k and v; each is cut into eight coloured pieces, one for each head; the heads' results are joined and pass through w_o](../figures/04_heads.svg)
#
# Eight matrices of $512 \times 64$ side by side are one of $512 \times 512$: one `nn.Linear` serves
# all heads, and its result is split afterwards. Its weights start from **Xavier**'s initialisation
# (Glorot and Bengio 2010), with variance $2 / (\text{inputs} + \text{outputs})$, so that vectors
# and gradients keep about their size from layer to layer. `project_kv` and `attend` are separate
# methods because chapter 12 keeps keys and values from one step to the next. The attention function
# is an argument, so that a faster function with the same result can be passed in, as chapter 15
# does.


# %% tags=["exercise"]
class MultiHeadAttention(nn.Module):
    """Attend from every position of `x` to every position of `memory`, in n_heads subspaces.

    `attention_fn(q, k, v, mask)` must return what `attention` returns. Raises ValueError unless
    n_heads is positive and divides d_model. Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, d_model: int, n_heads: int, attention_fn: Callable[..., Tensor] = attention):
        super().__init__()
        if n_heads < 1:
            raise ValueError(f"n_heads={n_heads} must be at least 1")
        if d_model % n_heads:
            raise ValueError(f"d_model={d_model} must be divisible by n_heads={n_heads}")
        self.n_heads = n_heads
        self.attention_fn = attention_fn
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        for linear in (self.w_q, self.w_k, self.w_v, self.w_o):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def split_heads(self, x: Float[Tensor, "b t d_model"]) -> Float[Tensor, "b h t d_head"]:
        """Split every vector into n_heads pieces of d_model / n_heads features."""
        return rearrange(x, "b t (h d_head) -> b h t d_head", h=self.n_heads)

    def project_kv(
        self, memory: Float[Tensor, "b k d_model"]
    ) -> tuple[Float[Tensor, "b h k d_head"], Float[Tensor, "b h k d_head"]]:
        """Return the keys and the values of `memory`, split into heads."""
        return self.split_heads(self.w_k(memory)), self.split_heads(self.w_v(memory))

    def attend(
        self,
        x: Float[Tensor, "b q d_model"],
        k: Float[Tensor, "b h k d_head"],
        v: Float[Tensor, "b h k d_head"],
        mask: Bool[Tensor, "... #q #k"] | None = None,
    ) -> Float[Tensor, "b q d_model"]:
        """Return a new vector for each query position; `k` and `v` are those of `project_kv`."""
        heads = self.attention_fn(self.split_heads(self.w_q(x)), k, v, mask)
        return self.w_o(rearrange(heads, "b h q d_head -> b q (h d_head)"))

    def forward(
        self,
        x: Float[Tensor, "b q d_model"],
        memory: Float[Tensor, "b k d_model"],
        mask: Bool[Tensor, "... #q #k"] | None = None,
    ) -> Float[Tensor, "b q d_model"]:
        """Return a new vector for each query position.

        `mask` broadcasts to b h q k; True = may attend.
        """
        return self.attend(x, *self.project_kv(memory), mask)


# %% [markdown]
# The layer returns vectors and does not store its attention weights. To plot the weights, compute
# them with the *same* mask; otherwise the plot shows a model that you never ran.


# %%
def head_weights(
    module: MultiHeadAttention,
    x: Float[Tensor, "b q d_model"],
    memory: Float[Tensor, "b k d_model"],
    mask: Bool[Tensor, "#b #h #q #k"] | None = None,
) -> Float[Tensor, "b h q k"]:
    """Return the attention weights of each head: how much each query attends to each key."""
    q = module.split_heads(module.w_q(x))
    k = module.split_heads(module.w_k(memory))
    return attention_weights(q, k, mask)


# %% [markdown]
# ## The proof
#
# ### The running example
#
# Give our layer the trained weights of the encoder's first attention: 24 features, four heads of
# six. From chapter 2's rows it computes `after(4)`, and its head 2 is the one of chapter 3.

# %% tags=["active-ipynb"]
# from transformer.example import after, tokens, weights
#
# trained = MultiHeadAttention(24, 4).requires_grad_(False)
# trained.load_state_dict(weights("encoder.layers.0.self_attention"))
# x = after(2)
# real = (after(0) != 0)[:, None, None]  # b 1 1 k
#
# q = trained.split_heads(trained.w_q(x))
# heads = attention(q, *trained.project_kv(x), real)
# torch.testing.assert_close(heads[:, 2], after(3))
# torch.testing.assert_close(trained(x, x, real), after(4))
# print("x", *x.shape, "→ heads", *heads.shape, "→", *after(4).shape)

# %% [markdown]
# Every sentence needs a mask of its own, and all of its heads and queries use the same one: the
# mask's shape is `b 1 1 k`.
#
# ### All heads at once
#
# At the paper's size, 64 sentences of 8 tokens: in `(64, 8, 8, 64)` the first 8 counts heads, the
# second tokens. A loop takes the 64 columns of each head, attends, and joins. The layer computes
# all heads in parallel, with the same result:

# %% tags=["active-ipynb"]
# ours = MultiHeadAttention(512, 8)
# x = torch.randn(64, 8, 512)
# k, v = ours.project_kv(x)
# print("x", *x.shape, "→ k", *k.shape, "→", *ours(x, x).shape)
#
# pieces = [slice(start, start + 64) for start in range(0, 512, 64)]
# q, k, v = (linear(x) for linear in (ours.w_q, ours.w_k, ours.w_v))
# one_by_one = [attention(q[..., piece], k[..., piece], v[..., piece]) for piece in pieces]
#
# torch.testing.assert_close(ours.w_o(torch.cat(one_by_one, dim=-1)), ours(x, x))

# %% [markdown]
# ### Equal to PyTorch
#
# Copy the weights into `nn.MultiheadAttention`, which stacks $W^Q$, $W^K$ and $W^V$ in one matrix.
# Attend from 5 positions to 7 others, some of them hidden. Note the mask: in this PyTorch layer
# `True` means *may not* attend, in PyTorch's fused kernel it means *may*.

# %% tags=["active-ipynb"]
# theirs = nn.MultiheadAttention(512, 8, batch_first=True)
# w_qkv = (ours.w_q, ours.w_k, ours.w_v)
# for linear in ours.children():
#     nn.init.normal_(linear.bias)
# with torch.no_grad():
#     theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in w_qkv]))
#     theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in w_qkv]))
#     theirs.out_proj.load_state_dict(ours.w_o.state_dict())

# %% tags=["active-ipynb"]
# x = torch.randn(2, 5, 512)
# memory = torch.randn(2, 7, 512)
# mask = torch.rand(5, 7) < 0.7
#
# output, looks = theirs(x, memory, memory, attn_mask=~mask, average_attn_weights=False)
# torch.testing.assert_close(ours(x, memory, mask), output)
# torch.testing.assert_close(head_weights(ours, x, memory, mask[None, None]), looks)
# print("output", *output.shape, "· weights", *looks.shape)

# %% [markdown]
# ### What does it cost?
#
# For $t$ tokens, the four linear layers need $4\,t\,d_\text{model}^2$ multiplications. Each head
# needs $t^2 d_\text{head}$ for its scores and as many for mixing. All $h$ heads together need
# $2\,t^2\,h\,d_\text{head} = 2\,t^2 d_\text{model}$, in which the number of heads no longer occurs.
#
# PyTorch can count operations; a multiplication with its addition counts as two. The counter does
# not know every fused kernel, so we pass in a function that computes the two steps separately. How
# much more will 64 heads cost than one?

# %% tags=["active-ipynb"]
# from torch.utils.flop_counter import FlopCounterMode
#
# x = torch.zeros(64, 8, 512)
# for n_heads in (1, 8, 64):
#     module = MultiHeadAttention(
#         512, n_heads, attention_fn=lambda q, k, v, mask: attention_weights(q, k, mask) @ v
#     )
#     with FlopCounterMode(display=False) as counter:
#         module(x, x)
#     products = counter.get_total_flops() // 2
#     parameters = sum(weight.numel() for weight in module.parameters())
#     print(f"{n_heads:2} heads: {products:,} multiplications, {parameters:,} parameters")
#
# assert products == 64 * (4 * 8 * 512**2 + 2 * 8**2 * 512)

# %% [markdown]
# Nothing more. So why not 64? A head of 8 features has little to compare by. The paper measured it
# in its table 3 (row A): one head loses 0.9 BLEU (a score of translations, chapter 12) against
# eight, 16 are as good, and 32 lose 0.4.

# %% [markdown]
# ### What is $W^O$ for?
#
# One could join the heads and return them; the shape would be right. But **which heads could each
# feature use**? Cut the output into eight blocks of 64 features. The gradient shows which heads
# each block depends on. How many of the 64 pairs of block and head will be connected?

# %% tags=["active-ipynb"]
# heads = torch.randn(2, 8, 5, 64, requires_grad=True)
# joined = rearrange(heads, "b h q d_head -> b q (h d_head)")
#
#
# def dependence(output):
#     blocks = rearrange(output, "b q (block d_head) -> block b q d_head", block=8)
#     sums = [block.square().sum() for block in blocks]
#     gradients = [torch.autograd.grad(x, heads, retain_graph=True)[0] for x in sums]
#     return torch.stack(gradients).square().sum(dim=(1, 3, 4)).sqrt()
#
#
# without = dependence(joined)
# full = dependence(ours.w_o(joined))
# counts = [table.count_nonzero().item() for table in (without, full)]
# print(f"connected pairs: {counts[0]} without w_o, {counts[1]} with it")

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_attention
#
# shares = [table / table.sum(1, keepdim=True) for table in (without, full)]
# plot_attention(shares, title=["without w_o", "with w_o"])

# %% [markdown]
# Rows are blocks of the output, columns are heads, and a row's shares sum to 1. Without $W^O$,
# block $i$ depends on head $i$ alone. With it, every block depends on all eight.
#
# Seen from a head, $W^O$ lets it **write to every feature**. Its 64 columns for head $i$ lead from
# 64 features to all 512, and the output is the sum of the eight contributions:

# %% tags=["active-ipynb"]
# w_o = rearrange(ours.w_o.weight, "d_model (h d_head) -> h d_head d_model", h=8)
# written = [heads[:, i] @ w_o[i] for i in range(8)]
#
# torch.testing.assert_close(sum(written) + ours.w_o.bias, ours.w_o(joined))
# print(len(written), "times", *written[0].shape)

# %% [markdown]
# ### The check
#
# `check_multi_head` looks for heads cut by `view`, a missing $W^O$, a scale by the wrong width, a
# mask that is inverted or forgotten, and code that fails when keys and queries differ in number.

# %% tags=["active-ipynb"]
# from transformer.checks import check_head_weights, check_multi_head
#
# check_multi_head(MultiHeadAttention)
# check_head_weights(head_weights)

# %% [markdown]
# ## The look
#
# First, heads that we set by hand. Chapter 2 showed that a shift by some positions is a rotation,
# one matrix for all positions. So let the query be the position, turned by that matrix, and the key
# the position itself: the head finds the word that is so many places away.

# %% tags=["active-ipynb"]
# from transformer.positional_encoding import sinusoidal_positions
#
# places = sinusoidal_positions(50, 64)
#
#
# def turn(shift):
#     angles = shift * 10_000 ** (-torch.arange(0, 64, 2) / 64)
#     pairs = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=-1)
#     return torch.block_diag(*rearrange(pairs, "i (row column) -> i row column", row=2))
#
#
# torch.testing.assert_close(places[:40] @ turn(2), places[2:42], atol=1e-4, rtol=0)

# %% tags=["active-ipynb"]
# words = tokens(after(0))[0]
# shifts = {"two back": -2, "one back": -1, "itself": 0, "one ahead": 1}
#
# looks = [attention_weights(40 * places[:8] @ turn(s), places[:8]) for s in shifts.values()]
# plot_attention(looks, queries=words, keys=words, title=list(shifts))

# %% [markdown]
# In *two back*, *on* attends to *a*. At the ends of the sentence the wanted place is empty, and the
# nearest word gets most of the weight.
#
# Training is free to choose something else. Here are the four heads of the running example. Which
# of them look at a position, and which at a kind of word?

# %% tags=["active-ipynb"]
# looks = head_weights(trained, after(2), after(2), real)
# plot_attention(looks[0], queries=words, keys=words)

# %% [markdown]
# None looks at a fixed position. In head 1 half of the words attend mostly to *the*; head 2 is
# chapter 3's and attends to nouns; in heads 0 and 3 the verb *is* attends to the article *a*.
# (Heads for the next and the previous word have been found in larger translators, Voita et al.
# 2019.) The second sentence, without its padding:

# %% tags=["active-ipynb"]
# words = tokens(after(0))[1][:6]
# plot_attention(looks[1, :, :6, :6], queries=words, keys=words)

# %% [markdown]
# In head 3, *i*, *love* and *you* attend to *i* alone: who is it that loves? A map does not say
# whether the model needs a head. So remove one, by setting its columns of $W^O$ to 0, and
# translate. Which head will *love* miss, and which will the colour in *a red car* miss?

# %% tags=["active-ipynb"]
# from transformer.data import decode, encode, pad
# from transformer.example import example_model, example_tokenizer
# from transformer.inference import greedy_search
#
# tokenizer = example_tokenizer()
# ids = pad(encode(tokenizer, ["i love you very much", "there is a red car"]))
#
#
# def translate(without=None):
#     model = example_model()
#     if without is not None:
#         w_o = model.encoder.layers[0].self_attention.w_o.weight
#         w_o[:, 6 * without : 6 * without + 6] = 0
#     return decode(tokenizer, greedy_search(model, ids).tolist())
#
#
# print("all heads     ", translate())
# for head in range(4):
#     print("without head", head, translate(head))
# assert "ti amano molto" in translate(3) and "c'è una macchina rosso" in translate(2)

# %% [markdown]
# Without head 3, *ti amo*, "I love you", becomes *ti amano*, "they love you". Without head 2, *red*
# does not meet its noun, and the feminine *rossa* becomes *rosso*. Heads 0 and 1 are not needed for
# these two sentences.

# %% [markdown]
# ## What if
#
# What if there were one head, or no $W^O$? The task: *the next word minus the word before*, in a
# sentence closed into a ring. Each of seven words has 7 features for its content and 7 for its
# place. The answer is read from the first 7 features, which without $W^O$ belong to head 0. One
# head of 14 features has as many parameters as two of 7.


# %% tags=["active-ipynb"]
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
#
#
# def train(n_heads, sign, with_w_o, seed):
#     torch.manual_seed(seed)
#     module = MultiHeadAttention(14, n_heads)
#     if not with_w_o:
#         module.w_o = nn.Identity()
#     optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
#     errors = []
#     for _ in range(150):
#         content = torch.randn(16, 7, 7)
#         x = torch.cat([content, torch.eye(7).expand(16, 7, 7)], dim=-1)
#         answer = content.roll(-1, 1) + sign * content.roll(1, 1)
#         error = (module(x, x)[..., :7] - answer).square().mean() / 2  # the variance is 2
#         optimizer.zero_grad()
#         error.backward()
#         optimizer.step()
#         errors.append(error.detach())
#     return module, torch.stack(errors)

# %% [markdown]
# As a control, one head must also do the *sum* of the two neighbours. Which of the two can it
# learn, and why?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# variants = {
#     "one head, sum": (1, 1, True),
#     "one head, difference": (1, -1, True),
#     "two heads, difference": (2, -1, True),
#     "two heads, no w_o": (2, -1, False),
# }
# curves = {}
# for name, variant in variants.items():
#     runs = [train(*variant, seed) for seed in range(3)]
#     curves[name] = torch.stack([errors for _, errors in runs])
#     at_the_end = curves[name][:, -10:].mean(1)
#     solved = name in ("one head, sum", "two heads, difference")
#     assert at_the_end.max() < 0.1 if solved else at_the_end.min() > 0.4
#     if name == "two heads, difference":
#         subtracts = runs[0][0]
#
# means = {name: errors.mean(0) for name, errors in curves.items()}
# plot_lines(means, xlabel="step", ylabel="error", title="Share left unexplained, mean of 3 seeds")

# %% [markdown]
# The sum, because a mean times two is a sum. The difference needs a minus sign, and the weights of
# a head are never negative; its matrices could change the sign, but only for both words at once. So
# one head explains half of the variance, and two heads explain all of it. Without $W^O$ the second
# head cannot write to the features that are read. What did the two heads learn to look at?

# %% tags=["active-ipynb"]
# x = torch.cat([torch.zeros(1, 7, 7), torch.eye(7)[None]], dim=-1)
# looks = head_weights(subtracts, x, x)[0].detach()
# steps = (looks.argmax(-1) - torch.arange(7)) % 7
# assert sorted(steps.unique(dim=1).flatten().tolist()) == [1, 6]
#
# plot_attention(looks, title="Two heads that learned to subtract")

# %% [markdown]
# One at the next word, one at the word before, around the ring. The loss did not say how they
# should divide the work.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 4.1 | Multi-head attention | write the block | 30 | ★★☆ |
# | 4.2 | Where does feature 13 go? | by hand | 10 | ★☆☆ |
# | 4.3 | Five ways to change a layer | predict, then run | 15 | ★★☆ |
# | 4.4 | The right shape | find the bug | 15 | ★★☆ |
# | 4.5 | A test for heads | write the test | 25 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 4` says what is wrong, and `course hint 4.1` gives a hint.

# %% [markdown]
# ## Summary
#
# Each head has a piece of the features and its own mixing formula, so a word can take different
# things from different words at the cost of one attention. One linear layer makes the queries of
# all heads, and so for keys and values; a split moves the heads to an axis of their own. $W^O$
# joins the heads and lets each of them write to every feature.
#
# **Write it from memory**: close the chapter and write `MultiHeadAttention`;
# `check_multi_head(MultiHeadAttention)` says whether it is right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $W^Q_i, W^K_i, W^V_i$ for each head ([section 3.2.2](https://arxiv.org/abs/1706.03762)) | one matrix each for all heads, then a split | the same numbers, and one product |
# | $d_k$ and $d_v$, both $d_\text{model}/h$ | one size, $d_\text{head}$ | they differ only in table 3 (row B) |
# | no biases in the equations | biases, 0 at first | as in PyTorch's layer, so that weights can be copied both ways |
# | does not mention initialisation | Xavier for each of the four | keeps the variance from layer to layer |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | embeddings + positions | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
# | queries | `b h q d_head` | (2, 4, 8, 6) | (64, 8, 8, 64) |
# | keys and values | `b h k d_head` | (2, 4, 8, 6) | (64, 8, 8, 64) |
# | scores, weights | `b h q k` | (2, 4, 8, 8) | (64, 8, 8, 8) |
# | heads, joined | `b h q d_head` → `b q d_model` | (2, 4, 8, 6) → (2, 8, 24) | (64, 8, 8, 64) → (64, 8, 512) |
# | output, after $W^O$ | `b q d_model` | (2, 8, 24) | (64, 8, 512) |
#
# The output has the shape of the input, so such layers can be stacked. [Chapter
# 5](05_residual_norm.ipynb) makes sure that the input and its gradient survive a deep stack.
