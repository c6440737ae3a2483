# %% [markdown]
r"""
# 8 · Decoder with masking

**It writes one word after another, but learns all of them at once: a mask hides what comes next.**

![The architecture; the decoder, N layers of 3 sublayers, is lit](../figures/architecture_08.svg)
"""

# %% [markdown]
# **What you need**: [chapter 7](07_encoder.ipynb), for the layer and the memory;
# [chapter 3](03_attention.ipynb), for what a mask does. About 45 minutes. In the paper:
# [section 3.1](https://arxiv.org/abs/1706.03762) and section 3.2.3.
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/08_decoder.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/08_decoder.ipynb).
#
# **What you will be able to do**
#
# - write the causal mask and the decoder layer, and join the two masks of a batch;
# - explain why one pass in training gives a prediction at every position;
# - recognise a leaking mask, whose loss is excellent and whose translations are wrong.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

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
# Test it on random digits, which **nothing** can predict. The loss is $-\ln$ of the probability
# that the model gives to the right digit (*cross-entropy*, chapter 11), so an honest model gets
# $\ln 10 = 2.30$ on average. What will this one get at its eight positions?

# %% tags=["active-ipynb"]
# import torch.nn.functional as F
#
# from transformer.embeddings import TokenEmbedding
# from transformer.encoder import EncoderLayer
# from transformer.positional_encoding import PositionalEncoding
#
# torch.set_printoptions(precision=2, sci_mode=False)
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
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
#         logits = to_logits(layer(embed(digits[:, :-1]), mask))
#         losses = F.cross_entropy(logits.mT, digits[:, 1:], reduction="none").mean(0)
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
# When a decoder writes, it is always at that last position, so this model could only guess.
# Position $i$ must not see what comes after it.

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
# $e^{-\infty} = 0$. Row 2, the third, keeps $1, 2, 3$ and divides by $6$: $0.17, 0.33, 0.50$, and
# exactly $0$ for the word to come. The masked score is absent from the sum in the denominator too;
# that is why the mask comes *before* the softmax. Compare the first three rows with a sentence of
# three words:

# %% tags=["active-ipynb"]
# three = masked[:3, :3].softmax(-1)
# print(three)
# torch.testing.assert_close(three, masked.softmax(-1)[:3, :3])

# %% [markdown]
# The numbers are the same: for row 2 the fourth word does not exist. With the
# triangle, a sentence of four words holds four training examples, its beginnings of length 1 to 4,
# each with its next word. One pass serves **all positions at once**; a recurrent network goes step
# by step.

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

# %% [markdown]
# In the running example, the decoder reads the right translations, each after a start token `<s>`,
# and must write the next token at every position. The second sentence is padded. Which keys may
# *molto* use, and which `</s>`?

# %% tags=["active-ipynb"]
# from transformer.example import after, example_batch, tokens
# from transformer.plotting import plot_mask
#
# batch = example_batch()
# tgt = batch.decoder_input
# causal = causal_mask(8)
# padding = padding_mask(tgt, pad_id=0)
# tgt_mask = causal & padding
#
# print("causal", *causal.shape, "· padding", *padding.shape, "· both", *tgt_mask.shape)
# read = tokens(tgt)
# plot_mask(tgt_mask[0, 0], queries=read[0], keys=read[0])
# plot_mask(tgt_mask[1, 0], queries=read[1], keys=read[1])

# %% [markdown]
# Read by rows: *molto* may attend to `<s>`, *ti*, *amo* and itself, and `</s>` to these and itself.
# The rows of `<pad>` are not empty, but the loss ignores their outputs. When padding stands at the
# end, the triangle alone already hides it from the words. The second mask works wherever the
# padding stands.

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
# ![A decoder layer: masked self-attention, cross-attention with keys and values from the memory, feed-forward; three residuals](../figures/08_decoder_layer.svg)


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
# ### The running example
#
# Load the trained decoder. It starts from the embedded target, to which chapters 1 and 2 have been
# applied, and from the memory of chapter 7, `after(7)`. Its result is `after(8)`, the **decoder
# states**.

# %% tags=["active-ipynb"]
# from transformer.example import example_model, weights
#
# decoder = Decoder(n_layers=2, d_model=24, n_heads=4, d_ff=48).requires_grad_(False)
# decoder.load_state_dict(weights("decoder"))
# embed = example_model().embed  # chapters 1 and 2
# x = embed(tgt)
# memory = after(7)
# src_mask = padding_mask(batch.src, pad_id=0)
#
# states = decoder(x, memory, tgt_mask, src_mask)
# torch.testing.assert_close(states, after(8))
# print("x", *x.shape, "· memory", *memory.shape, "→ states", *states.shape)

# %% [markdown]
# At the paper's base size: 64 targets of 8 tokens, and a memory of 7, so that the two lengths
# differ. In cross-attention, which side has 8 and which has 7?

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
#
# torch.manual_seed(0)
# base = Decoder(n_layers=6, d_model=512, n_heads=8, d_ff=2048).requires_grad_(False)
# wide_x = torch.randn(64, 8, 512)
# wide_memory = torch.randn(64, 7, 512)
#
# cross = base.layers[0].cross_attention
# keys, values = cross.project_kv(wide_memory)
# out = base(wide_x, wide_memory, causal_mask(8))
# print("queries, from the decoder", *cross.split_heads(cross.w_q(wide_x)).shape, "b h q d_head")
# print("keys,    from the memory ", *keys.shape, "b h k d_head")
# print("values,  from the memory ", *values.shape, "b h k d_head")
# print("weights, target × source ", *head_weights(cross, wide_x, wide_memory).shape, "b h q k")
# print("after all six layers     ", *out.shape, "b t d_model")

# %% [markdown]
# There is a row for each **target** token and a column for each **source** token; their numbers may
# differ. The source has no future to hide, so every target position may attend to all of it.

# %% [markdown]
# ### Future tokens do not leak
#
# Replace the eight target tokens of the first sentence one at a time by *cane* (dog), and see which
# states of the trained decoder change. Rows are states, columns are replaced tokens. Which shape
# will the ones have?

# %% tags=["active-ipynb"]
# from transformer.example import example_tokenizer
#
# cane = example_tokenizer().token_to_id("▁cane")
# replaced = embed(tgt[:1].repeat(8, 1).fill_diagonal_(cane))
#
#
# def moved_by_each_token(stack, mask):
#     change = stack(replaced, memory[:1].expand(8, -1, -1), mask) - stack(x[:1], memory[:1], mask)
#     return rearrange(change.abs().amax(-1) > 1e-5, "token t -> t token")
#
#
# moved = moved_by_each_token(decoder, causal_mask(8))
# print(moved.int())
# assert torch.equal(moved, causal_mask(8))

# %% [markdown]
# Measured from outside, the dependence *is* the triangle, also through both layers, because all
# layers have the same mask. And the source? Replace *cat* by *dog*, and every state changes:

# %% tags=["active-ipynb"]
# src = batch.src[:1].clone()
# src[0, 3] = example_tokenizer().token_to_id("▁dog")
# change = decoder(x[:1], example_model().encode(src), causal_mask(8)) - states[:1]
# (change.abs().amax(-1) > 1e-5)[0].tolist()

# %% [markdown]
# ### One pass equals eight
#
# By hand, the triangle of four contained the one of three. Now the whole decoder: give it 1 token,
# then 2, then 3 …, take the last state each time, and compare with the single pass over all eight.

# %% tags=["active-ipynb"]
# for t in range(1, 9):
#     alone = decoder(x[:1, :t], memory[:1], causal_mask(t))
#     torch.testing.assert_close(alone[0, -1], states[0, t - 1], atol=1e-4, rtol=1e-4)
# print("positions computed: one pass", 8, "· eight passes", sum(range(1, 9)))

# %% [markdown]
# So training gets eight predictions from one pass, exactly those that the decoder would make token
# by token if it had written the right ones. In translation it must go step by step (chapter 12).

# %% [markdown]
# ### Equal to PyTorch
#
# `torch_decoder` builds PyTorch's decoder with our weights, by the method of chapter 7. Its masks
# have the opposite polarity: `True` means *hide*. We add noise, so that all norms differ, and hide
# two source tokens:

# %% tags=["active-ipynb"]
# from transformer.checks.twins import torch_decoder
# from transformer.residual_norm import PreNorm
#
# real = torch.arange(7)[None].expand(64, 7) < 5
# hidden = dict(tgt_mask=~causal_mask(8), memory_key_padding_mask=~real)
# for residual in (PostNorm, PreNorm):
#     ours = Decoder(3, 512, 8, 2048, residual=residual)
#     for parameter in ours.parameters():
#         parameter.data += 0.05 * torch.randn_like(parameter)
#     theirs = torch_decoder(ours, norm_first=residual is PreNorm)
#     got = ours(wide_x, wide_memory, causal_mask(8), rearrange(real, "b k -> b 1 1 k"))
#     want = theirs(wide_x, wide_memory, **hidden)
#     torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)
#     last_norm = type(ours.norm).__name__
#     print(residual.__name__, "equal to nn.TransformerDecoder, last norm:", last_norm)

# %% [markdown]
# ### Nothing left to copy
#
# The random digits once more, with the triangle. No position can do better than $\ln 10 = 2.30$,
# apart from luck in a single batch:

# %% tags=["active-ipynb"]
# print("loss above 2.2:", (loss_at_each_position(causal_mask(8)) > 2.2).tolist())

# %% [markdown]
# The higher loss belongs to the better model: each position knows only what it will know in
# translation.
#
# **A mask that is dropped in `eval()`** undoes this. Suppose the triangle is used only in training,
# because generation "has no future". Then every loss that is measured in `eval()` is too good to be
# true:

# %% tags=["active-ipynb"]
# layer = decoder.layers[0]
# for mode in ("train", "eval"):
#     layer.train(mode == "train")
#     moved = moved_by_each_token(layer, causal_mask(8) if layer.training else None)
#     print(f"{mode:5} the last token moves the first state:", moved[0, 7].item())

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
# Where does the trained decoder look in the source while it writes? Here are the cross-attention
# weights of its second layer, averaged over the four heads. A row is named by the token that was
# just read and the one to write. Which words will *un* and *sul* come from?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_attention
#
# first, second = decoder.layers
# y = first(x, memory, tgt_mask, src_mask)
# y = second.residuals[0](y, lambda y: second.self_attention(y, y, tgt_mask))
# looks = head_weights(second.cross_attention, y, memory, src_mask).mean(1)[0]
#
# rows = [f"{old} → {new}" for old, new in zip(read[0], tokens(batch.labels)[0])]
# columns = tokens(batch.src)[0]
# plot_attention(looks, queries=rows, keys=columns, title="Where the second layer looks")

# %% [markdown]
# *Gatto* comes from *cat* and *tappeto* from *mat*; the first three tokens, *c'è*, come from *there
# is*. *Un* looks at *a* and even more at *cat*, and *sul* at *on* and at *mat*: the nouns decide
# the gender. The model learned this alignment from pairs of sentences alone. (Chapter 12 shows the
# map for sentences that the model translates by itself.)

# %% [markdown]
# ## What if
#
# What if the mask leaks? Take a task with a known answer: write five tokens **backwards**. The
# memory is the embedded source itself; the target follows a start token. Three models of one
# decoder layer each learn it: one with the triangle, one without a mask, and one with the triangle
# in PyTorch's polarity, an **inverted mask**, which shows each position *only* the future. The
# seeds, first weights and batches are the same. In training we watch the loss; then each model
# writes 200 sentences token by token.


# %% tags=["active-ipynb"]
# def train(make_mask, seed):
#     torch.manual_seed(seed)
#     embed = nn.Sequential(TokenEmbedding(8, 32), PositionalEncoding(32, max_len=5))
#     layer = DecoderLayer(32, 1, 64)
#     to_logits = nn.Linear(32, 8)
#     optimizer = torch.optim.Adam(nn.ModuleList([embed, layer, to_logits]).parameters(), lr=5e-3)
#
#     def decode(src, tgt):
#         return to_logits(layer(embed(tgt), embed(src), make_mask(tgt.shape[1])))
#
#     curve = []
#     for _ in range(120):
#         src = torch.randint(1, 8, (64, 5))
#         backwards = src.flip(1)
#         given = F.pad(backwards[:, :-1], (1, 0))  # the start token, 0, and all but the last
#         loss = F.cross_entropy(decode(src, given).mT, backwards)
#         optimizer.zero_grad()
#         loss.backward()
#         optimizer.step()
#         curve.append(loss.detach())
#     src = torch.randint(1, 8, (200, 5))
#     written = torch.zeros(200, 1, dtype=torch.long)
#     for _ in range(5):
#         written = torch.cat([written, decode(src, written)[:, -1:].argmax(-1)], dim=1)
#     return torch.stack(curve), (written[:, 1:] == src.flip(1)).all(1).float().mean()

# %% [markdown]
# Which of the three will have the lowest loss, and which will write the most sentences right?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_bars, plot_lines
#
# variants = {
#     "causal mask": causal_mask,
#     "no mask": lambda t: None,
#     "inverted mask": lambda t: ~causal_mask(t),
# }
# curves = {}
# right = {}
# for name, make_mask in variants.items():
#     runs = [train(make_mask, seed) for seed in range(3)]
#     curves[name] = torch.stack([curve for curve, _ in runs])
#     right[name] = torch.stack([share for _, share in runs])
#
# early = {name: runs[:, 40:50].mean(1) for name, runs in curves.items()}
# assert early["inverted mask"].max() < early["causal mask"].min()
# assert right["causal mask"].min() > 0.9 and right["inverted mask"].max() < 0.1
# assert right["no mask"].mean() < 0.8
#
# means = {name: runs.mean(0) for name, runs in curves.items()}
# plot_lines(means, xlabel="step", ylabel="loss", title="Write backwards: training, 3 seeds")
# shares = {name: round(share.mean().item(), 2) for name, share in right.items()}
# plot_bars(shares, ylabel="share of sentences", title="Written right, token by token")

# %% [markdown]
# The inverted mask has the lowest loss from the start and writes nothing right: its layer learned
# to copy the next token, which is not there when it writes. Without a mask, a layer can copy or
# read the source, and the seed decides which it learns first: from the three seeds, one model
# writes nothing right and another many sentences. No error is raised, and no loss shows the
# mistake; only writing does.
#
# (With the inverted mask the last query has no key. Here it gets zeros; elsewhere it gets `nan`, or
# an even mix of all values where $-10^9$ stands for $-\infty$.)

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 8.1 | The causal mask | write the block | 5 | ★☆☆ |
# | 8.2 | A layer of the decoder | write the block | 25 | ★★☆ |
# | 8.3 | How far does a word reach? | predict, then run | 10 | ★☆☆ |
# | 8.4 | Too good to be true | find the bug | 15 | ★★☆ |
# | 8.5 | A test that finds a leak | write the test | 25 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 8` says what is wrong, and `course hint 8.1` gives a hint.

# %% [markdown]
# ## Summary
#
# A decoder layer is masked self-attention, cross-attention to the memory, and feed-forward, each
# with a residual and a norm. The causal mask lets a position see itself and the past, so one pass
# over the right target makes every prediction that the decoder would make step by step. A mask that
# leaks makes the loss better and the translations worse, so test it by its effect.
#
# **Write it from memory**: close the chapter and write `causal_mask` and `DecoderLayer`;
# `check_causal_mask(causal_mask)` and `check_decoder_layer(DecoderLayer)` say whether they are
# right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | three sublayers: masked self-attention, attention over the encoder's output, feed-forward ([section 3.1](https://arxiv.org/abs/1706.03762)) | the same, in this order | |
# | masks by "setting to $-\infty$" (section 3.2.3) | boolean, `True` = may attend | made in one place, received by the layers |
# | position $i$ depends on outputs "at positions less than $i$" (section 3.1) | $k \le q$, and the target shifted by one | input $i$ *is* output $i - 1$ (chapter 10) |
# | does not mention padding | `padding_mask`, over keys | sentences of a batch differ in length |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | memory, from the encoder | `b k d_model` | (2, 8, 24) | (64, 8, 512) |
# | causal and padding mask | `b 1 t t` | (2, 1, 8, 8) | (64, 1, 8, 8) |
# | self-attention weights | `b h t t` | (2, 4, 8, 8) | (64, 8, 8, 8) |
# | cross-attention weights | `b h t k` | (2, 4, 8, 8) | (64, 8, 8, 8) |
# | target embeddings + positions → decoder states | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
#
# All the blocks are there. [Chapter 9](09_model.ipynb) puts them together.
