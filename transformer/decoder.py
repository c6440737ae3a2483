# %% [markdown]
r"""
# 8 · Decoder with masking

**It writes one word after the other, but learns all of them at once: a mask hides what is still to come.**

![The architecture; the decoder, a stack of N layers of three sublayers each, is lit](../figures/architecture_08.svg)
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
# A decoder writes from left to right: given the words so far, it guesses the next. To learn, it gets a whole sentence, and
# position $i$ is asked for word $i + 1$. Chapter 7 has a layer that reads whole sentences. Can it be trained to write?
#
# Test it on random digits, which **nobody** can foresee: an honest guess has a loss of $\ln 10 = 2.30$, at every position.

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
#     embedding, positions = TokenEmbedding(10, 64), PositionalEncoding(64, max_len=16)
#     layer, guess = EncoderLayer(64, 4, 128), nn.Linear(64, 10)
#     optimizer = torch.optim.Adam([*embedding.parameters(), *layer.parameters(), *guess.parameters()], lr=3e-3)
#     for _ in range(150):
#         digits = torch.randint(10, (64, 9))
#         given, wanted = digits[:, :-1], digits[:, 1:]
#         logits = guess(layer(positions(embedding(given)), mask))
#         losses = F.cross_entropy(rearrange(logits, "b t v -> b v t"), wanted, reduction="none").mean(0)
#         optimizer.zero_grad()
#         losses.mean().backward()
#         optimizer.step()
#     return losses.detach()

# %% tags=["active-ipynb"]
# unmasked = loss_at_each_position(mask=None)
# print("loss below 0.1:", (unmasked < 0.1).tolist())

# %% [markdown]
# Seven positions foresee random digits almost perfectly. They do not guess, they **copy**: the answer of position $i$ stands
# in the input, at $i + 1$. Only the last position has nothing after it, and knows nothing.
#
# That last position is where a writer always is. This model has learned to cheat and would write noise. Position $i$ must not
# see what comes after it.

# %% [markdown]
# ## By hand
#
# Four words, and for every query the same four scores: the logarithms of 1, 2, 3 and 4, so that $e^{\text{score}}$ is a whole
# number. Put $-\infty$ wherever the key comes after the query. What is allowed forms a **triangle**:

# %% tags=["active-ipynb"]
# scores = torch.tensor([1.0, 2.0, 3.0, 4.0]).log().expand(4, 4)
# past = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
#
# masked = scores.masked_fill(~past, float("-inf"))
# print(masked.exp().round(decimals=3))
# print(masked.softmax(-1))

# %% [markdown]
# $e^{-\infty} = 0$. Row 2 keeps $1, 2, 3$ and divides by $6$: $0.17, 0.33, 0.50$, and for the word to come exactly $0$. Nothing
# of it is left, not even in the sum below the fraction; that is why one masks *before* the softmax.

# %% [markdown]
# ### All positions at once
#
# Compare the first three rows with the attention of a sentence of three words:

# %% tags=["active-ipynb"]
# three = masked[:3, :3].softmax(-1)
# print(three)
# torch.testing.assert_close(three, masked.softmax(-1)[:3, :3])

# %% [markdown]
# The same numbers. For row 2 the fourth word does not exist: behind the triangle, a sentence of four words holds the four
# beginnings of length 1, 2, 3 and 4, each with its own question *what comes next?* One pass answers them all. That is how the
# decoder learns from every word of a sentence at once, where a recurrent network takes one step after the other.

# %% [markdown]
# ## The definition
#
# The triangle: query $q$ may look at key $k$ if $k \le q$. A word may look at **itself**; it is the next one that it must guess.


# %% tags=["exercise"]
def causal_mask(t: int, device: torch.device | None = None) -> Bool[Tensor, "q k"]:
    """Return the mask that lets position q look at itself and the past: True where k ≤ q.

    Source: Vaswani et al. 2017, section 3.2.3.
    """
    return torch.ones(t, t, dtype=torch.bool, device=device).tril()


# %% [markdown]
# The second mask hides padding, as in chapter 7. It speaks of keys: one row for each sentence, the same for all heads and queries.


# %%
def padding_mask(ids: Int[Tensor, "b t"], pad_id: int) -> Bool[Tensor, "b 1 1 t"]:
    """Return the mask that hides padding from everybody: it speaks of keys, so it varies along the last axis."""
    return rearrange(ids != pad_id, "b t -> b 1 1 t")


# %% [markdown]
# A key must pass both, so they are joined by `&`; broadcasting makes one `b 1 q k` of the two.
#
# ![The causal triangle and the padding of each sentence, joined: one mask for each sentence of the batch](../figures/08_masks.svg)

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_mask
#
# sentences = ["<s> c'è un gatto sul tappeto".split(), "<s> ti amo molto <pad> <pad>".split()]
# vocabulary = ["<pad>", *dict.fromkeys(word for sentence in sentences for word in sentence if word != "<pad>")]
# ids = torch.tensor([[vocabulary.index(word) for word in sentence] for sentence in sentences])
# both = causal_mask(6) & padding_mask(ids, pad_id=0)
#
# print("causal", *causal_mask(6).shape, "· padding", *padding_mask(ids, 0).shape, "· both", *both.shape)
# plot_mask(both[0, 0], queries=sentences[0], keys=sentences[0])
# plot_mask(both[1, 0], queries=sentences[1], keys=sentences[1])

# %% [markdown]
# Read by rows: *molto* may ask `<s>`, *ti*, *amo* and itself. The rows of `<pad>` are not empty; what they compute, the loss
# ignores. When padding stands at the end, the triangle alone already hides it from the words. The second mask costs nothing,
# and holds wherever the padding stands.

# %% [markdown]
# ### The layer
#
# Between looking back and thinking there is a third sublayer, **cross-attention**: queries come from the decoder, keys and
# values from the encoder's memory $m$.
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
    """Look back at what is written, ask the source, then think: three sublayers, each with its residual.

    Source: Vaswani et al. 2017, section 3.1.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0, residual: type = PostNorm):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.residuals = nn.ModuleList(residual(d_model, dropout) for _ in range(3))

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        memory: Float[Tensor, "b k d"],
        tgt_mask: Bool[Tensor, "... #t #t"] | None = None,
        src_mask: Bool[Tensor, "... #t #k"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Return `x` refined; `tgt_mask` is for looking back, `src_mask` for asking the source."""
        look_back, ask, think = self.residuals
        x = look_back(x, lambda y: self.self_attention(y, y, tgt_mask))
        x = ask(x, lambda y: self.cross_attention(y, memory, src_mask))
        return think(x, self.feed_forward)


# %% [markdown]
# The decoder stacks them. Every layer asks the same memory, the encoder's final output, with projections of its own.


# %%
class Decoder(nn.Module):
    """A stack of n_layers decoder layers, all of which ask the same memory."""

    def __init__(
        self, n_layers: int, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0, residual: type = PostNorm
    ):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(d_model, n_heads, d_ff, dropout, residual) for _ in range(n_layers))
        self.norm = residual.final(d_model)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        memory: Float[Tensor, "b k d"],
        tgt_mask: Bool[Tensor, "... #t #t"] | None = None,
        src_mask: Bool[Tensor, "... #t #k"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Return one vector for each target position, from which the next token can be told."""
        for layer in self.layers:
            x = layer(x, memory, tgt_mask, src_mask)
        return self.norm(x)


# %% [markdown]
# ## The proof
#
# The paper's base size: 64 targets of 8 tokens, and a memory of 7, for *there is a cat on the mat*. In cross-attention, which
# side has 8 and which has 7?

# %% tags=["active-ipynb"]
# from transformer.multi_head import head_weights
#
# torch.manual_seed(0)
# decoder = Decoder(n_layers=6, d_model=512, n_heads=8, d_ff=2048)
# x, memory = torch.randn(64, 8, 512), torch.randn(64, 7, 512)
#
# cross = decoder.layers[0].cross_attention
# keys, values = cross.keys_values(memory)
# print("queries, from the decoder", *cross.split(cross.w_q(x)).shape, "(sentence, head, query, feature)")
# print("keys,    from the memory ", *keys.shape)
# print("values,  from the memory ", *values.shape)
# print("weights, who asks whom   ", *head_weights(cross, x, memory).shape, "(sentence, head, query, key)")
# print("out of the six layers    ", *decoder(x, memory, causal_mask(8)).shape)

# %% [markdown]
# A row for each **target** word, a column for each **source** word: the two sentences may differ in length. What comes out has
# the length of the target. The source has no future to hide, so every target position may look at all of it.

# %% [markdown]
# Three sublayers, three residuals. Written out, the layer is the three lines of its equation:

# %% tags=["active-ipynb"]
# layer = decoder.layers[0]
# look_back, ask, think = (residual.norm for residual in layer.residuals)
#
# y = look_back(x + layer.self_attention(x, x, causal_mask(8)))
# z = ask(y + layer.cross_attention(y, memory))
# out = think(z + layer.feed_forward(z))
#
# torch.testing.assert_close(out, layer(x, memory, causal_mask(8)))
# print(len(layer.residuals), "residuals in each of", len(decoder.layers), "layers")

# %% [markdown]
# ### Future tokens do not leak
#
# Replace the target words one at a time, and see which of the outputs move, after all six layers. Row: output, column: replaced word.

# %% tags=["active-ipynb"]
# x, memory = torch.randn(1, 7, 512), torch.randn(1, 7, 512)
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
# What was measured from outside *is* the triangle. No path leads back from the future, however many layers it might take,
# because every layer has the same triangle. And the source? One word of the memory moves all target positions:

# %% tags=["active-ipynb"]
# other = memory.clone()
# other[:, 3] = torch.randn(512)
# moved = (decoder(x, other, causal_mask(7)) - decoder(x, memory, causal_mask(7))).abs().amax(-1) > 1e-4
# moved[0].tolist()

# %% [markdown]
# ### One pass equals seven
#
# By hand the triangle of four held the one of three. For the whole decoder: give it 1 word, then 2, then 3 …, each time take the
# last output, and compare with a single pass over all seven.

# %% tags=["active-ipynb"]
# together = decoder(x, memory, causal_mask(7))
#
# for t in range(1, 8):
#     alone = decoder(x[:, :t], memory, causal_mask(t))
#     torch.testing.assert_close(alone[:, -1], together[:, t - 1], atol=1e-4, rtol=1e-4)
# print("positions computed: one pass", 7, "· seven passes", sum(range(1, 8)))

# %% [markdown]
# So training takes one pass and gets seven predictions, exactly those which the decoder would make word after word. This holds
# because in training the right words are known. When it writes by itself they are not, and it must go step by step (chapter 12).

# %% [markdown]
# ### The cheat is over
#
# The random digits of the beginning once more, now with the triangle. No position can do better than $\ln 10 = 2.30$, give or take the luck of one batch:

# %% tags=["active-ipynb"]
# causal = loss_at_each_position(causal_mask(8))
# print("loss above 2.2:", (causal > 2.2).tolist())

# %% [markdown]
# Every position is now in the writer's place, and honest. The higher loss is the better model.

# %% [markdown]
# ### Equal to PyTorch
#
# The twin takes our weights, as in chapter 7; now there are two attentions and three norms.


# %% tags=["active-ipynb"]
# def twin_of(layer, norm_first):
#     twin = nn.TransformerDecoderLayer(512, 8, 2048, dropout=0.0, batch_first=True, norm_first=norm_first)
#     for ours, theirs in ((layer.self_attention, twin.self_attn), (layer.cross_attention, twin.multihead_attn)):
#         theirs.in_proj_weight = nn.Parameter(torch.cat([ours.w_q.weight, ours.w_k.weight, ours.w_v.weight]))
#         theirs.in_proj_bias = nn.Parameter(torch.cat([ours.w_q.bias, ours.w_k.bias, ours.w_v.bias]))
#         theirs.out_proj = ours.w_o
#     twin.linear1, twin.linear2 = layer.feed_forward.w_1, layer.feed_forward.w_2
#     for norm, residual in zip((twin.norm1, twin.norm2, twin.norm3), layer.residuals):
#         norm.weight, norm.bias = residual.norm.gain, residual.norm.bias
#     return twin

# %% [markdown]
# Three masks, all in the opposite polarity there: `True` means *hide*. Targets of 3 to 8 words, sources of 3 to 7:

# %% tags=["active-ipynb"]
# from transformer.residual_norm import PreNorm
#
# x, memory = torch.randn(64, 8, 512), torch.randn(64, 7, 512)
# tgt = (torch.arange(8) < torch.randint(3, 9, (64, 1))).long()  # 1 is a word, 0 padding
# src = (torch.arange(7) < torch.randint(3, 8, (64, 1))).long()
#
# for residual in (PostNorm, PreNorm):
#     layer = DecoderLayer(512, 8, 2048, residual=residual)
#     for parameter in layer.parameters():
#         parameter.data += 0.05 * torch.randn_like(parameter)
#     theirs = twin_of(layer, norm_first=residual is PreNorm)(
#         x, memory, tgt_mask=~causal_mask(8), tgt_key_padding_mask=tgt == 0, memory_key_padding_mask=src == 0
#     )
#     ours = layer(x, memory, causal_mask(8) & padding_mask(tgt, 0), padding_mask(src, 0))
#     torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
#     print(residual.__name__, "equal to nn.TransformerDecoderLayer, shape", *theirs.shape)

# %% [markdown]
# ### Three mistakes
#
# **An inverted mask.** Pass the triangle in PyTorch's polarity, and every position sees *only* the future. No error is raised, and
# the training loss looks splendid:

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# inverted = loss_at_each_position(~causal_mask(8))
# print("loss below 0.1:", (inverted < 0.1).tolist())
#
# plot_lines(
#     {"no mask": unmasked, "inverted mask": inverted, "causal mask": causal},
#     xlabel="position",
#     ylabel="loss",
#     title="Guessing random digits: only one of the three is honest",
# )

# %% [markdown]
# The lines of *no mask* and *inverted mask* lie on top of each other: both cheat, equally well. With the inverted mask the last
# query has no key at all; here that gives zeros, elsewhere `nan`, or an even mix of all keys where $-10^9$ stands for $-\infty$.

# %% [markdown]
# **A mask on rows instead of columns.** Padding must be hidden *as a key*. Take the second sentence of the batch above, with
# equal scores; *ti* has six keys, two of them padding:

# %% tags=["active-ipynb"]
# from transformer.attention import attention_weights
#
# alike = torch.zeros(6, 8)
# on_columns = rearrange(ids[1] != 0, "t -> 1 t")
# on_rows = rearrange(ids[1] != 0, "t -> t 1")
#
# for name, mask in (("on columns", on_columns), ("on rows", on_rows)):
#     print(f"{name:10} · ti asks:", attention_weights(alike, alike, mask)[1])

# %% [markdown]
# On rows, *ti* still gives two of six parts to padding, and the rows of padding are left without any key; in many
# implementations they become `nan`.

# %% [markdown]
# **A mask that is dropped in `eval()`.** Some code builds the triangle only in training, since generation "has no future". Then the
# validation loss is a cheat:


# %% tags=["active-ipynb"]
# class Forgetful(DecoderLayer):
#     def forward(self, x, memory, tgt_mask=None, src_mask=None):
#         return super().forward(x, memory, tgt_mask if self.training else None, src_mask)
#
#
# x, memory = torch.randn(1, 7, 512), torch.randn(1, 7, 512)
# layer = Forgetful(512, 8, 2048)
# for mode in ("train", "eval"):
#     layer.train(mode == "train")
#     moved = moved_by_each_word(lambda x, memory: layer(x, memory, causal_mask(7)))
#     print(f"{mode:5} the last word moves the first output:", moved[0, 6].item())

# %% [markdown]
# Test a mask by what it does, and in the mode in which you will use it.

# %% [markdown]
# ### The check
#
# The checks try these mistakes and others: a triangle without its diagonal, padding on the wrong axis, cross-attention that
# asks the target itself, a source mask that is not handed on, a missing residual.

# %% tags=["active-ipynb"]
# from transformer.checks import check_causal_mask, check_decoder, check_decoder_layer, check_padding_mask
#
# check_causal_mask(causal_mask)
# check_padding_mask(padding_mask)
# check_decoder_layer(DecoderLayer)
# check_decoder(Decoder)

# %% [markdown]
# ## The look
#
# What does cross-attention do once it has learned something? Give one layer a task with a known answer: write the source
# **backwards**. Its memory is the embedded source itself, and the target is shifted by one, behind `<s>`.

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
# words = "<s> there is a cat on the mat".split()
# embedding, positions = TokenEmbedding(8, 64), PositionalEncoding(64, max_len=16)
# layer, guess = DecoderLayer(64, 1, 128), nn.Linear(64, 8)
# optimizer = torch.optim.Adam([*embedding.parameters(), *layer.parameters(), *guess.parameters()], lr=3e-3)
#
#
# def write(src):
#     given = F.pad(src.flip(1)[:, :-1], (1, 0))  # <s> and the target without its last word
#     x, memory = positions(embedding(given)), positions(embedding(src))
#     return x, memory, guess(layer(x, memory, causal_mask(7)))
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
# Now our sentence. A row says which word was just read and which one is to be written; a column is a word of the source.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_attention
#
# x, memory, logits = write(torch.arange(1, 8)[None])
# written = [words[i] for i in logits[0].argmax(-1)]
# print(*written)
#
# asking = layer.residuals[0](x, lambda y: layer.self_attention(y, y, causal_mask(7)))
# weights = head_weights(layer.cross_attention, asking, memory)[0, 0]
# rows = [f"{read} → {word}" for read, word in zip(["<s>", *written], written)]
# plot_attention(weights, queries=rows, keys=words[1:], title="Writing backwards: whom each step asks")

# %% [markdown]
# Nobody told it where to look. To write backwards it asks the last word first and goes through the source from right to left,
# and the map shows it. In chapter 12 the same picture, from Italian to English words, shows which word was translated by which.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | three sublayers: masked self-attention, attention over the encoder's output, feed-forward (section 3.1) | the same, in this order | |
# | masks by "setting to $-\infty$" (section 3.2.3) | boolean, `True` = may attend | made in one place, received by the layers |
# | position $i$ depends on outputs "at positions less than $i$" (section 3.1) | $k \le q$, and the target shifted by one | input $i$ *is* output $i - 1$ (chapter 10) |
# | says nothing of padding | `padding_mask`, over keys | sentences of a batch differ in length |
# | post-norm, nothing after the last layer | the same; `PreNorm` ends with a norm | as in chapter 7 |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | at the paper's size |
# |---|---|---|
# | memory, from the encoder | `b k d` | (64, 7, 512) |
# | target embeddings + positions | `b t d` | (64, 8, 512) |
# | causal and padding mask | `b 1 t t` | (64, 1, 8, 8) |
# | self-attention weights | `b h t t` | (64, 8, 8, 8) |
# | cross-attention weights | `b h t k` | (64, 8, 8, 7) |
# | out | `b t d` | (64, 8, 512) |
#
# All the blocks are there. [Chapter 9](09_model.ipynb) puts them together.
