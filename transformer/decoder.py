# %% [markdown]
r"""
# 8 · Decoder with masking

**It writes one word after another, but learns all of them at once: a mask hides what comes next.**

![The architecture; the decoder, N layers of 3 sublayers, is lit](../figures/architecture_08.svg)
"""

# %%
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.feed_forward import FeedForward
from transformer.multi_head import MultiHeadAttention
from transformer.residual_norm import PostNorm

# %% [markdown]
# ## The question
#
# A decoder writes from left to right: it predicts the next word from the words so far. In training
# it gets a whole sentence, and position $i$ predicts word $i + 1$. Chapter 7 has a layer that reads
# whole sentences. Can it be trained to write?
#
# Test it on random digits, which **nothing** can predict: at best, the loss is $\ln 10 = 2.30$.

# %% tags=["active-ipynb"]
# import torch.nn.functional as F
#
# from transformer.embeddings import TokenEmbedding
# from transformer.encoder import EncoderLayer
# from transformer.positional_encoding import PositionalEncoding
#
# torch.set_printoptions(precision=2, sci_mode=False)
# torch.set_num_threads(1)  # many small products are faster on one thread
#
#
# def loss_at_each_position(mask):
#     torch.manual_seed(0)
#     embed = nn.Sequential(TokenEmbedding(10, 64), PositionalEncoding(64, max_len=16))
#     layer = EncoderLayer(64, 4, 128)
#     to_logits = nn.Linear(64, 10)
#     optimizer = torch.optim.Adam(nn.ModuleList([embed, layer, to_logits]).parameters(), lr=3e-3)
#     for _ in range(150):
#         digits = torch.randint(10, (64, 9))
#         logits = rearrange(to_logits(layer(embed(digits[:, :-1]), mask)), "b t v -> b v t")
#         losses = F.cross_entropy(logits, digits[:, 1:], reduction="none").mean(0)
#         optimizer.zero_grad()
#         losses.mean().backward()
#         optimizer.step()
#     return losses.detach()

# %% tags=["active-ipynb"]
# unmasked = loss_at_each_position(mask=None)
# print("loss below 0.1:", (unmasked < 0.1).tolist())

# %% [markdown]
# Seven positions predict random digits almost perfectly. They **copy**: the answer for position $i$
# stands in the input, at $i + 1$. Only the last position has nothing after it to copy.
#
# When a decoder writes, it is always at that last position. This model has learned to cheat and
# would write noise. Position $i$ must not see what comes after it.

# %% [markdown]
# ## By hand
#
# Take four words, and for every query the same four scores: the logarithms of 1, 2, 3 and 4, so
# that $e^{\text{score}}$ is a whole number. Put $-\infty$ wherever the key comes after the query.
# The allowed scores form a **triangle**:

# %% tags=["active-ipynb"]
# scores = torch.tensor([1.0, 2.0, 3.0, 4.0]).log().expand(4, 4)
# triangle = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
#
# masked = scores.masked_fill(~triangle, float("-inf"))
# print(masked.exp().round(decimals=3))
# print(masked.softmax(-1))

# %% [markdown]
# $e^{-\infty} = 0$. Row 2 keeps $1, 2, 3$ and divides by $6$: $0.17, 0.33, 0.50$, and exactly $0$
# for the word to come. The masked score is absent from the sum in the denominator too; that is why
# the mask comes *before* the softmax. Compare the first three rows with a sentence of three words:

# %% tags=["active-ipynb"]
# three = masked[:3, :3].softmax(-1)
# print(three)
# torch.testing.assert_close(three, masked.softmax(-1)[:3, :3])

# %% [markdown]
# The numbers are the same: for row 2 the fourth word does not exist. With the triangle, a sentence
# of four words holds four training examples, its beginnings of length 1 to 4, each with its next
# word. One pass serves **all positions at once**; a recurrent network goes step by step.

# %% [markdown]
# ## The definition
#
# The triangle: query $q$ may attend to key $k$ if $k \le q$, so a word may attend to **itself**.


# %% tags=["exercise"]
def causal_mask(t: int, device: torch.device | None = None) -> Bool[Tensor, "q k"]:
    """Return the causal mask of t positions: True where key ≤ query.

    Source: Vaswani et al. 2017, section 3.2.3.
    """
    return torch.ones(t, t, dtype=torch.bool, device=device).tril()


# %% [markdown]
# The second mask hides padding as a key: one row for each sentence, for all heads and queries.


# %%
def padding_mask(ids: Int[Tensor, "b t"], pad_id: int) -> Bool[Tensor, "b 1 1 t"]:
    """Return the padding mask: True where the key is not padding, for every head and query."""
    return rearrange(ids != pad_id, "b t -> b 1 1 t")


# %% [markdown]
# A key must pass both, so they are joined by `&`; broadcasting makes one `b 1 q k` of the two.
#
# ![The causal triangle and the padding of each sentence, joined](../figures/08_masks.svg)

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_mask
#
# sentences = ["<s> c'è un gatto sul tappeto".split(), "<s> ti amo molto <pad> <pad>".split()]
# ids = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 7, 8, 9, 0, 0]])  # 0 is <pad>, 1 is <s>
# causal = causal_mask(6)
# padding = padding_mask(ids, pad_id=0)
# both = causal & padding
#
# print("causal", *causal.shape, "· padding", *padding.shape, "· both", *both.shape)
# plot_mask(both[0, 0], queries=sentences[0], keys=sentences[0])
# plot_mask(both[1, 0], queries=sentences[1], keys=sentences[1])

# %% [markdown]
# Read by rows: *molto* may attend to `<s>`, *ti*, *amo* and itself. The rows of `<pad>` are not
# empty, but the loss ignores their outputs. When padding stands at the end, the triangle alone
# already hides it from the words. The second mask works wherever the padding stands.

# %% [markdown]
# ### The layer
#
# Between self-attention and feed-forward there is a third sublayer, **cross-attention**: queries
# come from the decoder, keys and values from the encoder's memory $m$.
#
# $$\begin{aligned}
# y &= \operatorname{LayerNorm}(x + \operatorname{SelfAttention}(x)) && \text{masked} \\
# z &= \operatorname{LayerNorm}(y + \operatorname{CrossAttention}(y, m)) \\
# \operatorname{Layer}(x, m) &= \operatorname{LayerNorm}(z + \operatorname{FeedForward}(z))
# \end{aligned}$$
#
# ![A decoder layer: masked self-attention, cross-attention with keys and values from the memory,
# feed-forward; three residuals](../figures/08_decoder_layer.svg)


# %% tags=["exercise"]
class DecoderLayer(nn.Module):
    """Apply self-attention, cross-attention and feed-forward, each with its residual and norm.

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
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.residuals = nn.ModuleList(residual(d_model, dropout) for _ in range(3))

    def forward(
        self,
        x: Float[Tensor, "b t d_model"],
        memory: Float[Tensor, "b k d_model"],
        tgt_mask: Bool[Tensor, "... #t #t"] | None = None,
        src_mask: Bool[Tensor, "... #t #k"] | None = None,
    ) -> Float[Tensor, "b t d_model"]:
        """Return a new vector for each position; the masks are for self- and cross-attention."""
        residual_1, residual_2, residual_3 = self.residuals
        y = residual_1(x, lambda x: self.self_attention(x, x, tgt_mask))
        z = residual_2(y, lambda y: self.cross_attention(y, memory, src_mask))
        return residual_3(z, self.feed_forward)


# %% [markdown]
# The decoder stacks these layers. All attend to the same memory, with projections of their own.


# %%
class Decoder(nn.Module):
    """Apply a stack of n_layers decoder layers, all of which attend to the same memory."""

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
            DecoderLayer(d_model, n_heads, d_ff, dropout, residual) for _ in range(n_layers)
        )
        self.norm = residual.final(d_model)

    def forward(
        self,
        x: Float[Tensor, "b t d_model"],
        memory: Float[Tensor, "b k d_model"],
        tgt_mask: Bool[Tensor, "... #t #t"] | None = None,
        src_mask: Bool[Tensor, "... #t #k"] | None = None,
    ) -> Float[Tensor, "b t d_model"]:
        """Return the decoder states, from which the next tokens are predicted."""
        for layer in self.layers:
            x = layer(x, memory, tgt_mask, src_mask)
        return self.norm(x)


# %% [markdown]
# ## The proof
#
# The paper's base size: 64 targets of 8 tokens, and a memory of 7, for *there is a cat on the mat*.
# In cross-attention, which side has 8 and which has 7?

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
#
# torch.manual_seed(0)
# decoder = Decoder(n_layers=6, d_model=512, n_heads=8, d_ff=2048)
# x = torch.randn(64, 8, 512)
# memory = torch.randn(64, 7, 512)
#
# cross = decoder.layers[0].cross_attention
# keys, values = cross.project_kv(memory)
# print("queries, from the decoder", *cross.split_heads(cross.w_q(x)).shape, "b h q d")
# print("keys,    from the memory ", *keys.shape, "b h k d")
# print("values,  from the memory ", *values.shape, "b h k d")
# print("weights, target × source ", *head_weights(cross, x, memory).shape, "b h q k")
# print("out of the six layers    ", *decoder(x, memory, causal_mask(8)).shape, "b t d")

# %% [markdown]
# There is a row for each **target** word and a column for each **source** word; their numbers may
# differ. The source has no future to hide, so every target position may attend to all of it.

# %% [markdown]
# ### Future tokens do not leak
#
# Replace the target words one at a time, and see which outputs of the six layers change. Rows are
# outputs, columns are replaced words.

# %% tags=["active-ipynb"]
# x = torch.randn(1, 7, 512)
# memory = torch.randn(1, 7, 512)
#
#
# def moved_by_each_word(decode):
#     replaced = x.repeat(7, 1, 1)
#     replaced[range(7), range(7)] = torch.randn(7, 512)
#     moved = (decode(replaced, memory.repeat(7, 1, 1)) - decode(x, memory)).abs().amax(-1) > 1e-4
#     return rearrange(moved, "word out -> out word")
#
#
# moved = moved_by_each_word(lambda x, memory: decoder(x, memory, causal_mask(7)))
# print(moved.int())
# assert torch.equal(moved, causal_mask(7))

# %% [markdown]
# Measured from outside, the dependence *is* the triangle, also through six layers: all have the
# same mask. And the source? One word of the memory changes all target positions:

# %% tags=["active-ipynb"]
# other = memory.clone()
# other[:, 3] = torch.randn(512)
# change = decoder(x, other, causal_mask(7)) - decoder(x, memory, causal_mask(7))
# (change.abs().amax(-1) > 1e-4)[0].tolist()

# %% [markdown]
# ### One pass equals seven
#
# By hand, the triangle of four contained the one of three. Now the whole decoder: give it 1 word,
# then 2, then 3 …, take the last output each time, and compare with a single pass over all seven.

# %% tags=["active-ipynb"]
# together = decoder(x, memory, causal_mask(7))
#
# for t in range(1, 8):
#     alone = decoder(x[:, :t], memory, causal_mask(t))
#     torch.testing.assert_close(alone[:, -1], together[:, t - 1], atol=1e-4, rtol=1e-4)
# print("positions computed: one pass", 7, "· seven passes", sum(range(1, 8)))

# %% [markdown]
# So training gets seven predictions from one pass, exactly those that the decoder would make word
# by word, since the right words are known. In translation it must go step by step (chapter 12).

# %% [markdown]
# ### Equal to PyTorch
#
# `torch_decoder` builds PyTorch's decoder with our weights, by the method of chapter 7. Its masks
# have the opposite polarity: `True` means *hide*. We add noise, and hide two source words:

# %% tags=["active-ipynb"]
# from transformer.checks.twins import torch_decoder
#
# for parameter in decoder.parameters():
#     parameter.data += 0.05 * torch.randn_like(parameter)
# real = torch.arange(7)[None] < 5
# hidden = dict(tgt_mask=~causal_mask(7), memory_key_padding_mask=~real)
# theirs = torch_decoder(decoder)(x, memory, **hidden)
# ours = decoder(x, memory, causal_mask(7), rearrange(real, "b k -> b 1 1 k"))
# torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)

# %% [markdown]
# ### The cheat is over
#
# The random digits once more. With the triangle, no position can do better than $\ln 10 = 2.30$,
# apart from luck in a single batch. But pass the triangle in PyTorch's polarity, **an inverted
# mask**, and every position sees *only* the future. No error is raised:

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# causal = loss_at_each_position(causal_mask(8))
# inverted = loss_at_each_position(~causal_mask(8))
# print("causal mask,   loss above 2.2:", (causal > 2.2).tolist())
# print("inverted mask, loss below 0.1:", (inverted < 0.1).tolist())
#
# losses = {"no mask": unmasked, "inverted mask": inverted, "causal mask": causal}
# plot_lines(losses, xlabel="position", ylabel="loss", title="Random digits: two of three cheat")

# %% [markdown]
# The higher loss is the better model: each position knows only what it will know in translation.
# The other two models cheat equally well. With the inverted mask the last query has no key: here it
# gets zeros, elsewhere `nan`, or an even mix of all values where $-10^9$ stands for $-\infty$.

# %% [markdown]
# **A mask that is dropped in `eval()`** is as bad. Suppose the triangle is used only in training,
# because generation "has no future". Then the validation loss is too good to be true:

# %% tags=["active-ipynb"]
# layer = DecoderLayer(512, 8, 2048)
# for mode in ("train", "eval"):
#     layer.train(mode == "train")
#     mask = causal_mask(7) if layer.training else None
#     moved = moved_by_each_word(lambda x, memory: layer(x, memory, mask))
#     print(f"{mode:5} the last word moves the first output:", moved[0, 6].item())

# %% [markdown]
# ### The check
#
# Test a mask by its effect, in the mode in which you will use it. The checks do, and look for more:
# a triangle without its diagonal, padding on the wrong axis, cross-attention to the target itself,
# a source mask that is not passed on, a missing residual.

# %% tags=["active-ipynb"]
# from transformer.checks import (
#     check_causal_mask,
#     check_decoder,
#     check_decoder_layer,
#     check_padding_mask,
# )
#
# check_causal_mask(causal_mask)
# check_padding_mask(padding_mask)
# check_decoder_layer(DecoderLayer)
# check_decoder(Decoder)

# %% [markdown]
# ## The look
#
# What does cross-attention learn? Give one layer a task with a known answer: write the source
# **backwards**. Its memory is the embedded source itself; the target follows `<s>`, shifted by one.

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
# words = "<s> there is a cat on the mat".split()
# embed = nn.Sequential(TokenEmbedding(8, 64), PositionalEncoding(64, max_len=16))
# layer = DecoderLayer(64, 1, 128)
# to_logits = nn.Linear(64, 8)
# optimizer = torch.optim.Adam(nn.ModuleList([embed, layer, to_logits]).parameters(), lr=3e-3)
#
#
# def write(src):
#     given = F.pad(src.flip(1)[:, :-1], (1, 0))  # <s> and the target without its last word
#     x = embed(given)
#     memory = embed(src)
#     return x, memory, to_logits(layer(x, memory, causal_mask(7)))
#
#
# for _ in range(200):
#     src = torch.randint(1, 8, (64, 7))
#     loss = F.cross_entropy(rearrange(write(src)[-1], "b t v -> b v t"), src.flip(1))
#     optimizer.zero_grad()
#     loss.backward()
#     optimizer.step()
# print("loss below 0.1:", loss.item() < 0.1)

# %% [markdown]
# Now our sentence. A row shows the word just read and the one to write, a column a source word.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_attention
#
# x, memory, logits = write(torch.arange(1, 8)[None])
# written = [words[i] for i in logits[0].argmax(-1)]
# print(*written)
#
# y = layer.residuals[0](x, lambda x: layer.self_attention(x, x, causal_mask(7)))
# weights = head_weights(layer.cross_attention, y, memory)[0, 0]
# rows = [f"{read} → {word}" for read, word in zip(["<s>", *written], written)]
# plot_attention(weights, queries=rows, keys=words[1:], title="Writing backwards")

# %% [markdown]
# The layer learned from examples alone to go through the source from right to left. In chapter 12
# the same picture, from Italian to English words, shows which word was translated by which.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | three sublayers: masked self-attention, attention over the encoder's output, feed-forward (section 3.1) | the same, in this order | |
# | masks by "setting to $-\infty$" (section 3.2.3) | boolean, `True` = may attend | made in one place, received by the layers |
# | position $i$ depends on outputs "at positions less than $i$" (section 3.1) | $k \le q$, and the target shifted by one | input $i$ *is* output $i - 1$ (chapter 10) |
# | does not mention padding | `padding_mask`, over keys | sentences of a batch differ in length |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | memory, from the encoder | `b k d` | (64, 7, 512) |
# | causal and padding mask | `b 1 t t` | (64, 1, 8, 8) |
# | self-attention weights | `b h t t` | (64, 8, 8, 8) |
# | cross-attention weights | `b h t k` | (64, 8, 8, 7) |
# | target embeddings + positions → decoder states | `b t d` | (64, 8, 512) |
#
# All the blocks are there. [Chapter 9](09_model.ipynb) puts them together.
