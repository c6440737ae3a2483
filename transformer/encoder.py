# %% [markdown]
r"""
# 7 · Encoder

**Two sublayers, six times: the output for every source word depends on the whole sentence.**

![The architecture; the encoder, a stack of N layers of two sublayers each, is
lit](../figures/architecture_07.svg)
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
# Translate *there is **a** cat* into Italian: *c'è **un** gatto*. But *there is **a** house*
# becomes *c'è **una** casa*. The word that decides how to translate *a* comes after it.
#
# A recurrent network reads from left to right and keeps a summary of what it has read. Let a
# running average stand for that summary. Which of the seven summaries can tell a cat from a house?

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
# embedding = TokenEmbedding(len(vocabulary), 512)
# positions = PositionalEncoding(512, max_len=64)
#
#
# def embed(sentence):
#     ids = [vocabulary.index(word) for word in sentence.split()]
#     return positions(embedding(torch.tensor([ids])))

# %% tags=["active-ipynb"]
# cat = embed("there is a cat on the mat")
# house = embed("there is a house on the mat")
#
#
# def summaries(x):
#     return x.cumsum(1) / torch.arange(1, 8)[:, None]
#
#
# moved = (summaries(cat) - summaries(house)).abs().amax(-1)[0] > 1e-5
# print([word for word, yes in zip(words, moved) if yes])

# %% [markdown]
# From *cat* on, the summaries differ. The one at *a* is the same in both sentences, so a reader
# from left to right must choose between *un* and *una* before seeing the noun. An encoder has the
# whole sentence. It should let **every** word use what comes before it *and* what comes after it.

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
# ![An encoder layer: self-attention, then feed-forward, each with a residual around it and a norm
# behind it; below, the word cat attends to every word before and after
# it](../figures/07_encoder_layer.svg)

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
# The paper's base size: a batch of 64 sentences of 8 tokens, 512 features, 8 heads of 64, 512 →
# 2048 → 512, 6 layers. Which shape comes out of each part?

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
#
# encoder = Encoder(n_layers=6, d_model=512, n_heads=8, d_ff=2048)
# x = torch.randn(64, 8, 512)
# layer = encoder.layers[0]
# weights = head_weights(layer.self_attention, x, x)
#
# print("who attends to whom", *weights.shape, "(sentence, head, query, key)")
# print("inside feed-forward", *layer.feed_forward.w_1(x).shape)
# print("after one layer    ", *layer(x).shape)
# print("after all six      ", *encoder(x).shape)

# %% [markdown]
# `(64, 8, 512)` in and `(64, 8, 512)` out, so any number of layers can be stacked. One sentence of
# $t$ tokens goes from `(t, 512)` to `(t, 512)`, whatever its length. The result is called the
# **memory**; the decoder will attend to it.

# %% [markdown]
# ### Past and future
#
# Now give the encoder the two sentences that defeated the running average, with *cat* and with
# *house*: which outputs change? Then replace each word in turn.

# %% tags=["active-ipynb"]
# moved = (encoder(cat) - encoder(house)).abs().amax(-1)[0] > 1e-5
# print([word for word, yes in zip(words, moved) if yes])
#
# replaced = [" ".join([*words[:j], "house", *words[j + 1 :]]) for j in range(7)]
# outputs = torch.cat([encoder(embed(sentence)) for sentence in replaced])
# moved = (outputs - encoder(cat)).abs().amax(-1) > 1e-5
# print("word replaced × output that moved:", *moved.shape, "· all of them:", moved.all().item())

# %% [markdown]
# Each of the seven words affects each of the seven outputs, also those before it. An encoder may do
# this because the whole source is known from the start. Chapter 8 will have to forbid it: a decoder
# that sees the next word has nothing left to predict.

# %% [markdown]
# ### Padding is invisible
#
# In a batch, short sentences are filled up with `<pad>`. Without a mask these are words like any
# other, and every word attends to them. The mask hides **keys**: each sentence has one row, which
# all heads and all queries share, `b 1 1 k`.

# %% tags=["active-ipynb"]
# from einops import rearrange
#
# padded = embed("there is a cat on the mat <pad> <pad> <pad>")
# real = torch.tensor([[True] * 7 + [False] * 3])
# mask = rearrange(real, "b k -> b 1 1 k")
#
# torch.testing.assert_close(encoder(padded, mask)[:, :7], encoder(cat), atol=1e-4, rtol=1e-4)
# on_rows = rearrange(real, "b q -> b 1 q 1")
# for name, m in (("with the mask", mask), ("without it", None), ("mask on rows", on_rows)):
#     same = torch.allclose(encoder(padded, m)[:, :7], encoder(cat), atol=1e-4)
#     print(f"{name:13} equal to the sentence alone: {same}")

# %% [markdown]
# With the mask, the memory of a sentence does not depend on how much padding its batch needs. The
# padded positions still get an output, so cross-attention to the memory must use the same mask.
#
# The third line is a common mistake: it masks the **rows** of padding instead of the columns. Real
# words then still attend to padding, and the rows of padding are left without any key; in many
# implementations they become `nan`.

# %% [markdown]
# ### Equal to PyTorch
#
# PyTorch has this layer too. `twin_of` builds one with our weights; PyTorch keeps the three
# projections in one matrix. First give every parameter some noise, so that all norms differ.


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
# raises no error.

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
# And the whole stack: `nn.TransformerEncoder` with twins of our layers. In pre-norm it gets our
# last norm, in post-norm none.

# %% tags=["active-ipynb"]
# for residual in (PostNorm, PreNorm):
#     ours = Encoder(3, 512, 8, 2048, residual=residual)
#     for parameter in ours.parameters():
#         parameter += 0.05 * torch.randn_like(parameter)
#     twins = nn.ModuleList(twin_of(layer, residual is PreNorm) for layer in ours.layers)
#     last = nn.LayerNorm(512) if residual is PreNorm else None
#     if last is not None:
#         last.weight = ours.norm.gain
#         last.bias = ours.norm.bias
#     theirs = nn.TransformerEncoder(twins[0], 3, norm=last, enable_nested_tensor=False)
#     theirs.layers = twins
#     want = theirs(x, src_key_padding_mask=~real)
#     torch.testing.assert_close(ours(x, mask), want, atol=1e-3, rtol=1e-3)
#     last_norm = type(ours.norm).__name__
#     print(residual.__name__, "equal to nn.TransformerEncoder, last norm:", last_norm)

# %% [markdown]
# A trap: `nn.Transformer` builds its encoder with a final norm in post-norm too. The paper has none
# there, and the last layer has just normalised its output. Before training the second norm does
# nothing; after training it is one more gain and bias.

# %% tags=["active-ipynb"]
# model = nn.Transformer(512, 8, num_encoder_layers=1, num_decoder_layers=1, batch_first=True)
# print(model.encoder.norm)
#
# memory = encoder(x)
# torch.testing.assert_close(nn.LayerNorm(512)(memory), memory, atol=1e-4, rtol=1e-4)

# %% [markdown]
# ### The check
#
# `check_encoder_layer` and `check_encoder` look for what goes wrong in practice: a missing
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
# How much does each word matter for each output? Nudge one word a little, in 16 random directions,
# and measure how far every output moves. Rows are outputs, columns are the nudged words; each row
# is scaled to sum to 1.

# %% tags=["active-ipynb"]
# from einops import reduce, repeat
#
# from transformer.plotting import plot_attention
#
# nudged = repeat(cat, "1 t d -> word nudge t d", word=7, nudge=16).clone()
# nudged[range(7), :, range(7)] += 0.1 * torch.randn(7, 16, 512)
# y = rearrange(nudged, "word nudge t d -> (word nudge) t d")
# z = cat
# shares = []
# for layer in encoder.layers:
#     y = layer(y)
#     z = layer(z)
#     distance = reduce((y - z).norm(dim=-1), "(word nudge) out -> out word", "mean", word=7)
#     shares.append(distance / distance.sum(-1, keepdim=True))
#
# depths = (1, 2, 4, 6)
# titles = [f"after layer {n}" for n in depths]
# plot_attention([shares[n - 1] for n in depths], queries=words, keys=words, title=titles)

# %% [markdown]
# After one layer every output depends most on its own word: the residual carries it. With each
# layer the other words count for more, from the left and from the right, until an output's own word
# counts hardly more than any other. The weights are random here: the connections exist from the
# start, and training decides which of them matter.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | "a stack of N = 6 identical layers" (section 3.1) | `n_layers`, each with weights of its own | identical in form, not in weights |
# | $\operatorname{LayerNorm}(x + \operatorname{Sublayer}(x))$, nothing after the last layer | the same: `PostNorm`, the default | `nn.Transformer` adds a norm that the paper does not have |
# | | `PreNorm` as a switch, with a norm at the end | deep stacks train more easily (chapter 5) |
# | does not mention padding | a mask over keys, `b 1 1 k` | sentences of a batch differ in length |

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
# The encoder has read the source. [Chapter 8](08_decoder.ipynb) writes the target, and must not
# look ahead.
