import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.decoder import Decoder, causal_mask, padding_mask
from transformer.embeddings import TokenEmbedding
from transformer.encoder import Encoder
from transformer.model import NORMS, Config, Transformer, init_weights
from transformer.positional_encoding import PositionalEncoding, sinusoidal_positions
from transformer.published import (
    PublishedTokenizer,
    check_vocabulary,
    checkpoint_folder,
    position_tensors,
    read_options,
    read_tokenizer,
    read_weights,
    settings_of,
    write_folder,
)
from transformer.published.families import TABLES


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
        sizes = {each.name: getattr(self, each.name) for each in fields(Config)}
        encoder = dict(
            vocab_size=self.source_vocab_size,
            n_layers=self.encoder_layers,
            n_heads=self.encoder_heads,
            d_ff=self.encoder_d_ff,
        )
        for changes in ({}, encoder):  # each raises for impossible sizes
            Config(**sizes | changes | dict(pad_id=0, bos_id=1, eos_id=2))
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
        for layer in (*self.encoder.layers, *self.decoder.layers):
            layer.feed_forward.activation = ACTIVATIONS[c.activation]
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


ENCODER_LAYER = {
    "self_attention.w_q": "self_attn.q_proj",
    "self_attention.w_k": "self_attn.k_proj",
    "self_attention.w_v": "self_attn.v_proj",
    "self_attention.w_o": "self_attn.out_proj",
    "residuals.0.norm": "self_attn_layer_norm",
    "feed_forward.w_1": "fc1",
    "feed_forward.w_2": "fc2",
    "residuals.1.norm": "final_layer_norm",
}
DECODER_LAYER = ENCODER_LAYER | {
    "cross_attention.w_q": "encoder_attn.q_proj",
    "cross_attention.w_k": "encoder_attn.k_proj",
    "cross_attention.w_v": "encoder_attn.v_proj",
    "cross_attention.w_o": "encoder_attn.out_proj",
    "residuals.1.norm": "encoder_attn_layer_norm",
    "residuals.2.norm": "final_layer_norm",
}


def published_name(name: str) -> str:
    """Return the published name of a tensor of the encoder or decoder.

    encoder.layers.0.self_attention.w_q.weight is model.encoder.layers.0.self_attn.q_proj.weight.
    """
    stack, *number, part = name.split(".", 3) if ".layers." in name else name.split(".", 1)
    module, leaf = part.rsplit(".", 1)
    layer = ENCODER_LAYER if stack == "encoder" else DECODER_LAYER
    theirs = {"norm": "layer_norm"} | layer
    return ".".join(["model", stack, *number, theirs[module], leaf.replace("gain", "weight")])


def published_names(model: PublishedTransformer) -> dict[str, str]:
    """Return for each tensor of a model the name that it has in a file of its family."""
    c = model.config
    tables = ("source_embedding.weight", "embedding.weight", "output.weight")
    around = dict(zip(tables, TABLES[c.family, c.tables])) | {"bias": "final_logits_bias"}
    return {name: around.get(name) or published_name(name) for name in model.state_dict()}


def read_model(folder: str | Path) -> PublishedTransformer:
    """Read a published checkpoint into the blocks of the course, in eval mode and float32.

    Raises FileNotFoundError if a file is missing, and ValueError, before any weights are read, if
    it is damaged, of another architecture, or if weights and config do not belong together.
    """
    config = PublishedConfig(**read_options(folder))
    with torch.device("meta"):  # shapes without numbers
        model = PublishedTransformer(config)
    weights, positions = read_weights(folder, config, published_names(model), model.state_dict())
    model.load_state_dict(weights, assign=True)
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
    JSON files, by their names without ".json". Raises ValueError if
    the folder holds something else, OSError if it cannot be written.
    """
    settings = settings_of(asdict(model.config))
    named = {f"{name}.json": content for name, content in files.items()}
    return write_folder(folder, published_weights(model), settings, like, named)
