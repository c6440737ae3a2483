# %% [markdown]
r"""
# 9 · The whole model

**All the parts are built. Together they turn a source and the beginning of a target into a
prediction of the next token.**

![The architecture; everything from the embeddings to the softmax is lit](../figures/architecture_09.svg)
"""

# %% [markdown]
# **What you need**: [chapter 1](01_embeddings.ipynb), for the table and its size;
# [chapter 7](07_encoder.ipynb) and [chapter 8](08_decoder.ipynb), the two stacks. About 45
# minutes. In the paper: [section 3.4](https://arxiv.org/abs/1706.03762), figure 1 and table 3.
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/09_model.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/09_model.ipynb).
#
# **What you will be able to do**
#
# - put the blocks together, from two batches of ids to logits;
# - count the parameters of a model on paper, and check the count;
# - predict the first loss of an untrained model, and use it to find mistakes.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors.torch import save
from torch import Tensor, nn

from transformer.decoder import Decoder, causal_mask, padding_mask
from transformer.embeddings import TokenEmbedding
from transformer.encoder import Encoder
from transformer.feed_forward import FeedForward
from transformer.files import atomic_write, read_tensors
from transformer.multi_head import MultiHeadAttention
from transformer.positional_encoding import PositionalEncoding
from transformer.residual_norm import PostNorm, PreNorm

# %% [markdown]
# ## The question
#
# Sixty-four sentences of 8 tokens leave the decoder as `(64, 8, 512)`: 512 numbers at every
# position, and none of them is a word. Each row of 512 numbers must become a score for each of
# 37,000 tokens, which takes a matrix of 37,000 × 512. Is that more or less than the six encoder
# layers of chapters 4 to 7?

# %% tags=["active-ipynb"]
# vocab = 37_000
# d_model = 512
# d_ff = 2048
#
# attention = 4 * (d_model * d_model + d_model)
# feed_forward = (d_model * d_ff + d_ff) + (d_ff * d_model + d_model)
# encoder_layer = attention + feed_forward + 2 * 2 * d_model
# print(f"one table of all tokens {vocab * d_model:,}")
# print(f"six encoder layers      {6 * encoder_layer:,}")

# %% [markdown]
# One table is as large as the whole encoder: a weight for each token and feature. And three seem to
# be needed: source tokens in, target tokens in, target tokens out. Three tables of 18.9 million
# make 57 million parameters, yet the paper says that its model has 65 million *in all*.

# %% [markdown]
# ## By hand
#
# The solution is to use one table $E$ three times. Read forwards, it turns an id into a vector.
# Read backwards, it turns a vector into one score for each id: the dot product with that row. Take
# three tokens, two features, and a vector $x = (2, 0)$ that comes out of the decoder. Which of the
# three tokens will be the most probable?

# %% tags=["active-ipynb"]
# table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
# bias = torch.tensor([0.0, 0.0, -1.0])
# x = torch.tensor([2.0, 0.0])
#
# logits = x @ table.T + bias
# print("forwards, id 2:", table[2].tolist())
# print("backwards:     ", logits.tolist(), "→", [round(p, 2) for p in logits.softmax(-1).tolist()])

# %% [markdown]
# Row 0 points in the direction of $x$: $2 \cdot 1 + 0 \cdot 0 = 2$. Row 2 agrees equally well, but
# its bias takes 1 away; a bias can make a token rare in every context. Softmax turns the scores
# into a distribution: $e^2 = 7.39$ of $7.39 + 1 + 2.72 = 11.11$ is $0.67$.

# %% [markdown]
# ## The definition
#
# With $E$ the table, $P$ the positions, and the ids of the source and of the target so far:
#
# $$M = \operatorname{Encoder}(\sqrt{d_\text{model}}\,E[\text{src}] + P) \qquad
# X = \operatorname{Decoder}(\sqrt{d_\text{model}}\,E[\text{tgt}] + P,\; M)$$
#
# $$\text{logits} = X\,E^\top + b$$
#
# ![Source and target ids become vectors; the encoder makes the memory; the decoder attends to it; a linear layer makes logits](../figures/09_model.svg)

# %% [markdown]
# All sizes are kept in one frozen dataclass. It has the paper's two models as presets, and it
# raises a `ValueError` for impossible sizes before anything is built. `norm` names a class that is
# chosen once, when the model is built, so that `forward` needs no `if`.


# %%
@dataclass(frozen=True)
class Config:
    """Hold the sizes of a model; impossible ones raise a ValueError.

    The presets `base` and `big` are those of Vaswani et al. 2017, table 3.
    """

    vocab_size: int
    d_model: int = 512
    n_heads: int = 8
    n_layers: int = 6
    d_ff: int = 2048
    dropout: float = 0.1
    max_len: int = 512
    norm: str = "post"
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2

    def __post_init__(self):
        for name, most in LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} must be an integer from 1 to {most:,}, not {value!r:.40}")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} must be divisible by n_heads={self.n_heads}")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout!r:.40}")
        if self.norm not in list(NORMS):
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {self.norm!r:.40}")
        special = [self.pad_id, self.bos_id, self.eos_id]
        valid = all(type(i) is int and 0 <= i < self.vocab_size for i in special)
        if not valid or len(set(special)) < 3:
            raise ValueError(
                f"pad_id, bos_id, eos_id must be three different ids below {self.vocab_size}, "
                f"not {special}"
            )

    @property
    def banned_ids(self) -> list[int]:
        """The ids that a search never writes: padding and <s>."""
        return [self.pad_id, self.bos_id]

    @classmethod
    def base(cls, vocab_size: int = 37_000, **changes) -> "Config":
        """Return the paper's base model, which it counts as 65 million parameters."""
        return cls(vocab_size, **changes)

    @classmethod
    def big(cls, vocab_size: int = 37_000, **changes) -> "Config":
        """Return the paper's big model, which it counts as 213 million parameters."""
        sizes: dict[str, Any] = dict(d_model=1024, n_heads=16, d_ff=4096, dropout=0.3)
        return cls(vocab_size, **sizes | changes)

    @classmethod
    def tiny(cls, vocab_size: int, **changes) -> "Config":
        """Return the small model that Wu et al. 2021 use for Multi30k.

        It has 2.6 million parameters with a vocabulary of 10,000 subwords.
        """
        sizes: dict[str, Any] = dict(d_model=128, n_heads=4, n_layers=4, d_ff=256, dropout=0.3)
        return cls(vocab_size, **sizes | changes)


NORMS = {"post": PostNorm, "pre": PreNorm}
LIMITS = {
    "vocab_size": 2**22,
    "d_model": 2**16,
    "n_heads": 2**10,
    "n_layers": 2**8,
    "d_ff": 2**18,
    "max_len": 2**16,
}

# %% [markdown]
# A wrong size should be reported before the model is built. Each of these would otherwise fail deep
# inside a layer or, worse, not at all:

# %% tags=["active-ipynb"]
# mistakes = {"n_heads": 7, "n_layers": 0, "dropout": 1.5, "norm": "middle", "eos_id": 1}
# for name, value in mistakes.items():
#     try:
#         Config(vocab_size=100, **{name: value})
#     except ValueError as error:
#         print(error)

# %% [markdown]
# Now the whole model in one class. The masks are made from the ids here, and only here; the layers
# receive them. `embed` reports ids that are outside the vocabulary. `encode` and `decode` are
# separate methods because a translator encodes a sentence once and decodes many times.


# %% tags=["exercise"]
class Transformer(nn.Module):
    """Map source ids and target ids to the logits of every next target token.

    One table embeds source and target and, transposed, makes the logits: x Eᵀ + b.
    Source: Vaswani et al. 2017, figure 1 and section 3.4.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        residual = NORMS[config.norm]
        sizes = (config.n_layers, config.d_model, config.n_heads, config.d_ff, config.dropout)
        self.embedding = TokenEmbedding(config.vocab_size, config.d_model)
        self.positions = PositionalEncoding(config.d_model, config.max_len)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = Encoder(*sizes, residual)
        self.decoder = Decoder(*sizes, residual)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.apply(init_weights)

    def embed(self, ids: Int[Tensor, "b t"], start: int = 0) -> Float[Tensor, "b t d_model"]:
        """Return token embedding plus position; `start` is the position of the first column.

        Raises ValueError for an id outside the vocabulary (on a GPU, where a check would have to
        wait for the kernel, PyTorch raises its own error).
        """
        try:
            x = self.embedding(ids)
        except IndexError:
            raise ValueError(
                f"token ids from {ids.min()} to {ids.max()} do not fit the vocabulary, "
                f"whose ids end at {self.config.vocab_size - 1}"
            ) from None
        return self.dropout(self.positions(x, start))

    def encode(self, src: Int[Tensor, "b k"]) -> Float[Tensor, "b k d_model"]:
        """Return the memory: one vector for each source token."""
        return self.encoder(self.embed(src), padding_mask(src, self.config.pad_id))

    def target_mask(self, tgt: Int[Tensor, "b t"]) -> Bool[Tensor, "b 1 t t"]:
        """Return the mask of the decoder's self-attention: it hides the future and padding."""
        return causal_mask(tgt.shape[1], tgt.device) & padding_mask(tgt, self.config.pad_id)

    def decoder_states(
        self, tgt: Int[Tensor, "b t"], memory: Float[Tensor, "b k d_model"], src: Int[Tensor, "b k"]
    ) -> Float[Tensor, "b t d_model"]:
        """Return the decoder's output, one vector for each target position."""
        src_mask = padding_mask(src, self.config.pad_id)
        return self.decoder(self.embed(tgt), memory, self.target_mask(tgt), src_mask)

    def logits(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Return the score of every vocabulary entry, before softmax."""
        return F.linear(x, self.embedding.weight, self.bias)

    def decode(
        self, tgt: Int[Tensor, "b t"], memory: Float[Tensor, "b k d_model"], src: Int[Tensor, "b k"]
    ) -> Float[Tensor, "b t vocab"]:
        """Return the logits of the token after each target position, given the memory of `src`."""
        return self.logits(self.decoder_states(tgt, memory, src))

    def forward(
        self, src: Int[Tensor, "b k"], tgt: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b t vocab"]:
        """Return the logits of the token after each target position."""
        return self.decode(tgt, self.encode(src), src)


# %% [markdown]
# A model is used in two ways. In training it drops features and keeps what its gradients need. To
# use what it has learned, both are switched off, and switched on again afterwards:


# %%
@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, and restore every module's mode afterwards."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


# %% [markdown]
# How large should the weights be at the start? In post-norm, a sublayer's output is added to $x$
# and the sum is normalised, so a sublayer with large outputs drowns its own input. Chapters 4 and 6
# start with Xavier's initialisation. The whole model starts with smaller weights, as PyTorch's own
# layers do:


# %%
def init_weights(module: nn.Module) -> None:
    """Draw a sublayer's weights smaller than Xavier's, so that a post-norm stack learns sooner.

    The paper does not say how its weights start. Those for queries, keys and values are drawn as in
    `nn.MultiheadAttention`, and those of the feed-forward layers as in `nn.Linear`.
    """
    if isinstance(module, MultiHeadAttention):
        for linear in (module.w_q, module.w_k, module.w_v):
            nn.init.xavier_uniform_(linear.weight, gain=2**-0.5)
    if isinstance(module, FeedForward):
        module.w_1.reset_parameters()
        module.w_2.reset_parameters()


# %% [markdown]
# The difference is small but measurable: after 375 steps on the captions of Multi30k (the tiny
# model, batches of 2,048 tokens, one seed) the validation loss was 5.08 with these weights and 5.27
# with Xavier's alone.

# %% [markdown]
# The paper's base model, untrained. Which of its tensors will be the largest?

# %% tags=["active-ipynb"]
# torch.manual_seed(0)
# torch.set_printoptions(precision=2, sci_mode=False)
# model = Transformer(Config.base())
# src, tgt = torch.randint(3, 37_000, (2, 64, 8))
#
# with inference_context(model):
#     embedded = model.embed(src)
#     memory = model.encode(src)
#     states = model.decoder_states(tgt, memory, src)
#     logits = model.logits(states)
#
# stages = {
#     "src": src,
#     "tgt": tgt,
#     "embedded": embedded,
#     "memory": memory,
#     "states": states,
#     "logits": logits,
# }
# for name, tensor in stages.items():
#     print(f"{name:8}", tuple(tensor.shape))

# %% [markdown]
# There are 37,000 scores at each of 64 × 8 positions, so the logits are by far the largest. The
# model returns them as they are. Softmax belongs to the loss (chapter 11) and to decoding (chapter
# 12), which are more accurate when they start from logits. *What if*, below, shows a worse
# consequence of a softmax in the model.

# %% [markdown]
# ## The proof
#
# ### The running example
#
# Build a model of the example's size and load the trained weights. From the decoder states of
# chapter 8, `after(8)`, it makes the logits `after(9)`; from the ids it makes the same ones,
# through all the chapters at once. Each target begins with `<s>`. Which tokens will get the highest
# scores?

# %% tags=["active-ipynb"]
# from transformer.example import after, example_batch, example_model, tokens
#
# small = Transformer(Config(588, d_model=24, n_heads=4, n_layers=2, d_ff=48, max_len=64)).eval()
# small.load_state_dict(example_model().state_dict())
# batch = example_batch()
# source = batch.src
# target = batch.decoder_input
#
# torch.testing.assert_close(small.logits(after(8)), after(9))
# torch.testing.assert_close(small(source, target).detach(), after(9))
# for word, best in zip(tokens(target)[0], tokens(after(9)[0].topk(3).indices)):
#     print(f"after {word:8}", *best)

# %% [markdown]
# The best token at each position is the next one of the right translation, and together they are
# *c'è un gatto sul tappeto* `</s>`. The others are often words of the same kind: *libro* (book) and
# *anatra* (duck) after *un*, two other forms of *sul* after *gatto*.

# %% [markdown]
# ### One table, three uses
#
# The logits are the decoder's output times $E^\top$, plus $b$. Here at the paper's size; the last
# line lists every parameter with an axis of 37,000. If tying had been forgotten, a second matrix
# would be among them.

# %% tags=["active-ipynb"]
# from einops import einsum
#
# with inference_context(model):
#     scores = einsum(states, model.embedding.weight, "b t d_model, vocab d_model -> b t vocab")
#     torch.testing.assert_close(logits, scores + model.bias, atol=1e-4, rtol=1e-4)
# [(name, *p.shape) for name, p in model.named_parameters() if 37_000 in p.shape]

# %% [markdown]
# ### The paper's count
#
# Counting needs no memory: on the device `meta`, a tensor has a shape but no numbers. An encoder
# layer has one attention, one feed-forward and two norms; a decoder layer has two attentions, one
# feed-forward and three norms.


# %% tags=["active-ipynb"]
# def count(module):
#     return sum(p.numel() for p in module.parameters())
#
#
# with torch.device("meta"):
#     base = Transformer(Config.base())
#     big = Transformer(Config.big())
#
# for name, counted in (("base", base), ("big", big)):
#     layer = counted.encoder.layers[0]
#     attention = count(layer.self_attention)
#     feed_forward = count(layer.feed_forward)
#     norm = count(layer.residuals[0])
#     print(f"{name:4} attention {attention:,} · feed-forward {feed_forward:,} · norm {norm:,}")
#
#     encoder = 6 * (attention + feed_forward + 2 * norm)
#     decoder = 6 * (2 * attention + feed_forward + 3 * norm)
#     table = count(counted.embedding)
#     bias = len(counted.bias)
#     print(f"     encoder {encoder:,} + decoder {decoder:,} + table {table:,} + bias {bias:,}")
#     assert encoder + decoder + table + bias == count(counted)

# %% [markdown]
# Table 3 of the paper says 65 and 213 million. How close will we come, and would another vocabulary
# make up the difference?

# %% tags=["active-ipynb"]
# for counted, paper in ((base, 65e6), (big, 213e6)):
#     ours = count(counted)
#     needed = 37_000 + (paper - ours) / (counted.config.d_model + 1)
#     print(f"ours {ours:,} · paper {paper:,.0f} · {ours / paper - 1:+.1%}", end=" ")
#     print(f"· equal with {needed:,.0f} tokens")
#     assert abs(ours / paper - 1) < 0.07
# print(f"base with three tables instead of one {count(base) + 2 * count(base.embedding):,}")

# %% [markdown]
# Both are within 3 %. The paper says "about 37,000 tokens", but the vocabulary cannot explain what
# remains: one model would need more tokens and the other fewer. The paper does not say what exactly
# it counts. It certainly counts one table: with three, the base model would have 101 million
# parameters.

# %% [markdown]
# ### Equal to `nn.Transformer`
#
# `nn.Transformer` consists of the two stacks, without embeddings and logits. Its names differ from
# ours, and it keeps $W_q$, $W_k$ and $W_v$ in one matrix, one below the other. Loading is strict: a
# missing weight or one too many raises an error.

# %% tags=["active-ipynb"]
# NAMES = {
#     "self_attention": "self_attn",
#     "cross_attention": "multihead_attn",
#     "w_q.": "in_proj_",
#     "w_k.": "in_proj_",
#     "w_v.": "in_proj_",
#     "w_o": "out_proj",
#     "feed_forward.w_1": "linear1",
#     "feed_forward.w_2": "linear2",
#     "residuals.0.norm": "norm1",
#     "residuals.1.norm": "norm2",
#     "residuals.2.norm": "norm3",
#     "gain": "weight",
# }
#
#
# def renamed(stack):
#     weights = {}
#     for name, tensor in stack.state_dict().items():
#         for ours, theirs in NAMES.items():
#             name = name.replace(ours, theirs)
#         weights.setdefault(name, []).append(tensor)
#     return {name: torch.cat(parts) for name, parts in weights.items()}

# %% [markdown]
# One difference needs care. `nn.Transformer` always puts a norm at the end of each stack. Pre-norm
# needs it, because there the sum that runs through the stack is never normalised. In the paper's
# post-norm every layer already *ends* with a norm, and another one changes nothing in a new model.
# Here one is applied to the base model's states from above:

# %% tags=["active-ipynb"]
# torch.testing.assert_close(F.layer_norm(states, (512,)), states, atol=1e-4, rtol=1e-4)
# mean = abs(states.mean().item())
# print(f"mean {mean:.2f}, standard deviation {states.std().item():.2f}: normalised already")

# %% [markdown]
# So we build the two stacks ourselves, with a final norm in pre-norm and without one in post-norm,
# and pass them as `custom_encoder` and `custom_decoder`.


# %% tags=["active-ipynb"]
# def twin(model):
#     config = model.config
#     pre = config.norm == "pre"
#     sizes = (config.d_model, config.n_heads, config.d_ff)
#     options = dict(dropout=0.0, batch_first=True, norm_first=pre)
#     encoder = nn.TransformerEncoder(
#         nn.TransformerEncoderLayer(*sizes, **options),
#         config.n_layers,
#         norm=nn.LayerNorm(config.d_model) if pre else None,
#         enable_nested_tensor=False,
#     )
#     decoder = nn.TransformerDecoder(
#         nn.TransformerDecoderLayer(*sizes, **options),
#         config.n_layers,
#         norm=nn.LayerNorm(config.d_model) if pre else None,
#     )
#     stacks = dict(custom_encoder=encoder, custom_decoder=decoder)
#     theirs = nn.Transformer(config.d_model, config.n_heads, batch_first=True, **stacks)
#     # Only now: the constructor draws all weights of its stacks anew.
#     theirs.encoder.load_state_dict(renamed(model.encoder))
#     theirs.decoder.load_state_dict(renamed(model.decoder))
#     return theirs.eval()

# %% [markdown]
# Each side has two sentences of different lengths, so that every mask matters. The biases and gains
# are random too, so that a forgotten one would be noticed. PyTorch's masks have the opposite
# polarity, `True` means *hide*: hence the `~` and the `==`.

# %% tags=["active-ipynb"]
# src = torch.tensor([[3, 4, 5, 6, 7, 8, 9], [9, 8, 7, 6, 0, 0, 0]])
# tgt = torch.tensor([[1, 13, 14, 15, 16], [1, 17, 18, 0, 0]])
# hidden = {
#     "tgt_mask": ~causal_mask(5),
#     "src_key_padding_mask": src == 0,
#     "tgt_key_padding_mask": tgt == 0,
#     "memory_key_padding_mask": src == 0,
# }
#
# for norm in ("post", "pre"):
#     ours = Transformer(Config(20, d_model=32, n_heads=4, n_layers=2, d_ff=64, norm=norm)).eval()
#     with torch.no_grad():
#         for p in ours.parameters():
#             p.add_(0.1 * torch.randn(p.shape))
#         theirs = twin(ours)(ours.embed(src), ours.embed(tgt), **hidden)
#         torch.testing.assert_close(ours(src, tgt), ours.logits(theirs), atol=1e-4, rtol=1e-4)
#     print(f"{norm}-norm: the same {tuple(theirs.shape)}")

# %% [markdown]
# ### What an untrained model knows
#
# It knows nothing, so its guesses should be nearly uniform, and the loss near the cross-entropy of
# a uniform guess: $\ln 37{,}000 = 10.5$. How near can be predicted. The decoder's states have
# variance 1 and the entries of $E$ have variance $1/d_\text{model}$, so the logits have variance 1,
# and normally distributed logits of variance 1 add $\frac12$ to the loss. Will it be 11.0?

# %% tags=["active-ipynb"]
# import math
#
# labels = torch.randint(3, 37_000, (64, 8))
# loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
# print(f"logits: standard deviation {logits.std().item():.1f}")
# print(f"ln 37,000 = {math.log(37_000):.1f} · loss = {loss:.1f}")
# assert abs(loss - math.log(37_000) - 0.5) < 0.25

# %% [markdown]
# So look at the first loss of every training run: if it is far from $\ln(\text{vocab}) + \frac12$,
# the model probably has a mistake. (In a model of one or two layers the state still resembles the
# token that was just read, whose own score is then high: the small one of chapter 11 starts more
# than 1 above.) Rows drawn from $\mathcal{N}(0, 1)$, a common one, make the logits
# $\sqrt{512} = 22.6$ times larger, and the model is certain and wrong:

# %% tags=["active-ipynb"]
# loss = F.cross_entropy(math.sqrt(512) * logits.flatten(0, 1), labels.flatten()).item()
# print("first loss above 80:", loss > 80)

# %% [markdown]
# ### The check
#
# `check_model` looks for mistakes in the way the parts are put together: a mask left out or made
# from the wrong ids, positions not added, a table that is not shared, logits that have been through
# softmax. Pass it a class of your own, and it reports what it found.

# %% tags=["active-ipynb"]
# from transformer.checks import check_model
#
# check_model(Transformer)

# %% [markdown]
# ## The look
#
# Where are the 63 million parameters? Guess which part has the most: the table, the attention
# layers or the feed-forward layers.

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_bars
#
# parts = {"table": count(base.embedding)}
# for stack in (base.encoder, base.decoder):
#     for layer in stack.layers:
#         for name, module in layer.named_children():
#             parts[name] = parts.get(name, 0) + count(module)
# assert sum(parts.values()) + len(base.bias) == count(base)
#
# parts["norms"] = parts.pop("residuals")
# bars = {name.replace("_", "\n"): round(n / 1e6, 2) for name, n in parts.items()}
# plot_bars(bars, ylabel="million parameters", title="The base model, 63.1 million")

# %% [markdown]
# The feed-forward layers, which treat each position on its own: 25 million. The table has 18.9
# million, and all attention layers together have as many.
#
# Which tokens do the logits depend on, through all layers together? Take the trained model. Replace
# one token by *house* or its translation *casa*, and measure how far the logits move at each
# position. The batch has one copy of the sentence for each token, with that token replaced. The
# rows of the maps are named by the token read and the one to write.

# %% tags=["active-ipynb"]
# from einops import rearrange, repeat
#
# from transformer.example import example_tokenizer
# from transformer.plotting import plot_matrix
#
# source = batch.src[:1]
# target = batch.decoder_input[:1]
# english = tokens(source)[0]
# italian = tokens(target)[0]
# rows = [f"{old} → {new}" for old, new in zip(italian, tokens(batch.labels)[0])]
#
#
# def influence(ids, word, logits_of):
#     """Return how far the logits at each position (row) move when a token (column) is replaced."""
#     copies = repeat(ids, "1 t -> copy t", copy=ids.shape[1]).clone()
#     replaced = copies.fill_diagonal_(example_tokenizer().token_to_id(f"▁{word}"))
#     moved = (logits_of(replaced) - logits_of(ids)).detach().norm(dim=-1)
#     return rearrange(moved, "copy t -> t copy")
#
#
# def shares(moved):
#     return (moved / moved.sum(-1, keepdim=True)).round(decimals=2)

# %% tags=["active-ipynb"]
# moved = influence(target, "casa", lambda ids: small(source.expand(len(ids), -1), ids))
#
# past = causal_mask(8)
# print("some position depends on the future:   ", bool((moved[~past] > 1e-3).any()))
# print("every position depends on all its past:", bool((moved[past] > 1e-3).all()))
# plot_matrix(shares(moved), rows, italian, "Influence of each target token (column)")

# %% [markdown]
# The triangle of chapter 8 holds for the whole model: a model whose parts do not look ahead does
# not look ahead either. What follows *sul*, and what follows *tappeto*, depends mostly on *sul*.
#
# Will the source have a triangle, too?

# %% tags=["active-ipynb"]
# moved = influence(source, "house", lambda ids: small(ids, target.expand(len(ids), -1)))
#
# print("every position depends on every source token:", bool((moved > 1e-3).all()))
# plot_matrix(shares(moved), rows, english, "Influence of each source token (column)")

# %% [markdown]
# It has none, because the source is complete before the first word is written. But the large
# numbers run from the upper left to the lower right, since the two languages name things in nearly
# the same order. The row that writes *sul* depends on *on* and just as much on *mat*, whose gender
# it needs.

# %% [markdown]
# ## Saving and loading
#
# A model on disk is two files: its config as JSON and its weights as safetensors. Reading either
# cannot run code, whereas reading a pickled model can. `atomic_write` writes a new file beside the
# old one and then renames it, so a crash never leaves half a file.


# %%
def save_model(model: Transformer, folder: str | Path) -> None:
    """Write config.json and model.safetensors into `folder`; raises OSError if that fails."""
    config = json.dumps(asdict(model.config), indent=2)
    weights = {name: x.detach().cpu().contiguous() for name, x in model.state_dict().items()}
    atomic_write(Path(folder) / "config.json", config.encode())
    atomic_write(Path(folder) / "model.safetensors", save(weights))


# %% [markdown]
# Loading checks what it reads: JSON with an unknown key, a truncated file and weights of another
# size each raise an error of one sentence.


# %%
def read_config(path: str | Path) -> Config:
    """Read a config.json; ValueError when it is not the config of a model."""
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
        return Config(**settings)
    except (TypeError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        known = ", ".join(field.name for field in fields(Config))
        raise ValueError(
            f"{path} is not a config: it must be a JSON object with {known} ({error!s:.200})"
        ) from None


# %%
def shapes(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...] | torch.dtype]:
    """Return the shape of every tensor, or its dtype if that is not floating-point."""
    return {
        name: tuple(x.shape) if x.is_floating_point() else x.dtype for name, x in weights.items()
    }


# %%
def load_model(folder: str | Path) -> Transformer:
    """Read the model that `save_model` wrote, in eval mode.

    Raises ValueError when weights and config do not belong together. A config that asks for more
    numbers than there are weights gets no memory: its shapes are compared on the device `meta`.
    """
    config = read_config(Path(folder) / "config.json")
    weights = read_tensors(Path(folder) / "model.safetensors")
    least = config.d_model * (config.vocab_size + config.n_layers * config.d_ff)
    fits = least <= sum(weight.numel() for weight in weights.values())
    with torch.random.fork_rng(devices=[]), nullcontext() if fits else torch.device("meta"):
        model = Transformer(config)  # its first weights are drawn, and then replaced
    found = shapes(weights)
    wanted = shapes(model.state_dict())
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"the weights in {folder} belong to another config: {name} is "
                f"{found.get(name, 'missing')}, wanted {wanted.get(name, 'no such tensor')}"
            )
    model.load_state_dict(weights)
    return model.eval()


# %% [markdown]
# The loaded model computes the same logits. A file that was cut off is rejected:

# %% tags=["active-ipynb"]
# import tempfile
#
# with tempfile.TemporaryDirectory() as folder:
#     save_model(small, folder)
#     print(*sorted(path.name for path in Path(folder).iterdir()))
#     assert torch.equal(load_model(folder)(source, target), small(source, target))
#
#     weights = Path(folder) / "model.safetensors"
#     weights.write_bytes(weights.read_bytes()[:100_000])
#     try:
#         load_model(folder)
#     except ValueError as error:
#         print(Path(str(error).split(" (")[0]).name)

# %% [markdown]
# ## What if
#
# What if the model ended with a softmax, as in the paper's figure 1? PyTorch's `cross_entropy`
# expects logits and applies softmax itself, so softmax would be applied **twice**. No error is
# raised: probabilities are valid logits. Train small models to copy sentences of five tokens from a
# vocabulary of 50. As a control, softmax in the model with a loss that only takes the logarithm.
# The seeds, first weights and batches are the same.


# %% tags=["active-ipynb"]
# torch.set_num_threads(1)  # tensors this small are not worth sharing between cores
#
#
# def share_copied(loss_of, seed):
#     torch.manual_seed(seed)
#     config = Config(50, d_model=32, n_heads=2, n_layers=1, d_ff=64, dropout=0.0, max_len=8)
#     copier = Transformer(config)
#     optimizer = torch.optim.Adam(copier.parameters(), lr=5e-3, betas=(0.9, 0.98))
#     curve = []
#     for _ in range(175):
#         src = torch.randint(3, 50, (32, 5))
#         tgt = F.pad(src[:, :-1], (1, 0), value=1)  # <s>, and all tokens but the last
#         logits = copier(src, tgt)
#         optimizer.zero_grad()
#         loss_of(logits.mT, src).backward()
#         optimizer.step()
#         curve.append((logits.argmax(-1) == src).float().mean())
#     return torch.stack(curve), logits

# %% [markdown]
# With probabilities in the place of logits, the loss of a perfect model is
# $\ln(e + 49) - 1 = 2.9$ instead of 0. Will it still learn to copy, only more slowly?

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_lines
#
# losses = {
#     "logits": F.cross_entropy,
#     "softmax twice": lambda logits, src: F.cross_entropy(logits.softmax(1), src),
#     "softmax, then logarithm": lambda logits, src: F.nll_loss(logits.softmax(1).log(), src),
# }
# curves = {}
# for name, loss_of in losses.items():
#     runs = [share_copied(loss_of, seed) for seed in range(3)]
#     curves[name] = torch.stack([curve for curve, _ in runs])
#     at_the_end = curves[name][:, -20:].mean(1)
#     if name == "softmax twice":
#         assert at_the_end.max() < 0.3
#         written = torch.cat([logits.argmax(-1) for _, logits in runs])
#         assert (written == written[:, :1]).all(1).float().mean() > 0.8
#     else:
#         assert at_the_end.min() > 0.9
#
# means = {name: runs.mean(0) for name, runs in curves.items()}
# plot_lines(means, xlabel="step", ylabel="share right", title="Copy five tokens: mean of 3 seeds")

# %% [markdown]
# It does not. The model learns to write one token of the source at all five positions and is right
# once in five. Of this token it becomes almost certain, and where softmax is almost certain, its
# gradient is almost zero, so no later step corrects it. The first loss does not show the mistake:
# it is about $\ln 50$, and it falls. The control learns as fast as the original (the two curves
# coincide), so the second softmax is the cause.

# %% [markdown]
# ### And in a real translator?
#
# The experiments of chapters 2 to 8 were small, and each was made to need its part. Here single
# parts are left out of a translator from English to Italian, half as wide as that of chapter 11.
# *Loss* is the validation loss in nats a token, *exact* the percentage of 500 test sentences that
# are translated exactly, and BLEU a score from 0 to 100 ([chapter 12](12_inference.ipynb)). Which
# part will cost the most, and which loss will deceive you?

# %% [markdown]
# <!-- ablations -->
#
# | what is missing | loss | exact | BLEU |
# |---|---|---|---|
# | nothing | 0.009 (0.007 to 0.012) | 98.1 (98.0 to 98.4) | 99.3 (99.2 to 99.4) |
# | positions | 0.027 (0.026 to 0.028) | 95.3 (94.8 to 96.0) | 97.4 (97.3 to 97.6) |
# | heads: one instead of four | 0.017 (0.016 to 0.019) | 97.1 (96.6 to 97.6) | 98.9 (98.8 to 99.0) |
# | the division by √d | 0.018 (0.016 to 0.021) | 97.5 (97.4 to 97.8) | 98.8 (98.0 to 99.3) |
# | the residual | 3.556 (3.514 to 3.635) | 0.0 | 0.0 |
# | the norm | 0.008 (0.007 to 0.009) | 98.9 (98.0 to 99.6) | 99.6 (99.1 to 99.9) |
# | warm-up (post-norm) | 0.012 (0.010 to 0.014) | 98.3 (97.6 to 98.8) | 99.1 (98.5 to 99.6) |
# | nothing, in pre-norm | 0.010 (0.010 to 0.011) | 98.4 | 99.4 (99.3 to 99.4) |
# | warm-up (pre-norm) | 0.008 (0.008 to 0.009) | 99.2 (98.8 to 99.6) | 99.7 (99.5 to 99.9) |
# | the feed-forward network | 0.015 (0.013 to 0.016) | 98.0 (97.0 to 99.2) | 99.2 (99.0 to 99.7) |
# | the causal mask | 0.008 (0.005 to 0.012) | 0.0 | 0.1 (0.0 to 0.2) |
#
# Mean of 3 seeds, in brackets their range; 500 steps each.
#
# <!-- /ablations -->

# %% [markdown]
# Without the residual nothing is learned. Without the causal mask the loss is low and no sentence
# is right: this model reads the answers, in training and in validation (chapter 8). The other parts
# cost little *here*: the model is shallow, and the language is simple. Compare such a difference
# with the range over the seeds, where there is one. A post-norm stack of sixteen layers needs norm
# and warm-up (chapter 5). Where positions are missing, the causal mask tells the decoder part of
# the order (chapter 2). So an ablation holds for one size and one task. (In a clone of the
# repository, `python -m benchmarks.ablations` trains these translators anew.)

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 9.1 | The whole model | write the block | 40 | ★★★ |
# | 9.2 | How many parameters? | by hand | 10 | ★☆☆ |
# | 9.3 | Which parameters learn from a batch? | predict, then run | 10 | ★★☆ |
# | 9.4 | All parts are right | find the bug | 20 | ★★☆ |
# | 9.5 | A test for a whole model | write the test | 30 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 9` says what is wrong, and `course hint 9.1` gives a hint.

# %% [markdown]
# ## Summary
#
# The model embeds both sentences with one table, encodes the source, decodes the target so far, and
# reads the same table backwards for a score of every next token. It makes the masks from the ids
# and returns logits; softmax belongs to the loss and to decoding. With several layers, a new
# model's first loss is about $\ln(\text{vocab}) + \frac12$; a value far from it points to a mistake.
#
# **Write it from memory**: close the chapter and write `Transformer` from `TokenEmbedding`,
# `PositionalEncoding`, `Encoder` and `Decoder`; `check_model(Transformer)` says whether it is
# right.

# %% [markdown]
# ## Paper and code
#
# | the paper | here | why |
# |---|---|---|
# | one matrix for both embeddings and the output ([section 3.4](https://arxiv.org/abs/1706.03762)) | the same, one parameter | a third of the size of three matrices |
# | does not mention a bias at the output | one number for each token | a token can be rare in every context |
# | does not say how weights start | Xavier, and smaller for q, k, v and the feed-forward layers | a post-norm stack learns sooner |
# | softmax is the model's last block (figure 1) | the model returns logits | loss and decoding work with scores |
# | 65 and 213 million parameters (table 3) | 63.1 and 214.3 million | it does not say what exactly it counts |
# | no norm after a post-norm stack | the same; one after a pre-norm stack | `nn.Transformer` has one after both |
# | positions for any length | up to `max_len`, beyond it an error | the table is computed once |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the example | at the paper's size |
# |---|---|---|---|
# | source ids, target ids | `b k`, `b t` | (2, 8) each | (64, 8) each |
# | embeddings + positions | `b k d_model`, `b t d_model` | (2, 8, 24) each | (64, 8, 512) each |
# | memory | `b k d_model` | (2, 8, 24) | (64, 8, 512) |
# | decoder states | `b t d_model` | (2, 8, 24) | (64, 8, 512) |
# | logits | `b t vocab` | (2, 8, 588) | (64, 8, 37000) |
#
# The model reads rectangles of ids. [Chapter 10](10_data.ipynb) makes them from sentences.
