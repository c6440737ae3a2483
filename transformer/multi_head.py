# %% [markdown]
r"""
# 4 · Multi-head attention

**One attention is one opinion. Eight small ones look at eight things at once, for the price of one.**

![The architecture; its three attention blocks, two in the decoder and one in the encoder, are lit](../figures/architecture_04.svg)
"""

# %%
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from transformer.attention import attention, attention_weights

# %% [markdown]
# ## The question
#
# In *there is a cat on the mat*, the word *cat* has several questions: which article is mine, what am I doing, where am I?
# Attention gives it **one** mixing formula, and so one average of all the answers.
#
# What does an average forget? Take the three values of chapter 3, and two queries: the first listens half to value 0 and
# half to value 1, the second to value 2 alone.

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
# Both hear the same. Two answers went into the first average, and nobody can take them apart again. With two formulas for
# each query, and the two results laid **side by side**, nothing is mixed up:

# %% tags=["active-ipynb"]
# first, second = torch.tensor([0, 2]), torch.tensor([1, 2])
# torch.cat([v[first], v[second]], dim=1)

# %% [markdown]
# ## By hand
#
# Two formulas need not cost twice as much. Cut each vector into pieces, and give each formula, or **head**, a piece of its
# own. Three words with four features, so that 21 is feature 1 of word 2; two heads of two features:

# %% tags=["active-ipynb"]
# x = 10 * torch.arange(3)[:, None] + torch.arange(4)
# heads = rearrange(x, "t (h d) -> h t d", h=2)
# print(x, heads, sep="\n\n")

# %% [markdown]
# Head 0 has the first half of *every* word, head 1 the second half. A plain `view` gives the same shape, no error, and
# nonsense: here head 0 gets all of word 0 and half of word 1, and words are mixed before anyone has attended to anything.

# %% tags=["active-ipynb"]
# wrong = x.view(2, 3, 2)
# print(wrong.shape == heads.shape, wrong, sep="\n")

# %% [markdown]
# Now let head 0 look one word **back**, and head 1 one word **on**; at the ends they look at what is there. Each mixes its
# own pieces by its own formula, and the pieces are joined again:

# %% tags=["active-ipynb"]
# back = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
# on = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 1]])
#
# mixed = torch.stack([back, on]) @ heads
# rearrange(mixed, "h q d -> q (h d)")

# %% [markdown]
# Row 1 is the middle word: 0 and 1 come from the word before it, 22 and 23 from the word after it. It heard two neighbours
# at once, its width is still 4, and every number in it can be traced.

# %% [markdown]
# ## The definition
#
# Which features go to which head should not be left to chance. So each head $i$ gets matrices of its own, which choose what
# it asks, what it is asked and what it is told, and one matrix at the end reads all the answers:
#
# $$\text{head}_i = \operatorname{Attention}(X W^Q_i,\; M W^K_i,\; M W^V_i) \qquad
# \operatorname{MultiHead}(X, M) = \operatorname{Concat}(\text{head}_1, \dots, \text{head}_h)\, W^O$$
#
# $X$ asks and $M$, the *memory*, is asked; in self-attention they are the same. Every $W_i$ goes from 512 features to
# $512 / 8 = 64$.

# %% [markdown]
# ![x becomes q, k and v; each is cut into eight coloured pieces, one for each head; the heads' results are joined and pass through w_o](../figures/04_heads.svg)
#
# Eight matrices of $512 \times 64$ side by side are one of $512 \times 512$: one `nn.Linear` serves all heads, and the cut
# comes after it. The class has two doors, `keys_values` and `attend`, since chapter 12 keeps keys and values from one step
# to the next. `kernel` is the attention that it calls, so that another can be put in its place.


# %% tags=["exercise"]
class MultiHeadAttention(nn.Module):
    """Let every position of `x` attend to every position of `memory`, in n_heads subspaces at once.

    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model={d_model} must be a multiple of n_heads={n_heads}, and n_heads at least 1")
        self.n_heads, self.kernel = n_heads, attention
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        for linear in self.children():
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def split(self, x: Float[Tensor, "b t d_model"]) -> Float[Tensor, "b h t d"]:
        """Cut every vector into n_heads pieces of d_model / n_heads features."""
        return rearrange(x, "b t (h d) -> b h t d", h=self.n_heads)

    def keys_values(self, memory: Float[Tensor, "b k d_model"]) -> tuple[Tensor, Tensor]:
        """Return what `memory` offers and what it hands over, split into heads."""
        return self.split(self.w_k(memory)), self.split(self.w_v(memory))

    def attend(self, x: Float[Tensor, "b q d_model"], k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Ask keys and values that are split already; decoding keeps them from step to step."""
        heads = self.kernel(self.split(self.w_q(x)), k, v, mask)
        return self.w_o(rearrange(heads, "b h q d -> b q (h d)"))

    def forward(
        self, x: Float[Tensor, "b q d_model"], memory: Float[Tensor, "b k d_model"], mask: Tensor | None = None
    ) -> Float[Tensor, "b q d_model"]:
        """Return a new vector for each query position; `mask` broadcasts to b h q k, True = may attend."""
        return self.attend(x, *self.keys_values(memory), mask)


# %% [markdown]
# The layer returns vectors, and keeps no weights in a hidden corner. Who wants to look at them asks for them, with the
# *same* mask: a plot that forgets it shows a model that does not exist.


# %%
def head_weights(
    module: MultiHeadAttention,
    x: Float[Tensor, "b q d_model"],
    memory: Float[Tensor, "b k d_model"],
    mask: Bool[Tensor, "#b #h #q #k"] | None = None,
) -> Float[Tensor, "b h q k"]:
    """Return each head's mixing formula: which key each query looks at."""
    return attention_weights(module.split(module.w_q(x)), module.split(module.w_k(memory)), mask)


# %% [markdown]
# ## The proof
#
# The shapes at the paper's size, for 64 sentences of 8 tokens. In `(64, 8, 8, 64)` the first 8 counts heads, the second
# tokens.

# %% tags=["active-ipynb"]
# ours = MultiHeadAttention(512, 8)
# x = torch.randn(64, 8, 512)
#
# k, v = ours.keys_values(x)
# heads = attention(ours.split(ours.w_q(x)), k, v)
# joined = rearrange(heads, "b h q d -> b q (h d)")
# steps = dict(x=x, k=k, v=v, heads=heads, joined=joined, output=ours(x, x))
# for name, tensor in steps.items():
#     print(f"{name:7}", *tensor.shape)

# %% [markdown]
# **All heads at once are the heads one by one.** A loop takes the 64 columns of each head, attends, and joins. The layer does
# it in parallel, without a loop, and gets the same:

# %% tags=["active-ipynb"]
# q, k, v = ours.w_q(x), ours.w_k(x), ours.w_v(x)
# pieces = [slice(start, start + 64) for start in range(0, 512, 64)]
# one_by_one = torch.cat([attention(q[..., piece], k[..., piece], v[..., piece]) for piece in pieces], dim=-1)
#
# torch.testing.assert_close(ours.w_o(one_by_one), ours(x, x))

# %% [markdown]
# **It is PyTorch's own layer.** Copy the weights into `nn.MultiheadAttention`, which stacks $W^Q$, $W^K$ and $W^V$ in one
# matrix, let 5 positions ask 7 others, and hide some of those. Mind the mask: in this layer of PyTorch `True` means *may
# not* attend, in its fused kernel it means *may*.

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
# x, memory = torch.randn(2, 5, 512), torch.randn(2, 7, 512)
# mask = torch.rand(5, 7) < 0.7
#
# output, weights = theirs(x, memory, memory, attn_mask=~mask, average_attn_weights=False)
# torch.testing.assert_close(ours(x, memory, mask), output)
# torch.testing.assert_close(head_weights(ours, x, memory, mask[None, None]), weights)
# print("output", *output.shape, "· weights", *weights.shape)

# %% [markdown]
# ### What does it cost?
#
# For $t$ tokens, the four linear layers need $4\,t\,d^2$ multiplications. Each of $h$ heads needs $t^2 \cdot d/h$ for its
# scores and as many for mixing: $2\,t^2 d$ for all of them, and $h$ has dropped out. PyTorch can count for us, each
# multiplication with its addition as two; since the counter cannot look into every fused kernel, we put the two steps in
# its place.

# %% tags=["active-ipynb"]
# from torch.utils.flop_counter import FlopCounterMode
#
# x = torch.zeros(64, 8, 512)
# for n_heads in (1, 8, 64):
#     module = MultiHeadAttention(512, n_heads)
#     module.kernel = lambda q, k, v, mask: attention_weights(q, k, mask) @ v
#     with FlopCounterMode(display=False) as counter:
#         module(x, x)
#     parameters = sum(weight.numel() for weight in module.parameters())
#     print(f"{n_heads:2} heads: {counter.get_total_flops() // 2:,} multiplications, {parameters:,} parameters")
#
# assert counter.get_total_flops() // 2 == 64 * (4 * 8 * 512**2 + 2 * 8**2 * 512)

# %% [markdown]
# Eight heads cost what one costs. So why not 64? A head of 8 features has little to compare by. The paper tried: in its
# table 3 (row A) one head loses 0.9 BLEU against eight, 16 are as good, and 32 lose 0.4.

# %% [markdown]
# ### What would be lost without $W^O$?
#
# One could join the heads and pass them on. The shape would be right. But **who could hear whom**? Cut the output into eight
# blocks of 64 features, and ask the gradient which heads each block depends on:

# %% tags=["active-ipynb"]
# heads = torch.randn(2, 8, 5, 64, requires_grad=True)
# joined = rearrange(heads, "b h q d -> b q (h d)")
#
#
# def heard(output):
#     blocks = rearrange(output, "b q (n d) -> n b q d", n=8).square()
#     gradients = [torch.autograd.grad(block.sum(), heads, retain_graph=True)[0] for block in blocks]
#     return torch.stack([rearrange(gradient, "b h q d -> h (b q d)").norm(dim=1) for gradient in gradients])
#
#
# without, full = heard(joined), heard(ours.w_o(joined))
# pairs = [table.count_nonzero().item() for table in (without, full)]
# print(f"pairs of block and head that are connected: {pairs[0]} without w_o, {pairs[1]} with it")

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_attention
#
# shares = [table / table.sum(1, keepdim=True) for table in (without, full)]
# plot_attention(shares, title=["without w_o", "with w_o"])

# %% [markdown]
# Rows are blocks of the output, columns are heads. Without $W^O$ block $i$ knows head $i$ and no other: eight experts in
# eight sealed rooms. With it, every feature of the output hears all eight.
#
# The other way round: $W^O$ lets each head **write anywhere**. Its 64 columns for head $i$ lead from 64 features to all 512,
# and the output is simply the sum of what the heads have to say:

# %% tags=["active-ipynb"]
# w_o = rearrange(ours.w_o.weight, "d_model (h d) -> h d d_model", h=8)
# said = [heads[:, i] @ w_o[i] for i in range(8)]
#
# torch.testing.assert_close(sum(said) + ours.w_o.bias, ours.w_o(joined))
# print(len(said), "times", *said[0].shape)

# %% [markdown]
# Does it matter? A task that takes two heads: *subtract the word before from the word after*, in a sentence bent into a ring.
# No single head can do it, as its weights are never negative. Each word has 7 features for itself and 7 for its place; the
# answer is due in the first 7, which without $W^O$ belong to head 0.

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
# complete, sealed = MultiHeadAttention(14, 2), MultiHeadAttention(14, 2)
# sealed.w_o = nn.Identity()
#
# errors = train(complete), train(sealed)
# print(f"unexplained, of the variance: {errors[0]:.1f} with w_o, {errors[1]:.1f} without")
# assert errors[0] < 0.05 and errors[1] > 0.4

# %% [markdown]
# With $W^O$ the layer solves it. Without, it gets one of the two neighbours right, and the other one's half of the variance
# stays unexplained. Later layers could do some of the repair, but every head would still write to its own 64
# features only.

# %% [markdown]
# ### The check
#
# `check_multi_head` tries heads cut by `view`, a missing $W^O$, a scale by the wrong width, a mask that is inverted or
# forgotten, and keys that are not as many as queries.

# %% tags=["active-ipynb"]
# from transformer.checks import check_head_weights, check_multi_head
#
# check_multi_head(MultiHeadAttention)
# check_head_weights(head_weights)

# %% [markdown]
# ## The look
#
# What did the two heads of the trained layer learn? Nobody told them how to divide the work. Rows ask, columns answer:

# %% tags=["active-ipynb"]
# x, _ = batch()
# looks = head_weights(complete, x, x).mean(0)
# steps = (looks.argmax(-1) - torch.arange(7)) % 7
# both = sorted(steps.unique(dim=1).flatten().tolist()) == [1, 6]
# print("one looks at the next word, one at the word before:", both)
#
# plot_attention(looks, queries=words, keys=words, title="Two heads that learned to subtract")

# %% [markdown]
# One took the word before, the other the word after; at the ends of the ring they reach around.
#
# Eight heads can look at eight things. Here are some set by hand, at the paper's size: the first 64 features of each row
# are its place, the other 448 its word. Four heads look by place. Chapter 2 says how: a shift is a rotation, so $W^Q$ turns
# all clock hands by the same number of positions.

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
# Three heads look by meaning: their question is a bias, the same for every word, and $W^K$ finds the words wanted. The last
# head has no question, and listens to all alike.

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
# names = ["two back", "one back", "itself", "one on", "things", "articles", "is and on", "no question"]
# plot_attention(head_weights(layer, x, x)[0], queries=words, keys=words, title=names)

# %% [markdown]
# Row *cat*, all eight maps: it hears *is* and *a*, itself and *on*, the things of the sentence, its articles, its verb with
# its preposition, and the average of everything. All of that at once, in 512 features. Heads for the next word and
# for the one before, and heads that follow grammar, have been found in trained translators, too (Voita et al. 2019).

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | $W^Q_i, W^K_i, W^V_i$ for each head (section 3.2.2) | one matrix each for all heads, then a cut | the same numbers, and one product |
# | $d_k = d_v = d_{model}/h$, both named | one size | they differ only in table 3 (row B) |
# | no biases in the equations | biases, 0 at first | as in PyTorch's layer, so that weights fit both ways |
# | says nothing of initialisation | Xavier for each of the four | keeps the variance from layer to layer |

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
# The shape that went in comes out, so such layers can be stacked. How deep? [Chapter 5](05_residual_norm.ipynb) makes sure
# that the first word is still heard at the top.
