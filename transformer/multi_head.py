# %% [markdown]
r"""
# 4 · Multi-head attention

**One attention gives each word one weighted mean. Eight small ones look at eight things at once,
at the cost of one.**

![The architecture; its three attention blocks, two in the decoder and one in the encoder, are lit](../figures/architecture_04.svg)
"""

# %%
from collections.abc import Callable

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from transformer.attention import attention, attention_weights

# %% [markdown]
# ## The question
#
# In *there is a cat on the mat*, the word *cat* needs several things: its article, its verb, its
# place. Attention gives it **one** mixing formula, and so one mean of all of them.
#
# What does a mean lose? Take the three values of chapter 3 and two queries. The first mixes values
# 0 and 1 in equal parts; the second takes value 2 alone.

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
# Both queries get the same result. Two values went into the first mean, and no later layer can
# separate them. With two formulas for each query and the two results **side by side**, both values
# are kept:

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
# heads = rearrange(x, "t (h d) -> h t d", h=2)
# print(x, heads, sep="\n\n")

# %% [markdown]
# Head 0 has the first half of *every* word, head 1 the second half. A plain `view` gives the same
# shape and no error, but the wrong content. Here head 0 gets all of word 0 and half of word 1, so
# words are mixed before any attention is computed:

# %% tags=["active-ipynb"]
# wrong = x.view(2, 3, 2)
# print(wrong.shape == heads.shape, wrong, sep="\n")

# %% [markdown]
# Now let head 0 look one word **back** and head 1 one word **ahead**; a word without such a
# neighbour looks at itself. Each head mixes its own pieces by its own formula, and the pieces are
# joined again:

# %% tags=["active-ipynb"]
# back = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
# ahead = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 1]])
#
# mixed = torch.stack([back, ahead]) @ heads
# rearrange(mixed, "h q d -> q (h d)")

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
# same. Each matrix of a head goes from 512 features to $512 / 8 = 64$.

# %% [markdown]
# ![x becomes q, k and v; each is cut into eight coloured pieces, one for each head; the heads' results are joined and pass through w_o](../figures/04_heads.svg)
#
# Eight matrices of $512 \times 64$ side by side are one of $512 \times 512$: one `nn.Linear` serves
# all heads, and its result is split afterwards. `project_kv` and `attend` are separate methods
# because chapter 12 keeps keys and values from one step to the next. The attention function is an
# argument, so that a faster function with the same result can be passed in, as chapter 15 does.


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
# The shapes at the paper's size, for 64 sentences of 8 tokens. In `(64, 8, 8, 64)` the first 8
# counts heads, the second tokens.

# %% tags=["active-ipynb"]
# ours = MultiHeadAttention(512, 8)
# x = torch.randn(64, 8, 512)
#
# k, v = ours.project_kv(x)
# heads = attention(ours.split_heads(ours.w_q(x)), k, v)
# joined = rearrange(heads, "b h q d -> b q (h d)")
# steps = dict(x=x, k=k, v=v, heads=heads, joined=joined, output=ours(x, x))
# for name, tensor in steps.items():
#     print(f"{name:7}", *tensor.shape)

# %% [markdown]
# **Computing all heads at once gives the same result as one after another.** A loop takes the 64
# columns of each head, attends, and joins. The layer computes all heads in parallel:

# %% tags=["active-ipynb"]
# q = ours.w_q(x)
# k = ours.w_k(x)
# v = ours.w_v(x)
# pieces = [slice(start, start + 64) for start in range(0, 512, 64)]
# one_by_one = [attention(q[..., piece], k[..., piece], v[..., piece]) for piece in pieces]
#
# torch.testing.assert_close(ours.w_o(torch.cat(one_by_one, dim=-1)), ours(x, x))

# %% [markdown]
# **It equals PyTorch's own layer.** Copy the weights into `nn.MultiheadAttention`, which stacks
# $W^Q$, $W^K$ and $W^V$ in one matrix. Attend from 5 positions to 7 others, some of them hidden.
# Note the mask: in this PyTorch layer `True` means *may not* attend, in PyTorch's fused kernel it
# means *may*.

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
# output, weights = theirs(x, memory, memory, attn_mask=~mask, average_attn_weights=False)
# torch.testing.assert_close(ours(x, memory, mask), output)
# torch.testing.assert_close(head_weights(ours, x, memory, mask[None, None]), weights)
# print("output", *output.shape, "· weights", *weights.shape)

# %% [markdown]
# ### What does it cost?
#
# For $t$ tokens, the four linear layers need $4\,t\,d^2$ multiplications. Each of $h$ heads needs
# $t^2 \cdot d/h$ for its scores and as many for mixing: $2\,t^2 d$ for all of them, and $h$ has
# dropped out. PyTorch can count operations for us; a multiplication with its addition counts as
# two. The counter does not know every fused kernel, so we pass in an attention function that
# computes the two steps separately.

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
# Eight heads cost the same as one. So why not 64? A head of 8 features has little to compare by.
# The paper measured it in its table 3 (row A): one head loses 0.9 BLEU against eight, 16 are as
# good, and 32 lose 0.4.

# %% [markdown]
# ### What would be lost without $W^O$?
#
# One could join the heads and return them; the shape would be right. But **which heads could each
# feature use**? Cut the output into eight blocks of 64 features. The gradient shows which heads
# each block depends on:

# %% tags=["active-ipynb"]
# heads = torch.randn(2, 8, 5, 64, requires_grad=True)
# joined = rearrange(heads, "b h q d -> b q (h d)")
#
#
# def dependence(output):
#     blocks = rearrange(output, "b q (n d) -> n b q d", n=8)
#     sums = [block.square().sum() for block in blocks]
#     gradients = [torch.autograd.grad(x, heads, retain_graph=True)[0] for x in sums]
#     return rearrange(torch.stack(gradients), "n b h q d -> n h (b q d)").norm(dim=-1)
#
#
# without = dependence(joined)
# full = dependence(ours.w_o(joined))
# pairs = [table.count_nonzero().item() for table in (without, full)]
# print(f"pairs of block and head that are connected: {pairs[0]} without w_o, {pairs[1]} with it")

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_attention
#
# shares = [table / table.sum(1, keepdim=True) for table in (without, full)]
# plot_attention(shares, title=["without w_o", "with w_o"])

# %% [markdown]
# Rows are blocks of the output, columns are heads. Without $W^O$, block $i$ depends on head $i$ and
# on no other: the heads stay separate. With it, every block depends on all eight.
#
# Seen from a head, $W^O$ lets it **write to every feature**. Its 64 columns for head $i$ lead from
# 64 features to all 512, and the output is simply the sum of the eight contributions:

# %% tags=["active-ipynb"]
# w_o = rearrange(ours.w_o.weight, "d_model (h d) -> h d d_model", h=8)
# written = [heads[:, i] @ w_o[i] for i in range(8)]
#
# torch.testing.assert_close(sum(written) + ours.w_o.bias, ours.w_o(joined))
# print(len(written), "times", *written[0].shape)

# %% [markdown]
# Does it matter? Here is a task that needs two heads: *subtract the previous word from the next
# word*, in a sentence closed into a ring. A single head cannot do it, because its weights are never
# negative. Each word has 7 features for its content and 7 for its place. The answer is read from
# the first 7, which without $W^O$ belong to head 0.

# %% tags=["active-ipynb"]
# words = "there is a cat on the mat".split()
# torch.set_num_threads(1)  # on tensors this small, threads would only wait for each other
#
#
# def batch():
#     x = torch.randn(32, 7, 7)
#     places = 2 * torch.eye(7).expand(32, 7, 7)
#     return torch.cat([x, places], dim=-1), x.roll(-1, 1) - x.roll(1, 1)
#
#
# def train(module):
#     optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
#     for _ in range(400):
#         x, answer = batch()
#         error = (module(x, x)[..., :7] - answer).square().mean() / answer.square().mean()
#         optimizer.zero_grad()
#         error.backward()
#         optimizer.step()
#     return error.item()

# %% tags=["active-ipynb"]
# complete = MultiHeadAttention(14, 2)
# separate = MultiHeadAttention(14, 2)
# separate.w_o = nn.Identity()
#
# errors = [train(complete), train(separate)]
# print(f"unexplained, of the variance: {errors[0]:.1f} with w_o, {errors[1]:.1f} without")
# assert errors[0] < 0.05 and errors[1] > 0.4

# %% [markdown]
# With $W^O$ the layer solves the task. Without it, the layer gets one of the two neighbours right,
# and the other neighbour's half of the variance stays unexplained. Later layers could repair some
# of this, but every head could still write to its own 64 features only.

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
# What did the two heads of the trained layer learn? The loss does not say how they should divide
# the work. Rows are queries, columns are keys:

# %% tags=["active-ipynb"]
# x, _ = batch()
# looks = head_weights(complete, x, x).mean(0)
# steps = (looks.argmax(-1) - torch.arange(7)) % 7
# both = sorted(steps.unique(dim=1).flatten().tolist()) == [1, 6]
# print("one looks at the next word, one at the word before:", both)
#
# plot_attention(looks, queries=words, keys=words, title="Two heads that learned to subtract")

# %% [markdown]
# One head took the previous word, the other the next word; at the ends of the sentence they wrap
# around.
#
# Eight heads can look at eight things. Here are some set by hand, at the paper's size: the first 64
# features of each row encode its place, the other 448 its word. Four heads select by place. Chapter
# 2 showed that a shift is a rotation, so here $W^Q$ turns all clock hands by the same number of
# positions.

# %% tags=["active-ipynb"]
# from transformer.positional_encoding import sinusoidal_positions
#
# places = sinusoidal_positions(50, 64)
# meanings = nn.functional.normalize(torch.randn(7, 448), dim=1)
# x = torch.cat([places[:7], meanings], dim=1)[None]
#
#
# def turn(shift):
#     angles = shift * 10_000 ** (-torch.arange(0, 64, 2) / 64)
#     pairs = torch.stack([angles.cos(), angles.sin(), -angles.sin(), angles.cos()], dim=-1)
#     return torch.block_diag(*rearrange(pairs, "n (row column) -> n row column", row=2))
#
#
# torch.testing.assert_close(places[:40] @ turn(2).T, places[2:42], atol=1e-4, rtol=0)

# %% [markdown]
# Three heads select by word: their query is a bias, the same for every word, and $W^K$ gives a
# large key to the words that are wanted. The last head has a query of zero, so it weights all words
# equally.

# %% tags=["active-ipynb"]
# layer = MultiHeadAttention(512, 8).requires_grad_(False)
# layer.w_q.weight.zero_()
# layer.w_k.weight.zero_()
#
# for head, shift in enumerate((-2, -1, 0, 1)):
#     layer.w_q.weight[pieces[head], :64] = 40 * turn(shift)
#     layer.w_k.weight[pieces[head], :64] = torch.eye(64)
#
# for head, wanted in enumerate(([3, 6], [2, 5], [1, 4]), start=4):
#     layer.w_q.bias[64 * head] = 40.0
#     layer.w_k.weight[64 * head, 64:] = meanings[wanted].sum(0)

# %% tags=["active-ipynb"]
# by_place = ["two back", "one back", "itself", "one ahead"]
# by_word = ["things", "articles", "is and on", "zero query"]
# weights = head_weights(layer, x, x)[0]
# plot_attention(weights, queries=words, keys=words, title=by_place + by_word)

# %% [markdown]
# Follow the row *cat* through all eight maps: it attends to *is*, to *a*, to itself and to *on*,
# then to the things of the sentence, to the articles, to the verb with the preposition, and to all
# words equally. All of this fits into 512 features at once. Heads for the next word and for the
# previous one, and heads that follow grammar, have also been found in trained translators (Voita et
# al. 2019).

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $W^Q_i, W^K_i, W^V_i$ for each head (section 3.2.2) | one matrix each for all heads, then a split | the same numbers, and one product |
# | $d_k = d_v = d_{model}/h$, both named | one size | they differ only in table 3 (row B) |
# | no biases in the equations | biases, 0 at first | as in PyTorch's layer, so that weights can be copied both ways |
# | does not mention initialisation | Xavier for each of the four | keeps the variance from layer to layer |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | embeddings + positions | `b t d` | (64, 8, 512) |
# | queries, keys, values | `b h q d`, `b h k d` | (64, 8, 8, 64) each |
# | scores, weights | `b h q k` | (64, 8, 8, 8) |
# | heads, joined | `b h q d` → `b q (h d)` | (64, 8, 8, 64) → (64, 8, 512) |
# | output, after $W^O$ | `b q d` | (64, 8, 512) |
#
# The output has the shape of the input, so such layers can be stacked.
# [Chapter 5](05_residual_norm.ipynb) makes sure that the input and its gradient survive a deep
# stack.
