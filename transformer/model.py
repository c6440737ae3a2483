# %% [markdown]
r"""
# 9 · The whole model

**All parts are on the table. Put together, they turn a source and the beginning of a target into a guess at what comes next.**
"""

# %%
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from transformer.decoder import Decoder, causal_mask, padding_mask
from transformer.embeddings import TokenEmbedding
from transformer.encoder import Encoder
from transformer.positional_encoding import PositionalEncoding
from transformer.residual_norm import PostNorm, PreNorm

# %% [markdown]
# ## The definition


# %%
@dataclass(frozen=True)
class Config:
    """Sizes of a model; what can't be is refused with a ValueError. Source of the presets: Vaswani et al. 2017, table 3."""

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
        for name in ("vocab_size", "d_model", "n_heads", "n_layers", "d_ff", "max_len"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {getattr(self, name)!r}")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} must be divisible by n_heads={self.n_heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {self.norm!r}")
        special = (self.pad_id, self.bos_id, self.eos_id)
        if len(set(special)) < 3 or not all(0 <= i < self.vocab_size for i in special):
            raise ValueError(
                f"pad_id, bos_id, eos_id must be three different ids below {self.vocab_size}, not {special}"
            )

    @classmethod
    def base(cls, vocab_size: int = 37_000, **changes) -> "Config":
        """Return the paper's base model: 65 million parameters."""
        return cls(vocab_size, **changes)

    @classmethod
    def big(cls, vocab_size: int = 37_000, **changes) -> "Config":
        """Return the paper's big model: 213 million parameters."""
        return cls(vocab_size, **dict(d_model=1024, n_heads=16, d_ff=4096, dropout=0.3) | changes)

    @classmethod
    def tiny(cls, vocab_size: int, **changes) -> "Config":
        """Return the small model of Wu et al. 2021, made for Multi30k: 2.6 million parameters at 10,000 subwords."""
        return cls(vocab_size, **dict(d_model=128, n_heads=4, n_layers=4, d_ff=256, dropout=0.3) | changes)


NORMS = {"post": PostNorm, "pre": PreNorm}


# %% tags=["exercise"]
class Transformer(nn.Module):
    """The encoder-decoder of the paper: source ids and target ids in, logits for every next target token out.

    One table embeds source and target and, read the other way, makes the logits: x Eᵀ + b.
    Source: Vaswani et al. 2017, figure 1 and section 3.4.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        sizes = (config.n_layers, config.d_model, config.n_heads, config.d_ff, config.dropout, NORMS[config.norm])
        self.embedding = TokenEmbedding(config.vocab_size, config.d_model)
        self.positions = PositionalEncoding(config.d_model, config.max_len)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = Encoder(*sizes)
        self.decoder = Decoder(*sizes)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def embed(self, ids: Int[Tensor, "b t"], start: int = 0) -> Float[Tensor, "b t d"]:
        """Return the sum of word and position; `start` is the position of the first column."""
        return self.dropout(self.positions(self.embedding(ids), start))

    def encode(self, src: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
        """Return the memory: one vector for each source token, computed once for a sentence."""
        check_ids("src", src, self.config.vocab_size)
        return self.encoder(self.embed(src), padding_mask(src, self.config.pad_id))

    def states(
        self, tgt: Int[Tensor, "b t"], memory: Float[Tensor, "b k d"], src: Int[Tensor, "b k"]
    ) -> Float[Tensor, "b t d"]:
        """Return the decoder's output, one vector for each target position."""
        check_ids("tgt", tgt, self.config.vocab_size)
        tgt_mask = causal_mask(tgt.shape[1], tgt.device) & padding_mask(tgt, self.config.pad_id)
        return self.decoder(self.embed(tgt), memory, tgt_mask, padding_mask(src, self.config.pad_id))

    def logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        """Return the scores of every vocabulary entry, before softmax."""
        return F.linear(x, self.embedding.weight, self.bias)

    def decode(self, tgt: Tensor, memory: Tensor, src: Tensor) -> Float[Tensor, "b t v"]:
        """Return the logits of the token after each target position, given the encoder's memory of `src`."""
        return self.logits(self.states(tgt, memory, src))

    def forward(self, src: Int[Tensor, "b k"], tgt: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Return the logits of the token after each target position."""
        return self.decode(tgt, self.encode(src), src)


# %%
def check_ids(name: str, ids: Tensor, vocab_size: int) -> None:
    """Raise a ValueError when an id is outside the vocabulary, before a kernel stumbles over it."""
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise ValueError(f"{name} has ids from {ids.min()} to {ids.max()}, but the vocabulary ends at {vocab_size - 1}")


# %% [markdown]
# ## Saving and loading


# %%
def write_safely(path: Path, content: bytes) -> None:
    """Write a file so that a crash or a full disk leaves the old one as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


# %%
def save_model(model: Transformer, folder: str | Path) -> None:
    """Write config.json and model.safetensors into `folder`."""
    write_safely(Path(folder) / "config.json", json.dumps(asdict(model.config), indent=2).encode())
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_safely(Path(folder) / "model.safetensors", save(weights))


# %%
def read_config(path: str | Path) -> Config:
    """Read a config.json; ValueError when it is not the config of a model."""
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
        return Config(**settings)
    except (TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        known = ", ".join(field.name for field in fields(Config))
        raise ValueError(f"{path} is not a config: it must be a JSON object with {known} ({error})") from None


# %%
def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file; ValueError when it is cut off or something else."""
    try:
        return load(Path(path).read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error})") from None


# %%
def load_model(folder: str | Path) -> Transformer:
    """Read the model that `save_model` wrote; ValueError when weights and config do not belong together."""
    model = Transformer(read_config(Path(folder) / "config.json"))
    weights = read_tensors(Path(folder) / "model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if shapes != wanted:
        name = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))[0]
        raise ValueError(
            f"the weights in {folder} belong to another config: {name} is {shapes.get(name, 'missing')}, "
            f"wanted {wanted.get(name, 'no such tensor')}"
        )
    model.load_state_dict(weights)
    return model.eval()
