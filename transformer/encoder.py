# %% [markdown]
r"""
# 7 · Encoder

**Two sublayers, six times: every word of the source comes out knowing the whole sentence.**

![The architecture; the encoder, a stack of N layers of two sublayers each, is lit](../figures/architecture_07.svg)
"""

# %%
from jaxtyping import Bool, Float
from torch import Tensor, nn

from transformer.feed_forward import FeedForward
from transformer.multi_head import MultiHeadAttention
from transformer.residual_norm import PostNorm

# %% [markdown]
# ## The question
#
# Translate *there is **a** cat* into Italian: *c'è **un** gatto*. But *there is **a** house* becomes *c'è **una** casa*. The
# word that decides about *a* comes after it.
#
# A recurrent network reads from left to right and keeps a summary of what it has read. Let a running average stand for that
# summary. Which of the seven summaries can tell a cat from a house?

# %% tags=["active-ipynb"]
# import torch
#
# from transformer.embeddings import TokenEmbedding
# from transformer.positional_encoding import PositionalEncoding
#
# torch.manual_seed(0)
# torch.set_grad_enabled(False)  # nothing is trained in this chapter
# torch.set_printoptions(precision=2, sci_mode=False)
#
# words = "there is a cat on the mat".split()
# vocabulary = ["<pad>", "house", *words]
# embedding, positions = TokenEmbedding(len(vocabulary), 512), PositionalEncoding(512, max_len=64)
#
#
# def embed(sentence):
#     ids = [vocabulary.index(word) for word in sentence.split()]
#     return positions(embedding(torch.tensor([ids])))

# %% tags=["active-ipynb"]
# cat, house = embed("there is a cat on the mat"), embed("there is a house on the mat")
#
#
# def summaries(x):
#     return x.cumsum(1) / torch.arange(1, 8)[:, None]
#
#
# moved = (summaries(cat) - summaries(house)).abs().amax(-1)[0] > 1e-5
# print([word for word, yes in zip(words, moved) if yes])

# %% [markdown]
# From *cat* on, the summaries differ. The one at *a* is the same in both sentences: whoever reads from left to right must
# choose between *un* and *una* before knowing. An encoder has the whole sentence at hand. It should let **every** word know
# what comes before it *and* what comes after.

# %% [markdown]
# ## By hand
#
# One layer, two words, four features: *article*, *noun*, *masculine*, and an empty one, where we want to read *un*. Leave out
# the norms and every learned matrix of attention. What remains are two steps, each added to what was there:
#
# 1. **attend**: hear all the words, here equally;
# 2. **think**: one hidden unit of the feed-forward block, which fires for an article in masculine company.

# %% tags=["active-ipynb"]
# a_cat = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 2.0, 0.0]])  # columns: article, noun, masculine, un
# a_house = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
# w_1, b_1, w_2 = torch.tensor([1.0, -1.0, 1.0, 0.0]), -2.0, torch.tensor([0.0, 0.0, 0.0, 1.0])
#
# for x in (a_cat, a_house):
#     x = x + x.mean(0)
#     x = x + (x @ w_1 + b_1).relu().outer(w_2)
#     print(x)

# %% [markdown]
# The first matrix is *a cat*, the second *a house*, one row for each word. Follow *a* before *cat*. It hears the average $(1, 1, 1, 0)$ and becomes $(3, 1, 1, 0)$; the unit computes
# $3 - 1 + 1 - 2 = 1$ and writes a 1 into *un*. Before *house* it becomes $(3, 1, 0, 0)$; the unit computes $0$ and stays silent.
# At the nouns it is negative, and ReLU makes it 0.
#
# Neither step could do it alone. Without attention *a* never meets *masculine*. Without the unit the two features lie side by
# side and nobody concludes anything.

# %% [markdown]
# ### Why more than once?
#
# In *the cat is on the mat, it …* ask: where is *it*? The word must first find *cat*, and only then knows whom to ask
# next. Write down whom each word points to, and let every word, once a layer, ask the one it has found so far:

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
# After one layer every word *can* have heard every other. But whom it pays to ask may depend on an answer, and an answer is
# there only one layer later. Depth is the number of questions that can follow from one another.

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
# *Self*-attention, because queries, keys and values all come from the same sentence: `self_attention(y, y, mask)`.


# %% tags=["exercise"]
class EncoderLayer(nn.Module):
    """Look at the whole sentence, then think about it: self-attention and feed-forward, each with its residual.

    `residual` is `PostNorm` or `PreNorm`. Source: Vaswani et al. 2017, section 3.1.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0, residual: type = PostNorm):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.residuals = nn.ModuleList(residual(d_model, dropout) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "... #q #k"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return `x` refined; `mask` says which positions may be looked at."""
        attend, think = self.residuals
        x = attend(x, lambda y: self.self_attention(y, y, mask))
        return think(x, self.feed_forward)


# %% [markdown]
# The encoder is $N$ of them in a row. Each layer has the same form and weights of its own. Post-norm, the default, needs nothing
# at the end; pre-norm ends with one more norm, and `residual.final` knows which it is.


# %%
class Encoder(nn.Module):
    """A stack of n_layers encoder layers: the same shape in and out."""

    def __init__(
        self, n_layers: int, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0, residual: type = PostNorm
    ):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(d_model, n_heads, d_ff, dropout, residual) for _ in range(n_layers))
        self.norm = residual.final(d_model)

    def forward(
        self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "... #q #k"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return the memory: what the decoder will ask."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


# %% [markdown]
# ## The proof
#
# The paper's base size: a batch of 64 sentences of 8 tokens, 512 features, 8 heads of 64, 512 → 2048 → 512, 6 layers. Which
# shape comes out of each part?

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
#
# encoder = Encoder(n_layers=6, d_model=512, n_heads=8, d_ff=2048)
# x = torch.randn(64, 8, 512)
# layer = encoder.layers[0]
#
# print("who attends to whom", *head_weights(layer.self_attention, x, x).shape, "(sentence, head, query, key)")
# print("inside feed-forward", *layer.feed_forward.w_1(x).shape)
# print("after one layer    ", *layer(x).shape)
# print("after all six      ", *encoder(x).shape)

# %% [markdown]
# `(64, 8, 512)` in and `(64, 8, 512)` out: that is what lets layers be stacked, any number of them. One sentence goes from
# `(N, 512)` to `(N, 512)`, whatever its length. The result is called the **memory**; the decoder will ask it.

# %% [markdown]
# ### Past and future
#
# Now the encoder gets the sentence that the running average could not read. Replace *cat* by *house*: which outputs move? Then
# replace each word in turn.

# %% tags=["active-ipynb"]
# moved = (encoder(cat) - encoder(house)).abs().amax(-1)[0] > 1e-5
# print([word for word, yes in zip(words, moved) if yes])
#
# outputs = torch.cat([encoder(embed(" ".join([*words[:j], "house", *words[j + 1 :]]))) for j in range(7)])
# moved = (outputs - encoder(cat)).abs().amax(-1) > 1e-5
# print("word replaced × output that moved:", *moved.shape, "· all of them:", moved.all().item())

# %% [markdown]
# Each of the seven words reaches each of the seven outputs, also those before it. An encoder may do this because the source is
# all there from the start. Chapter 8 will have to forbid it: a decoder that sees the next word has nothing left to predict.

# %% [markdown]
# ### Padding is invisible
#
# In a batch, short sentences are filled up with `<pad>`. Without a mask these are words like any other, and everybody listens
# to them. The mask speaks of **keys**: it has one row for a sentence, and the rows of all heads and all queries are the same, `b 1 1 k`.

# %% tags=["active-ipynb"]
# from einops import rearrange
#
# padded = embed("there is a cat on the mat <pad> <pad> <pad>")
# real = torch.tensor([[True] * 7 + [False] * 3])
# mask = rearrange(real, "b k -> b 1 1 k")
#
# torch.testing.assert_close(encoder(padded, mask)[:, :7], encoder(cat), atol=1e-4, rtol=1e-4)
# for name, m in (("with the mask", mask), ("without it", None)):
#     same = torch.allclose(encoder(padded, m)[:, :7], encoder(cat), atol=1e-4)
#     print(f"{name:13} equal to the sentence alone: {same}")

# %% [markdown]
# With it, a sentence means the same in any company. The padded positions themselves still compute something, which nobody reads:
# whoever asks the memory must bring the same mask along. A known mistake is to mask the **rows** of padding instead of the
# columns; then real words go on listening to padding.

# %% [markdown]
# ### Equal to PyTorch
#
# PyTorch has this layer too. Its twin can simply take our weights; the three projections lie in one matrix there. First give
# every parameter some noise, so that no two norms are alike by accident.


# %% tags=["active-ipynb"]
# def twin_of(layer, norm_first):
#     twin = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True, norm_first=norm_first)
#     ours, theirs = layer.self_attention, twin.self_attn
#     theirs.in_proj_weight = nn.Parameter(torch.cat([ours.w_q.weight, ours.w_k.weight, ours.w_v.weight]))
#     theirs.in_proj_bias = nn.Parameter(torch.cat([ours.w_q.bias, ours.w_k.bias, ours.w_v.bias]))
#     theirs.out_proj, twin.linear1, twin.linear2 = ours.w_o, layer.feed_forward.w_1, layer.feed_forward.w_2
#     for norm, residual in zip((twin.norm1, twin.norm2), layer.residuals):
#         norm.weight, norm.bias = residual.norm.gain, residual.norm.bias
#     return twin

# %% [markdown]
# Mind the mask: in PyTorch's layers `True` means *hide*, with us *may attend*. The wrong polarity raises no error.

# %% tags=["active-ipynb"]
# from transformer.residual_norm import PreNorm
#
# real = torch.arange(8) < torch.randint(3, 9, (64, 1))
# mask = rearrange(real, "b k -> b 1 1 k")
#
# for residual in (PostNorm, PreNorm):
#     layer = EncoderLayer(512, 8, 2048, residual=residual)
#     for parameter in layer.parameters():
#         parameter += 0.05 * torch.randn_like(parameter)
#     theirs = twin_of(layer, norm_first=residual is PreNorm)(x, src_key_padding_mask=~real)
#     torch.testing.assert_close(layer(x, mask), theirs, atol=1e-4, rtol=1e-4)
#     print(residual.__name__, "equal to nn.TransformerEncoderLayer, shape", *theirs.shape)

# %% [markdown]
# And the whole stack: `nn.TransformerEncoder` with twins of our layers. In pre-norm it gets our last norm; in post-norm none.

# %% tags=["active-ipynb"]
# for residual in (PostNorm, PreNorm):
#     ours = Encoder(3, 512, 8, 2048, residual=residual)
#     for parameter in ours.parameters():
#         parameter += 0.05 * torch.randn_like(parameter)
#     twins = nn.ModuleList(twin_of(layer, residual is PreNorm) for layer in ours.layers)
#     last = nn.LayerNorm(512) if residual is PreNorm else None
#     if last is not None:
#         last.weight, last.bias = ours.norm.gain, ours.norm.bias
#     theirs = nn.TransformerEncoder(twins[0], 3, norm=last, enable_nested_tensor=False)
#     theirs.layers = twins
#     torch.testing.assert_close(ours(x, mask), theirs(x, src_key_padding_mask=~real), atol=1e-3, rtol=1e-3)
#     print(residual.__name__, "equal to nn.TransformerEncoder, last norm:", type(ours.norm).__name__)

# %% [markdown]
# A trap: `nn.Transformer` builds its encoder with a final norm in post-norm too, where the paper has none and the last layer has
# just normalised. Untrained, the second norm does nothing; once trained, it is one more gain and bias.

# %% tags=["active-ipynb"]
# print(nn.Transformer(512, 8, num_encoder_layers=1, num_decoder_layers=1, batch_first=True).encoder.norm)
#
# memory = encoder(x)
# torch.testing.assert_close(nn.LayerNorm(512)(memory), memory, atol=1e-4, rtol=1e-4)

# %% [markdown]
# ### The check
#
# `check_encoder_layer` and `check_encoder` look for what goes wrong in practice: a missing residual, a norm in the
# wrong place, a mask that is ignored or read backwards, layers that share their weights.

# %% tags=["active-ipynb"]
# from transformer.checks import check_encoder, check_encoder_layer
#
# check_encoder_layer(EncoderLayer)
# check_encoder(Encoder)

# %% [markdown]
# ## The look
#
# How much does each word matter for each output? Nudge one word a little, in 16 random directions, and measure how far every
# output moves. Rows are outputs, columns are the nudged words; each row is scaled to sum to 1.

# %% tags=["active-ipynb"]
# from einops import reduce, repeat
#
# from transformer.plotting import plot_attention
#
# nudged = repeat(cat, "1 t d -> word nudge t d", word=7, nudge=16).clone()
# nudged[range(7), :, range(7)] += 0.1 * torch.randn(7, 16, 512)
# y, z, shares = rearrange(nudged, "word nudge t d -> (word nudge) t d"), cat, []
# for layer in encoder.layers:
#     y, z = layer(y), layer(z)
#     distance = reduce((y - z).norm(dim=-1), "(word nudge) out -> out word", "mean", word=7)
#     shares.append(distance / distance.sum(-1, keepdim=True))
#
# depths = (1, 2, 4, 6)
# titles = [f"after layer {n}" for n in depths]
# plot_attention([shares[n - 1] for n in depths], queries=words, keys=words, title=titles)

# %% [markdown]
# After one layer every output depends most on its own word: the residual carries it. With each layer the others weigh more, from
# the left and from the right, until almost nothing is only its own. The weights are random here. Training adds the choice of
# whom to hear; the roads are there from the start.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | "a stack of N = 6 identical layers" (section 3.1) | `n_layers`, each with weights of its own | identical in form, not in weights |
# | $\operatorname{LayerNorm}(x + \operatorname{Sublayer}(x))$, nothing after the last layer | the same: `PostNorm`, the default | `nn.Transformer` adds a norm that the paper does not have |
# | | `PreNorm` as a switch, with a norm at the end | deep stacks train more easily (chapter 5) |
# | says nothing of padding | a mask over keys, `b 1 1 k` | sentences of a batch differ in length |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | embeddings + positions | `b t d` | (64, 8, 512) |
# | padding mask | `b 1 1 k` | (64, 1, 1, 8) |
# | attention weights, in each layer | `b h q k` | (64, 8, 8, 8) |
# | inside feed-forward, in each layer | `b t d_ff` | (64, 8, 2048) |
# | memory | `b t d` | (64, 8, 512) |
#
# The source is read. [Chapter 8](08_decoder.ipynb) writes, and must not look ahead.
