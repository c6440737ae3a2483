# %% [markdown]
r"""
# 13 · Published weights

**Models that other people trained run in the blocks that you built, number for number.**

![The architecture; the whole model is lit](../figures/architecture_13.svg)
"""

# %% [markdown]
# **What you need**: [chapter 9](09_model.ipynb), for the model, and [chapter
# 12](12_inference.ipynb), for the search. About 50 minutes. In the paper: [section
# 3](https://arxiv.org/abs/1706.03762), and what later models changed in it.
#
# Nothing installed? Open this chapter in [Colab](https://colab.research.google.com/github/the_owner/transformer/blob/main/notebooks/13_pretrained.ipynb) or [Binder](https://mybinder.org/v2/gh/the_owner/transformer/main?urlpath=lab/tree/notebooks/13_pretrained.ipynb).
#
# **What you will be able to do**
#
# - read a published checkpoint: the names of its tensors, its config, its vocabulary;
# - map its names to those of your own model, and prove that both compute the same;
# - name the differences between a published translator and the paper, and see what each one does.

# %% tags=["active-ipynb", "colab"]
# # For Colab. Where the package is installed, this does nothing.
# import importlib.util
#
# if importlib.util.find_spec("transformer") is None:
#     %pip install -q "transformer-course @ git+https://github.com/the_owner/transformer"

# %%
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.decoder import Decoder, causal_mask, padding_mask
from transformer.embeddings import TokenEmbedding
from transformer.encoder import Encoder
from transformer.feed_forward import FeedForward
from transformer.model import NORMS, Config, Transformer, init_weights
from transformer.positional_encoding import PositionalEncoding, sinusoidal_positions
from transformer.published import (
    PublishedTokenizer,
    Unfilled,
    check_vocabulary,
    checkpoint_folder,
    fill_weights,
    position_tensors,
    read_options,
    read_tokenizer,
    settings_of,
    write_folder,
)
from transformer.published.families import TABLES

# %% [markdown]
# ## The question
#
# Thousands of translators are published, the family *opus-mt* alone has more than a thousand pairs
# of languages. They are encoder-decoder Transformers. Are they *your* Transformer? Then their
# numbers must fit into your blocks, and give the same results.
#
# A published model is a folder. To have one without a network, we let `transformers`, the library
# in which these models are published, write a tiny one with random weights, in the architecture
# *Marian* of opus-mt. (The cells of this chapter need `pip install transformers sentencepiece`;
# the module does not need `transformers`.)

# %% tags=["active-ipynb"]
# import tempfile
# import warnings
#
# warnings.filterwarnings("ignore", message="IProgress")  # a plain progress bar will do
# from transformers import MarianConfig, MarianMTModel
# from transformers.utils import logging
#
# logging.set_verbosity_error()
# logging.disable_progress_bar()
# torch.manual_seed(0)
# sizes = dict(d_model=16, encoder_layers=2, decoder_layers=2, max_position_embeddings=64)
# heads = dict(encoder_attention_heads=4, decoder_attention_heads=4)
# widths = dict(encoder_ffn_dim=32, decoder_ffn_dim=32)
# special = dict(vocab_size=50, pad_token_id=49, decoder_start_token_id=49, eos_token_id=0)
# habits = dict(activation_function="swish", scale_embedding=True, init_std=0.4)
#
# theirs = MarianMTModel(MarianConfig(**sizes, **heads, **widths, **special, **habits)).eval()
# for parameter in theirs.parameters():
#     if parameter.requires_grad:
#         parameter.data += 0.1 * torch.randn_like(parameter)
# theirs.final_logits_bias.normal_()
# folder = Path(tempfile.mkdtemp())
# theirs.save_pretrained(folder)
# print(*sorted(path.name for path in folder.iterdir()))

# %% [markdown]
# Three files. `config.json` has the sizes, `generation_config.json` says how to search, and
# `model.safetensors` holds the weights. Older models come as `pytorch_model.bin`, a *pickle*: a
# program that Python runs when it reads it. We refuse those. Which tensors are there?

# %% tags=["active-ipynb"]
# from transformer.published import tensor_shapes
#
# shapes = tensor_shapes(folder)
# print(len(shapes), "tensors")
# for name, shape in shapes.items():
#     if ".1." not in name and ".bias" not in name and "decoder" not in name:
#         print(name, shape)

# %% [markdown]
# ## By hand
#
# Every name says what the tensor is. Put the first encoder layer of your model beside it. Which
# tensor is which? Cover the right column of the next cell's result, and fill it in yourself.

# %% tags=["active-ipynb"]
# from transformer.encoder import EncoderLayer
#
# mine = {name: tuple(x.shape) for name, x in EncoderLayer(16, 4, 32).state_dict().items()}
# for name, shape in mine.items():
#     if name.endswith(("weight", "gain")):
#         print(f"{name:28}", shape)

# %% [markdown]
# - `q_proj`, `k_proj`, `v_proj` and `out_proj` are $W_q$, $W_k$, $W_v$ and $W_o$.
# - `fc1` and `fc2` are the two layers of chapter 6.
# - The norms have the name of what comes before them: in post-norm they stand *after* a sublayer.
#   The last one is `final_layer_norm`. A norm's *gain* is called `weight`.
#
# Shapes alone would not decide it. All four matrices of attention are square, so exchanging two of
# them raises no error; only the results would tell.

# %% [markdown]
# What a sentence looks like differs, too. The *positions* are not saved, but computed, and not
# quite by chapter 2's formula. Sines and cosines do not alternate: all sines are in the first
# half, all cosines in the second. At position 1 and width 4:

# %% tags=["active-ipynb"]
# torch.set_printoptions(precision=2, sci_mode=False)
# pairs = sinusoidal_positions(2, 4)[1]
# print("in pairs: ", pairs)
# print("in halves:", rearrange(pairs, "(i two) -> (two i)", two=2))

# %% [markdown]
# The same four numbers: $\sin 1 = 0.84$, $\cos 1 = 0.54$, $\sin 0.01 = 0.01$, $\cos 0.01 = 1$. A
# model that learns from scratch would not notice. A model whose weights are given reads the second
# feature as a sine; it would understand nothing.

# %% [markdown]
# ## The definition
#
# The positions first. The models of *fairseq* (facebook's wmt19, M2M100 and NLLB) also have
# halves, with another spacing: their slowest frequency is exactly $10000^{-1}$. And they number
# the first token with the id of padding plus 1.


# %% tags=["exercise"]
def half_positions(n_positions: int, d_model: int) -> Float[Tensor, "t d_model"]:
    """Return chapter 2's table with all sines first, then all cosines; d_model must be even."""
    return rearrange(sinusoidal_positions(n_positions, d_model), "t (i two) -> t (two i)", two=2)


def fairseq_positions(n_positions: int, d_model: int, first: int = 0) -> Float[Tensor, "t d_model"]:
    """Return the table of positions first, first + 1, … that fairseq's models have.

    Sines are in the first half and cosines in the second. The slowest wave is one of 10000·2π
    positions: frequencies are 10000^(-i / (d_model/2 - 1)). Computed in float32, as fairseq does.
    """
    step = math.log(10_000) / (d_model // 2 - 1)
    frequency = torch.exp(-step * torch.arange(d_model // 2).float())
    angle = einsum(torch.arange(first, first + n_positions).float(), frequency, "t, i -> t i")
    return torch.cat([angle.sin(), angle.cos()], dim=1)


# %% [markdown]
# What may differ from the paper is an **option** each, beside the sizes of chapter 9:
#
# | option | paper | Marian | fairseq: wmt19 | M2M100, NLLB |
# |---|---|---|---|---|
# | `positions` | in pairs | in halves | in halves, own spacing | as wmt19 |
# | `activation` | ReLU | SiLU, $x\,\sigma(x)$ | ReLU | ReLU |
# | `norm` | post | post | post | pre, with last norms |
# | `scale_embedding` | yes | as the config says | yes | yes |
# | `tables` | one | one, or two | three | one |
# | `logits_bias` | no | yes | no | no |
# | `bos_id`, which starts decoding | `<s>` | `<pad>` | `</s>` | `</s>` |


# %%
@dataclass(frozen=True)
class PublishedConfig(Config):
    """Hold the sizes and options of a published model; impossible ones raise a ValueError.

    The sizes of `Config` are those of the decoder; `bos_id` is the token that decoding starts with.
    `tables` says whether source, target and output have one table, two (the output is the
    target's) or three. The ids in `banned` are never written, and neither is padding.
    """

    family: str = "marian"
    source_vocab_size: int = 1
    encoder_layers: int = 6
    encoder_heads: int = 8
    encoder_d_ff: int = 2048
    activation: str = "silu"
    positions: str = "halves"
    scale_embedding: bool = True
    logits_bias: bool = False
    tables: str = "one"
    banned: list[int] = field(default_factory=list)

    def __post_init__(self):
        sizes: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(Config)}
        encoder: dict[str, Any] = dict(
            vocab_size=self.source_vocab_size,
            n_layers=self.encoder_layers,
            n_heads=self.encoder_heads,
            d_ff=self.encoder_d_ff,
        )
        special: dict[str, Any] = dict(pad_id=0, bos_id=1, eos_id=2)
        for changes in ({}, encoder):  # each raises for impossible sizes
            Config(**sizes | changes | special)
        for name, known in {"activation": ACTIVATIONS, "positions": POSITIONS}.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )
        if (self.family, self.tables) not in TABLES:
            raise ValueError(f"family {self.family!r} has no models with {self.tables!r} tables")
        for name in ("pad_id", "bos_id", "eos_id"):
            i = getattr(self, name)
            if type(i) is not int or not 0 <= i < self.vocab_size:
                raise ValueError(f"{name} must be an id below {self.vocab_size}, not {i!r}")

    @property
    def banned_ids(self) -> list[int]:
        """The ids that a search never writes."""
        return [self.pad_id, *self.banned]


ACTIVATIONS = {"relu": F.relu, "silu": F.silu, "gelu": F.gelu}
POSITIONS = {
    "paper": lambda c: sinusoidal_positions(c.max_len, c.d_model),
    "halves": lambda c: half_positions(c.max_len, c.d_model),
    "fairseq": lambda c: fairseq_positions(c.max_len, c.d_model, first=c.pad_id + 1),
}

# %% [markdown]
# The model puts the same blocks together: `Encoder`, `Decoder`, `TokenEmbedding` and the norms are
# those of the chapters before. `nn.Embedding` is the table of chapter 1 without the root. Nothing
# in `forward` asks for the family; each choice is made once, when the model is built.
#
# One mask differs. Marian starts decoding with *padding*, so a decoder that hides padding would
# hide its own first token. The causal mask is enough: padding stands at the end, and no real token
# looks there.


# %% tags=["exercise"]
class PublishedTransformer(Transformer):
    """Put the blocks of the course together as published translators have them.

    Each difference from `Transformer` is an option of the config.
    """

    config: PublishedConfig

    def __init__(self, config: PublishedConfig):
        nn.Module.__init__(self)
        c = config
        table = TokenEmbedding if c.scale_embedding else nn.Embedding
        residual = NORMS[c.norm]
        encoder_sizes = (c.encoder_layers, c.d_model, c.encoder_heads, c.encoder_d_ff)
        self.config = config
        self.embedding = table(c.vocab_size, c.d_model)
        if c.tables != "one":
            self.source_embedding = table(c.source_vocab_size, c.d_model)
        if c.tables == "three":
            self.output = nn.Linear(c.d_model, c.vocab_size, bias=False)
        self.positions = PositionalEncoding(c.d_model, c.max_len)
        self.dropout = nn.Dropout(c.dropout)
        self.encoder = Encoder(*encoder_sizes, c.dropout, residual)
        self.decoder = Decoder(c.n_layers, c.d_model, c.n_heads, c.d_ff, c.dropout, residual)
        self.apply(init_weights)
        for block in self.modules():
            if isinstance(block, FeedForward):
                block.activation = ACTIVATIONS[c.activation]
        if c.logits_bias:
            self.bias = nn.Parameter(torch.zeros(c.vocab_size))
        self.fill_buffers()

    def fill_buffers(self, positions: Tensor | None = None) -> None:
        """Compute what a file may lack: the positions, and the bias of a model without one."""
        table = POSITIONS[self.config.positions](self.config) if positions is None else positions
        self.positions.table = table
        if not self.config.logits_bias:
            self.register_buffer("bias", torch.zeros(self.config.vocab_size), persistent=False)

    def encode(self, src: Int[Tensor, "b k"]) -> Float[Tensor, "b k d_model"]:
        """Return the memory; ValueError for an id outside the source vocabulary."""
        table = getattr(self, "source_embedding", self.embedding)
        try:
            x = table(src)
        except IndexError:
            last = self.config.source_vocab_size - 1
            raise ValueError(f"source ids must be from 0 to {last}, not {src.max()}") from None
        x = self.dropout(self.positions(x))
        return self.encoder(x, padding_mask(src, self.config.pad_id))

    def target_mask(self, tgt: Int[Tensor, "b t"]) -> Bool[Tensor, "t t"]:
        """Return the causal mask. Padding is not hidden: decoding may start with it."""
        return causal_mask(tgt.shape[1], tgt.device)

    def logits(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Return the score of every entry of the target vocabulary, before softmax."""
        return F.linear(x, getattr(self, "output", self.embedding).weight, self.bias)


# %% [markdown]
# Now the table that you filled in. All families use these names. The decoder has a third sublayer,
# whose norm stands in the middle, so what is called `final_layer_norm` moves:


# %% tags=["exercise"]
def layer_names(stack: str) -> dict[str, str]:
    """Return the published name of each module in a layer of the "encoder" or the "decoder"."""
    names = {
        "self_attention.w_q": "self_attn.q_proj",
        "self_attention.w_k": "self_attn.k_proj",
        "self_attention.w_v": "self_attn.v_proj",
        "self_attention.w_o": "self_attn.out_proj",
        "residuals.0.norm": "self_attn_layer_norm",
        "feed_forward.w_1": "fc1",
        "feed_forward.w_2": "fc2",
    }
    if stack == "encoder":
        return names | {"residuals.1.norm": "final_layer_norm"}
    return names | {
        "cross_attention.w_q": "encoder_attn.q_proj",
        "cross_attention.w_k": "encoder_attn.k_proj",
        "cross_attention.w_v": "encoder_attn.v_proj",
        "cross_attention.w_o": "encoder_attn.out_proj",
        "residuals.1.norm": "encoder_attn_layer_norm",
        "residuals.2.norm": "final_layer_norm",
    }


# %% [markdown]
# What stands around the layers differs by family: the tables of embeddings, and the bias of the
# logits (`transformer/published/families.py`).


# %%
def published_name(name: str) -> str:
    """Return the published name of a tensor of the encoder or decoder.

    encoder.layers.0.self_attention.w_q.weight is model.encoder.layers.0.self_attn.q_proj.weight.
    """
    stack, *number, part = name.split(".", 3) if ".layers." in name else name.split(".", 1)
    module, leaf = part.rsplit(".", 1)
    theirs = {"norm": "layer_norm"} | layer_names(stack)
    return ".".join(["model", stack, *number, theirs[module], leaf.replace("gain", "weight")])


def published_names(model: PublishedTransformer) -> dict[str, str]:
    """Return for each tensor of a model the name that it has in a file of its family."""
    c = model.config
    tables = ("source_embedding.weight", "embedding.weight", "output.weight")
    around = dict(zip(tables, TABLES[c.family, c.tables])) | {"bias": "final_logits_bias"}
    return {name: around.get(name) or published_name(name) for name in model.state_dict()}


# %% [markdown]
# Reading is careful. The model is built *without numbers* first, and all names and shapes are
# compared with the file's. So a file that does not fit is refused with one sentence, and nothing
# is loaded half. Tensors are read one at a time and converted to float32: the published files have
# 16 bits.


# %%
def read_model(folder: str | Path) -> PublishedTransformer:
    """Read a published checkpoint into the blocks of the course, in eval mode and float32.

    Raises FileNotFoundError if a file is missing, and ValueError, before any weights are read, if
    it is damaged, of another architecture, or if weights and config do not belong together.
    """
    config = PublishedConfig(**read_options(folder))
    with Unfilled():  # no first weights
        model = PublishedTransformer(config)
    with torch.no_grad():
        positions = fill_weights(folder, config, published_names(model), model.state_dict())
    model.fill_buffers(positions)
    return model.eval()


def load_pretrained(
    name: str | Path, languages: Sequence[str] | None = None
) -> tuple[PublishedTransformer, PublishedTokenizer]:
    """Return a published model and its tokenizer, from a folder or by its name on the hub.

    `languages` are the codes of source and target, for models of many languages. Raises the errors
    of `read_model`, and OSError if the hub cannot be reached.
    """
    folder = checkpoint_folder(name)
    config = PublishedConfig(**read_options(folder))
    tokenizer = read_tokenizer(folder, config.family, languages)
    sizes = (config.source_vocab_size, config.vocab_size)
    check_vocabulary(folder, tokenizer, sizes, config)
    return read_model(folder), tokenizer


# %% [markdown]
# And the way back, so that `transformers` can read what you have trained further:


# %%
def published_weights(model: PublishedTransformer) -> dict[str, Tensor]:
    """Return a model's tensors by their published names."""
    names = published_names(model)
    tensors = {names[ours]: x.detach().cpu().contiguous() for ours, x in model.state_dict().items()}
    if model.config.logits_bias:
        tensors["final_logits_bias"] = rearrange(tensors["final_logits_bias"], "vocab -> 1 vocab")
    table = model.positions.table.cpu()
    own = POSITIONS["halves" if model.config.family == "marian" else "fairseq"](model.config)
    if model.config.family == "fsmt" or not table.equal(own):
        first = fairseq_positions(model.config.pad_id + 1, model.config.d_model)
        first[model.config.pad_id] = 0
        tensors |= position_tensors(model.config.family, first, table)
    return tensors


def save_pretrained(
    model: PublishedTransformer, folder: str | Path, like: str | Path | None = None, **files: dict
) -> Path:
    """Write a model as a folder that `transformers` loads, and return its path.

    The tokenizer and the rules of search are those of the checkpoint `like`; `files` are further
    JSON files, by their names without ".json". Raises ValueError if the folder holds something
    else, OSError if it cannot be written.
    """
    settings = settings_of(asdict(model.config))
    named = {f"{name}.json": content for name, content in files.items()}
    return write_folder(folder, published_weights(model), settings, like, named)


# %% [markdown]
# ## The proof
#
# ### Equal to `transformers`
#
# Read the folder into your blocks. Eight sentences of random ids, padded; how far apart will the
# encoder's states and the logits be?

# %% tags=["active-ipynb"]
# model = read_model(folder)
# src = torch.randint(1, 48, (8, 12))
# src[4:, 8:] = 49  # padding
# real = src != 49
# tgt = torch.randint(1, 48, (8, 6))
# tgt[:, 0] = 49  # decoding starts with padding
#
# with torch.no_grad():
#     reference = theirs(src, real.long(), tgt, use_cache=False)
#     memory = model.encode(src)
#     logits = model.decode(tgt, memory, src)
# torch.testing.assert_close(memory[real], reference.encoder_last_hidden_state[real])
# torch.testing.assert_close(logits, reference.logits, atol=1e-5, rtol=1e-5)
# print("memory", *memory.shape, "· logits", *logits.shape, "· equal")

# %% [markdown]
# They are equal. So the published models *are* the Transformer that you built.
#
# ### The same search
#
# The search of chapter 12 finds what their `generate` finds. It must follow the same rules:
# padding is never written, and a sentence ends when five hypotheses have ended and the best one
# that goes on cannot overtake them.

# %% tags=["active-ipynb"]
# from dataclasses import replace
#
# from transformer.published import read_rules, search_rows
#
# theirs.generation_config.update(bad_words_ids=[[49]], num_beams=5)
# theirs.save_pretrained(folder)
# wanted = theirs.generate(src, attention_mask=real.long(), max_new_tokens=10)[:, 1:]
# rules = replace(read_rules(folder), max_len=10)
# found = [ids for (ids, score), *others in search_rows(read_model(folder), src, rules)]
#
# assert found == [[i for i in row if i != 49] for row in wanted.tolist()]
# print("8 sentences, 5 hypotheses: the same ids")

# %% [markdown]
# ### Out and back
#
# What is written is, bit for bit, what was read:

# %% tags=["active-ipynb"]
# from safetensors.torch import load_file
#
# out = save_pretrained(model, folder / "again", like=folder)
# before = load_file(folder / "model.safetensors")
# after = load_file(out / "model.safetensors")
# assert before.keys() == after.keys()
# assert all(after[name].equal(tensor) for name, tensor in before.items())

# %% [markdown]
# ### The check
#
# The checks need no `transformers`. They make small checkpoints themselves, and compare with a
# Marian model that is written plainly, as functions of a file's tensors. They try the usual
# mistakes: positions in pairs, two norms exchanged, the root of the embedding forgotten or taken
# twice, a bias left out, another first token, a tensor that keeps its random numbers.

# %% tags=["active-ipynb"]
# from transformer.checks import (
#     check_half_positions,
#     check_layer_names,
#     check_published_model,
#     check_read_model,
# )
#
# check_half_positions(half_positions)
# check_layer_names(layer_names)
# check_published_model(PublishedTransformer)
# check_read_model(read_model)

# %% [markdown]
# ### What does not fit is refused
#
# A checkpoint of another architecture, one with a missing tensor, or a wrong size:

# %% tags=["active-ipynb"]
# import json
#
# path = folder / "config.json"
# settings = json.loads(path.read_text())
# for change in ({"model_type": "bart"}, {"encoder_layers": 3}, {"d_model": 32}):
#     path.write_text(json.dumps(settings | change))
#     try:
#         read_model(folder)
#     except ValueError as error:
#         print(str(error).replace(str(folder), "folder")[:160])
# _ = path.write_text(json.dumps(settings))

# %% [markdown]
# ## The look
#
# The same table of positions in pairs and in halves. What was a fine pattern of neighbours becomes
# two smooth halves:

# %% tags=["active-ipynb"]
# from transformer.plotting import plot_bars, plot_matrix
#
# plot_matrix(sinusoidal_positions(32, 32), title="In pairs: chapter 2", center=True)
# plot_matrix(half_positions(32, 32), title="In halves: Marian", center=True)

# %% [markdown]
# ## What if
#
# Switch off one option at a time and leave the weights as they are. No error is raised. How far do
# the logits move, and how many of the most probable tokens change? Which difference will do least?

# %% tags=["active-ipynb", "nbval-ignore-output"]
# switched = {
#     "positions in pairs": {"positions": "paper"},
#     "fairseq's spacing": {"positions": "fairseq"},
#     "ReLU for SiLU": {"activation": "relu"},
#     "GELU for SiLU": {"activation": "gelu"},
#     "no root in the embedding": {"scale_embedding": False},
#     "pre-norm": {"norm": "pre"},
#     "no bias of the logits": {"logits_bias": False},
# }
# weights = model.state_dict()
#
#
# def logits_with(changes):
#     other = PublishedTransformer(replace(model.config, **changes)).eval()
#     other.load_state_dict(weights, strict=False)
#     with torch.no_grad():
#         return other(src, tgt)
#
#
# assert logits_with({}).equal(logits)
# moved = {}
# for name, changes in switched.items():
#     changed = logits_with(changes)
#     moved[name] = (changed - logits).abs().mean().item()
#     tokens = (changed.argmax(-1) != logits.argmax(-1)).float().mean()
#     print(f"{name:26} other tokens {tokens:.0%}")
# assert min(moved.values()) > 0.01

# %% tags=["active-ipynb"]
# from textwrap import fill
#
# labelled = {fill(name, 14): round(mean, 2) for name, mean in moved.items()}
# plot_bars(labelled, ylabel="mean change of a logit", title="One option switched off")

# %% [markdown]
# Every one breaks the model, and none says so: the shapes are right. Even GELU for SiLU, two
# curves that look alike, moves every logit. That is why *parity* is tested with numbers, before
# the first translation is read. A translation that is "almost right" is often a wrong option.

# %% [markdown]
# ## Tokens
#
# A model is useless with the wrong ids. Marian splits text by *sentencepiece*, which is trained
# like chapter 10's tokenizer, but takes the id of each piece from `vocab.json`: **sentencepiece's
# own ids are others**. Models with several target languages begin a source with a tag, `>>ita<<`,
# which is one token. `load_pretrained` returns model and tokenizer together, and refuses a
# vocabulary that does not fit the model.
#
# M2M100 and NLLB put the source language first, and the target language is *forced* as the first
# token that is written.

# %% [markdown]
# ## Translation
#
# Now real weights, if this computer has a network (about 300 MB are downloaded once), and a
# sentence that says so if not. The licence of opus-mt's models is CC-BY-4.0: name the University
# of Helsinki when you use them.

# %% tags=["active-ipynb", "nbval-ignore-output"]
# from transformer.translator import Translator
#
# try:
#     translator = Translator.load("Helsinki-NLP/opus-mt-en-it")
# except (OSError, ValueError) as error:
#     print("skipped:", error)
# else:
#     print(*translator.translate(["I love you very much", "There is a cat on the mat."]), sep="\n")

# %% [markdown]
# From the command line, and to go on training from such weights:
#
# ```
# python -m transformer translate --model Helsinki-NLP/opus-mt-en-it "I love you very much"
# python -m transformer train --init Helsinki-NLP/opus-mt-en-de --corpus multi30k --out runs/tuned
# ```
#
# The folder `runs/tuned` is again one that `transformers` loads.

# %% [markdown]
# ## Exercises
#
# |  | exercise | kind | minutes |  |
# | --- | --- | --- | --- | --- |
# | 13.1 | The table of names | write the block | 15 | ★☆☆ |
# | 13.2 | The ids of a sentence | by hand | 10 | ★☆☆ |
# | 13.3 | Which mistakes raise an error? | predict, then run | 10 | ★★☆ |
# | 13.4 | It loads, and writes nonsense | find the bug | 20 | ★★☆ |
# | 13.5 | A test for a reader of checkpoints | write the test | 25 | ★★★ |
#
# `python -m transformer course start mine` makes a folder of your own with all of them. There
# `course check 13` says what is wrong, and `course hint 13.1` gives a hint.

# %% [markdown]
# ## Summary
#
# A published checkpoint is a table of names and tensors, a config, a vocabulary and rules of
# search. Your blocks run it: the names are mapped, and each difference from the paper is an
# option. Only a comparison of numbers shows that all of them are right.
#
# **Write it from memory**: close the chapter and write `half_positions` and `layer_names`;
# `check_half_positions(half_positions)` and `check_layer_names(layer_names)` say whether they are
# right.

# %% [markdown]
# ## Paper and code
#
# | the paper | published models | here |
# |---|---|---|
# | positions in pairs (section 3.5) | in halves, with two kinds of spacing | `positions` |
# | ReLU (section 3.3) | Marian: SiLU | `activation` |
# | post-norm (section 3.1) | M2M100, NLLB: pre-norm | `norm`, as in chapter 5 |
# | one table (section 3.4) | one, two or three, and a bias | `tables`, `logits_bias` |
# | decoding starts with `<s>` | with padding, or `</s>` | `bos_id` |
# | 16-bit numbers were not used | files in float16 | read as float32 |

# %% [markdown]
# **Shapes so far**
#
# | what | shape | in the tiny model | in opus-mt |
# |---|---|---|---|
# | one table of embeddings | `vocab d_model` | (50, 16) | (58101, 512) |
# | positions | `t d_model` | (64, 16) | (512, 512) |
# | $W_q$, $W_k$, $W_v$, $W_o$ | `d_model d_model` | (16, 16) | (512, 512) |
# | `fc1` | `d_ff d_model` | (32, 16) | (2048, 512) |
# | `final_logits_bias` | `1 vocab` | (1, 50) | (1, 58101) |
# | memory | `b k d_model` | (8, 12, 16) | (64, 8, 512) |
# | logits | `b t vocab` | (8, 6, 50) | (64, 8, 58101) |
#
# [Chapter 14](14_distributed.ipynb) trains one model with several processes, and
# [chapter 15](15_fast_training.ipynb) makes each of them fast.
