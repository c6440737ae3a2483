# %% [markdown]
r"""
# 7 · Encoder

**Two sublayers, six times: the output for every source word depends on the whole sentence.**

![The architecture; the encoder, a stack of N layers of two sublayers each, is lit](../figures/architecture_07.svg)
"""

# %% [markdown]
# **What you need**: [chapter 4](04_multi_head.ipynb), [chapter 5](05_residual_norm.ipynb) and
# [chapter 6](06_feed_forward.ipynb), the three parts of a layer. About 40 minutes. In the paper:
# [section 3.1](https://arxiv.org/abs/1706.03762).
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/07_encoder.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/07_encoder.ipynb).
#
# **What you will be able to do**
#
# - write an encoder layer and the stack, and say what each sublayer contributes;
# - explain why layers are stacked, and name something that one layer cannot compute;
# - hide padding on the right axis, and show that the memory does not depend on it.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
from jaxtyping import Bool, Float
from torch import Tensor, nn

from transformer.feed_forward import FeedForward
from transformer.multi_head import MultiHeadAttention
from transformer.residual_norm import PostNorm

# %% [markdown]
# ## The question
#
# Translate *there is **a** cat* into Italian: *c'è **un** gatto*. But *there is **a** house*
# becomes *c'è **una** casa*. The word that decides how to translate *a* comes after it.
#
# A recurrent network reads from left to right and keeps a summary of what it has read. Let a
# running average stand for that summary. Which of the eight summaries can tell a cat from a house?

# %% tags=["active-ipynb"]
# import torch
#
# from transformer.example import after, example_model, example_tokenizer, tokens
#
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
#
# words = tokens(after(0))[0]
# house_id = example_tokenizer().token_to_id("▁house")
# with_house = after(0)[:1].clone()
# with_house[0, words.index("cat")] = house_id
#
# cat = after(2)[:1]
# house = example_model().embed(with_house)  # chapters 1 and 2

# %% tags=["active-ipynb"]
# def summaries(x):
#     return x.cumsum(1) / torch.arange(1, 9)[:, None]
#
#
# moved = (summaries(cat) - summaries(house)).abs().amax(-1)[0] > 1e-5
# print([word for word, yes in zip(words, moved) if yes])

# %% [markdown]
# From *cat* on, the summaries differ. The one at *a* is the same in both sentences, so a reader
# from left to right must choose between *un* and *una* before it has seen the noun. An encoder has
# the whole sentence. It should let **every** word use what comes before it *and* what comes after
# it.

# %% [markdown]
# ## By hand
#
# One layer, two words, four features: *article*, *noun*, *masculine*, and an empty one, which is to
# become *un*. Leave out the norms and every learned matrix of attention. Two steps remain, and each
# is added to its input:
#
# 1. **attention**: the average of all words, with equal weights;
# 2. **feed-forward**: one hidden unit, positive only for an article that has met a masculine noun.

# %% tags=["active-ipynb"]
# # Columns: article, noun, masculine, un.
# a_cat = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 2.0, 0.0]])
# a_house = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
# w_1 = torch.tensor([1.0, -1.0, 1.0, 0.0])
# b_1 = -2.0
# w_2 = torch.tensor([0.0, 0.0, 0.0, 1.0])
#
# for x in (a_cat, a_house):
#     x = x + x.mean(0)
#     x = x + (x @ w_1 + b_1).relu().outer(w_2)
#     print(x)

# %% [markdown]
# The first matrix is *a cat*, the second *a house*, one row for each word. Follow *a* before *cat*.
# Attention adds the average $(1, 1, 1, 0)$ and gives $(3, 1, 1, 0)$; the unit computes
# $3 - 1 + 1 - 2 = 1$ and writes a 1 into *un*. Before *house* the row becomes $(3, 1, 0, 0)$, and
# the unit computes $0$. At the nouns the sum is negative, and ReLU makes it 0.
#
# Neither step is enough alone. Without attention the row of *a* never contains *masculine*. Without
# the hidden unit, *article* and *masculine* stand in one row and nothing combines them.

# %% [markdown]
# ### Why more than once?
#
# Take *the cat is on the mat, it …*: where is *it*? The row of *it* must first find *cat*; only
# then can it look for the place of the cat. Write down which word each word points to. In each
# layer, every word follows the pointer of the word that it has found so far:

# %% tags=["active-ipynb"]
# from transformer.attention import attention
#
# names = ["cat", "on", "mat", "it"]
# place = torch.eye(4)
# points_to = place[[1, 2, 2, 0]]  # cat → on, on → mat, mat → mat, it → cat
#
# found = points_to
# for layer in range(3):
#     print("before layer", layer + 1, "it has found", names[found[3].argmax()])
#     found = attention(50 * found, place, points_to)

# %% [markdown]
# After one layer every word *can* have information from every other. But which word is worth
# attending to may depend on what was found before, and that is known only one layer later. Depth is
# the number of steps that can build on one another.

# %% [markdown]
# ## The definition
#
# A layer is two sublayers, self-attention and feed-forward, each inside the residual of chapter 5:
#
# $$\begin{aligned}
# y &= \operatorname{LayerNorm}(x + \operatorname{SelfAttention}(x)) \\
# \operatorname{Layer}(x) &= \operatorname{LayerNorm}(y + \operatorname{FeedForward}(y))
# \end{aligned}$$
#
# ![An encoder layer: self-attention, then feed-forward, each with a residual around it and a norm behind it; below, the word cat attends to every word before and after it](../figures/07_encoder_layer.svg)

# %% [markdown]
# It is called *self*-attention because queries, keys and values all come from the same sentence:
# `self_attention(x, x, mask)`.


# %% tags=["exercise"]
class EncoderLayer(nn.Module):
    """Apply self-attention, then feed-forward, each with its residual and norm.

    `residual` is `PostNorm` or `PreNorm`. Source: Vaswani et al. 2017, section 3.1.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_ff: int,
        dropout: float = 0.0,
        residual: type[PostNorm] = PostNorm,
    ):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.residuals = nn.ModuleList(residual(d_model, dropout) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "b t d_model"], mask: Bool[Tensor, "... #q #k"] | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """Return a new vector for each position; `mask` is True where a query may attend."""
        residual_1, residual_2 = self.residuals
        y = residual_1(x, lambda x: self.self_attention(x, x, mask))
        return residual_2(y, self.feed_forward)


# %% [markdown]
# The encoder is $N$ layers in a row, all of the same form, each with weights of its own. Post-norm,
# the default, needs nothing at the end; pre-norm needs one more norm. `residual.final` is the right
# layer for either.


# %%
class Encoder(nn.Module):
    """Apply a stack of n_layers encoder layers, which keeps the shape.

    `residual` is `PostNorm` or `PreNorm`. Source: Vaswani et al. 2017, section 3.1.
    """

    def __init__(
        self,
        n_layers: int,
        d_model: int,
        n_heads: int,
        d_ff: int,
        dropout: float = 0.0,
        residual: type[PostNorm] = PostNorm,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(d_model, n_heads, d_ff, dropout, residual) for _ in range(n_layers)
        )
        self.norm = residual.final(d_model)

    def forward(
        self, x: Float[Tensor, "b t d_model"], mask: Bool[Tensor, "... #q #k"] | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """Return the memory, which the decoder attends to."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


# %% [markdown]
# ## The proof
#
# ### The running example
#
# Load the trained encoder. Chapters 3 to 6 have built its first layer, whose result is `after(6)`;
# the second layer turns that into the **memory**, `after(7)`. The whole stack does both, starting
# from chapter 2's rows. The mask hides the padding of the second sentence.

# %% tags=["active-ipynb"]
# from einops import rearrange
#
# from transformer.example import weights
#
# encoder = Encoder(n_layers=2, d_model=24, n_heads=4, d_ff=48).requires_grad_(False)
# encoder.load_state_dict(weights("encoder"))
# mask = rearrange(after(0) != 0, "b k -> b 1 1 k")
#
# torch.testing.assert_close(encoder.layers[1](after(6), mask), after(7))
# torch.testing.assert_close(encoder(after(2), mask), after(7))
# print("cat, one layer: ", after(6)[0, words.index("cat"), :4])
# print("cat, two layers:", after(7)[0, words.index("cat"), :4])

# %% [markdown]
# Both tensors are `(2, 8, 24)`. At the paper's base size a batch has 64 sentences of 8 tokens and
# 512 features; there are 8 heads of 64, 2048 hidden features and 6 layers. Which shape comes out of
# each part?

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
#
# base = Encoder(n_layers=6, d_model=512, n_heads=8, d_ff=2048).requires_grad_(False)
# x = torch.randn(64, 8, 512)
# layer = base.layers[0]
#
# print("attention weights  ", *head_weights(layer.self_attention, x, x).shape, "b h q k")
# print("inside feed-forward", *layer.feed_forward.w_1(x).shape, "b t d_ff")
# print("after one layer    ", *layer(x).shape, "b t d_model")
# print("after all six      ", *base(x).shape, "b t d_model")

# %% [markdown]
# `(64, 8, 512)` in and `(64, 8, 512)` out, so any number of layers can be stacked. A sentence of
# $t$ tokens goes from `(t, 512)` to `(t, 512)`, whatever its length.

# %% [markdown]
# ### Past and future
#
# Give the trained encoder the two sentences that the running average could not tell apart at *a*.
# Which rows of the memory differ? Then replace each of the eight tokens by *house* in turn.

# %% tags=["active-ipynb"]
# moved = (encoder(cat) - encoder(house)).abs().amax(-1)[0] > 1e-5
# print([word for word, yes in zip(words, moved) if yes])
#
# replaced = after(0)[:1].repeat(8, 1).fill_diagonal_(house_id)
# outputs = encoder(example_model().embed(replaced))
# moved = (outputs - encoder(cat)).abs().amax(-1) > 1e-5
# print("token replaced × row that moved:", *moved.shape, "· all of them:", moved.all().item())

# %% [markdown]
# Each of the eight tokens affects each of the eight rows, also those before it. An encoder may do
# this because the whole source is known from the start. Chapter 8 will have to forbid it: a decoder
# that sees the next word has nothing left to predict.

# %% [markdown]
# ### Padding is invisible
#
# The second sentence has six tokens and two of `<pad>`. Without a mask these are words like any
# other, and every word attends to them. The mask hides **keys**: each sentence has one row, which
# all heads and all queries share, `b 1 1 k`. Compare with the sentence alone, without padding.
# Which of three masks gives the same six rows?

# %% tags=["active-ipynb"]
# love = after(2)[1:]
# alone = encoder(love[:, :6])
#
# torch.testing.assert_close(encoder(love, mask[1:])[:, :6], alone)
# on_rows = rearrange(mask[1:], "b 1 1 q -> b 1 q 1")
# for name, m in (("on columns", mask[1:]), ("on rows", on_rows), ("none", None)):
#     same = torch.allclose(encoder(love, m)[:, :6], alone, atol=1e-4)
#     print(f"mask {name:10} equal to the sentence alone: {same}")

# %% [markdown]
# With the mask on columns, the memory of a sentence does not depend on how much padding its batch
# needs. The padded positions still get an output, so cross-attention to the memory must use the
# same mask.
#
# The mask on **rows** is a common mistake. Real words then still attend to padding, and the rows of
# padding are left without any key; in many implementations they become `nan`.

# %% [markdown]
# ### Equal to PyTorch
#
# PyTorch has this layer too. `twin_of` builds one with our weights; PyTorch keeps the three
# projections in one matrix.


# %% tags=["active-ipynb"]
# def twin_of(layer, norm_first):
#     twin = nn.TransformerEncoderLayer(
#         512, 8, 2048, dropout=0.0, batch_first=True, norm_first=norm_first
#     )
#     ours = layer.self_attention
#     w_qkv = (ours.w_q, ours.w_k, ours.w_v)
#     twin.self_attn.in_proj_weight = nn.Parameter(torch.cat([linear.weight for linear in w_qkv]))
#     twin.self_attn.in_proj_bias = nn.Parameter(torch.cat([linear.bias for linear in w_qkv]))
#     twin.self_attn.out_proj = ours.w_o
#     twin.linear1 = layer.feed_forward.w_1
#     twin.linear2 = layer.feed_forward.w_2
#     for norm, residual in zip((twin.norm1, twin.norm2), layer.residuals):
#         norm.weight = residual.norm.gain
#         norm.bias = residual.norm.bias
#     return twin

# %% [markdown]
# Mind the mask: in PyTorch's layers `True` means *hide*, in ours *may attend*. The wrong polarity
# raises no error. Every parameter gets some noise first, so that all norms differ. In pre-norm
# PyTorch's stack gets our last norm, in post-norm none.

# %% tags=["active-ipynb"]
# from transformer.residual_norm import PreNorm
#
# real = torch.arange(8) < torch.randint(3, 9, (64, 1))
#
# for residual in (PostNorm, PreNorm):
#     ours = Encoder(3, 512, 8, 2048, residual=residual)
#     for parameter in ours.parameters():
#         parameter.data += 0.05 * torch.randn_like(parameter)
#     twins = nn.ModuleList(twin_of(layer, residual is PreNorm) for layer in ours.layers)
#     last = nn.LayerNorm(512) if residual is PreNorm else None
#     if last is not None:
#         last.weight = ours.norm.gain
#         last.bias = ours.norm.bias
#     theirs = nn.TransformerEncoder(twins[0], 3, norm=last, enable_nested_tensor=False)
#     theirs.layers = twins
#     want = theirs(x, src_key_padding_mask=~real)
#     got = ours(x, rearrange(real, "b k -> b 1 1 k"))
#     torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)
#     last_norm = type(ours.norm).__name__
#     print(residual.__name__, "equal to nn.TransformerEncoder, last norm:", last_norm)

# %% [markdown]
# A trap: `nn.Transformer` builds its encoder with a final norm in post-norm too. The paper has none
# there, and the last layer has just normalised its output. Before training the second norm does
# nothing; after training it is one more gain and bias.

# %% tags=["active-ipynb"]
# theirs = nn.Transformer(512, 8, num_encoder_layers=1, num_decoder_layers=1, batch_first=True)
# print(theirs.encoder.norm)
#
# memory = base(x)
# torch.testing.assert_close(nn.LayerNorm(512)(memory), memory, atol=1e-4, rtol=1e-4)

# %% [markdown]
# ### The check
#
# `check_encoder_layer` and `check_encoder` look for mistakes that are made in practice: a missing
# residual, a norm in the wrong place, a mask that is ignored or inverted, layers that share their
# weights.

# %% tags=["active-ipynb"]
# from transformer.checks import check_encoder, check_encoder_layer
#
# check_encoder_layer(EncoderLayer)
# check_encoder(Encoder)

# %% [markdown]
# ## The look
#
# Back to the question. Put ten nouns in the place of *cat*: five that are masculine in Italian,
# then five that are feminine. In all ten sentences the row of *a* is the same when it enters the
# encoder. Subtract the mean of the ten rows that come out, and compare them by cosine. Will they
# show the gender of the noun that follows?

# %% tags=["active-ipynb"]
# import torch.nn.functional as F
#
# from transformer.plotting import plot_matrix
#
# nouns = "cat dog boy book mat girl woman chair letter car".split()
# ten = after(0)[:1].repeat(10, 1)
# ten[:, 3] = torch.tensor([example_tokenizer().token_to_id(f"▁{noun}") for noun in nouns])
# x = example_model().embed(ten)
# a = words.index("a")
# assert (x[:, a] == x[0, a]).all()
#
# rows = encoder(x)[:, a]
# rows = F.normalize(rows - rows.mean(0), dim=-1)
# cosines = (rows @ rows.T).round(decimals=2) + 0.0  # which makes -0 a 0
# plot_matrix(cosines, nouns, nouns, "The memory of 'a', before ten nouns", center=True)

# %% [markdown]
# They do, for nine of the ten. Measured from their mean, the rows of *a* point one way before a
# masculine noun and nearly the opposite way before a feminine one; only *girl* belongs to neither
# group. So the encoder has carried the gender from the noun back to the article. (The model
# translates *a girl* correctly all the same, because the decoder can also look at *girl* itself.)

# %% tags=["active-ipynb"]
# feminine = torch.arange(10) >= 5
# same = feminine[:, None] == feminine[None, :]
# others = torch.tensor([noun != "girl" for noun in nouns])
# pairs = others[:, None] & others[None, :]
#
# assert cosines[same & pairs].min() > 0.4
# assert cosines[~same & pairs].max() < -0.4
# assert cosines[nouns.index("girl"), others].abs().max() < 0.4

# %% [markdown]
# How much does each row of the memory depend on each word? Nudge one token's row a little, in 64
# random directions, and measure how far every row of the memory moves. Rows are rows of the memory,
# columns are the nudged tokens, and each row is scaled to sum to 1. Where will the numbers be
# large?

# %% tags=["active-ipynb"]
# from einops import reduce, repeat
#
# nudged = repeat(cat, "1 t d_model -> token nudge t d_model", token=8, nudge=64).clone()
# nudged[range(8), :, range(8)] += 0.01 * torch.randn(8, 64, 24)
# moved = encoder(rearrange(nudged, "token nudge t d_model -> (token nudge) t d_model"))
# distance = (moved - encoder(cat)).norm(dim=-1)
#
# shares = reduce(distance, "(token nudge) t -> t token", "mean", token=8)
# shares = shares / shares.sum(-1, keepdim=True)
# plot_matrix(shares, words, words, "Share of each token (column) in the memory")

# %% [markdown]
# On the diagonal: about half to three quarters of a row comes from its own token, because the
# residuals carry it. The rest comes from both sides. *On* follows *mat*, which decides between
# *sul* and *sulla*; `</s>`, which has no meaning of its own, follows *mat* and *on*.

# %% [markdown]
# ## What if
#
# What if there is only one layer? Five places each name a place, as *it* named *cat* by hand. The
# model sees all five names, and for every place it must answer where three steps lead: the name in
# the named place of the named place. As a control for its size, the single layer gets a
# feed-forward block three times as wide, so that both models have about 17,000 weights.


# %% tags=["active-ipynb"]
# from transformer.embeddings import TokenEmbedding
# from transformer.positional_encoding import PositionalEncoding
#
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
#
#
# def share_right(n_layers, d_ff, seed):
#     torch.manual_seed(seed)
#     embed = nn.Sequential(TokenEmbedding(5, 32), PositionalEncoding(32, max_len=5))
#     stack = Encoder(n_layers, 32, 2, d_ff)
#     to_logits = nn.Linear(32, 5)
#     optimizer = torch.optim.Adam(nn.ModuleList([embed, stack, to_logits]).parameters(), lr=6e-3)
#     right = []
#     for _ in range(200):
#         names = torch.randint(5, (64, 5))
#         answers = names.gather(1, names.gather(1, names))
#         logits = to_logits(stack(embed(names)))
#         optimizer.zero_grad()
#         F.cross_entropy(logits.flatten(0, 1), answers.flatten()).backward()
#         optimizer.step()
#         right.append((logits.argmax(-1) == answers).float().mean())
#     return torch.stack(right)

# %% [markdown]
# One layer can do two steps: a place attends to the place that it names, and that place hands over
# the name it holds. For the third step, some place must look for what another has *found*. Will the
# width make up for the missing layer?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# variants = {"two layers": (2, 64), "one layer, wide": (1, 192)}
# curves = {
#     name: torch.stack([share_right(*variant, seed) for seed in range(3)])
#     for name, variant in variants.items()
# }
# assert curves["two layers"][:, -20:].mean(1).min() > 0.9
# assert curves["one layer, wide"][:, -20:].mean(1).max() < 0.75
#
# means = {name: runs.mean(0) for name, runs in curves.items()}
# plot_lines(means, xlabel="step", ylabel="share right", title="Three steps: mean of 3 seeds")

# %% [markdown]
# It does not. Two layers learn the task; the single layer stays near 0.65. That is little more than
# two steps allow: in 52 of 100 cases they lead back to a place already visited, so that the third
# is known, and guessing one of five in the other 48 gives 0.62. More features make a step richer;
# only another layer adds a step.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 7.1 | A layer of the encoder | write the block | 20 | ★★☆ |
# | 7.2 | One layer, one word, on paper | by hand | 10 | ★☆☆ |
# | 7.3 | What the memory depends on | predict, then run | 10 | ★☆☆ |
# | 7.4 | Six layers, and something is missing | find the bug | 15 | ★★☆ |
# | 7.5 | A test for a layer | write the test | 30 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 7` says what is wrong, and `course hint 7.1` gives a hint.

# %% [markdown]
# ## Summary
#
# An encoder layer is self-attention, which lets every word read all others, and a feed-forward
# block, which combines what it has read; each has a residual and a norm. Layers of the same form,
# each with its own weights, are stacked, because a later layer can look for what an earlier one has
# found. The shape does not change, and with a mask over keys the memory of a sentence does not
# depend on its padding.
#
# **Write it from memory**: close the chapter and write `EncoderLayer` from the parts of chapters 4
# to 6; `check_encoder_layer(EncoderLayer)` says whether it is right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | "a stack of N = 6 identical layers" ([section 3.1](https://arxiv.org/abs/1706.03762)) | `n_layers`, each with weights of its own | identical in form, not in weights |
# | $\operatorname{LayerNorm}(x + \operatorname{Sublayer}(x))$, nothing after the last layer | the same: `PostNorm`, the default | `nn.Transformer` adds a norm that the paper does not have |
# | does not mention pre-norm | `PreNorm` as a switch, with a norm at the end | deep stacks train more easily (chapter 5) |
# | does not mention padding | a mask over keys, `b 1 1 k` | sentences of a batch differ in length |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | embeddings + positions | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
# | padding mask | `b 1 1 k` | (2, 1, 1, 8) | (64, 1, 1, 8) |
# | attention weights, in each layer | `b h q k` | (2, 4, 8, 8) | (64, 8, 8, 8) |
# | inside feed-forward, in each layer | `b t d_ff` | (2, 8, 48) | (64, 8, 2048) |
# | memory | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
#
# The encoder has read the source. [Chapter 8](08_decoder.ipynb) writes the target, and must not
# look ahead.
