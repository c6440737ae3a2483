"""ONNX: the model as two graphs that many runtimes read, and an engine that runs them.

The packages are optional (`pip install onnx onnxscript` to export, `onnxruntime` to search) and
imported when they are needed.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jaxtyping
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer.attention import attention_weights
from transformer.engines.protocol import Group, Hypothesis, Search, check_process, check_rows
from transformer.engines.pytorch import search_group
from transformer.engines.weights import export_if_stale, optional, weights_hash
from transformer.files import atomic_folder
from transformer.inference import RecomputingDecoder
from transformer.model import Config, Transformer
from transformer.multi_head import MultiHeadAttention

GRAPHS = ("encoder.onnx", "decoder.onnx")
ONNX_FILES = ("config.json", *GRAPHS, "encoder.onnx.data", "decoder.onnx.data")
ONE_FILE = 2**30
"""Bytes of weights that go into the graph's own file, which can hold 2 GiB."""


# --- export ---------------------------------------------------------------------------------------


def export_onnx(model: Transformer, out: str | Path) -> Path:
    """Write encoder.onnx (src → memory) and decoder.onnx (tgt, memory, src → logits) into `out`.

    Ids are int64, everything else is float32; b, t and k may be any from 1 to the model's max_len.
    The graphs do not check ids. config.json holds the model's config and a hash of its weights.
    Raises ValueError if a package is missing or `out` holds something else; OSError if it cannot be
    written.
    """
    optional("onnxscript", "onnx onnxscript")
    out = Path(out).resolve()
    config = model.config
    about = asdict(config) | {"weights": weights_hash(model)}
    length = min(7, config.max_len)
    src = torch.full((2, length), config.eos_id)
    tgt = torch.full((2, max(1, length - 2)), config.eos_id)
    memory = torch.zeros(2, length, config.d_model)
    with atomic_folder(out, ONNX_FILES) as draft, tracing():
        model = exportable(model)
        inputs = {"tgt": tgt, "memory": memory, "src": src}
        write_graph(EncoderGraph(model), {"src": src}, "memory", draft / "encoder.onnx")
        write_graph(DecoderGraph(model), inputs, "logits", draft / "decoder.onnx")
        (draft / "config.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
    return out


def current_onnx(model: Transformer, out: str | Path) -> Path:
    """Return the ONNX folder `out`; write it if it is missing or has other weights."""
    out = Path(out).resolve()

    def write() -> Path:
        return export_onnx(model, out)

    return export_if_stale(out, GRAPHS, model, write)


class EncoderGraph(nn.Module):
    """`Transformer.encode` as a module that can be exported."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, src: Int[Tensor, "b k"]) -> Float[Tensor, "b k d_model"]:
        return self.model.encode(src)


class DecoderGraph(EncoderGraph):
    """`Transformer.decode` as a module that can be exported."""

    def forward(
        self, tgt: Int[Tensor, "b t"], memory: Float[Tensor, "b k d_model"], src: Int[Tensor, "b k"]
    ) -> Float[Tensor, "b t vocab"]:
        return self.model.decode(tgt, memory, src)


def exportable(model: Transformer) -> Transformer:
    """Return a plain copy of a model: on the CPU, in float32, without dropout."""
    with torch.random.fork_rng(devices=[]):
        copy = Transformer(model.config)
    copy.load_state_dict(model.state_dict())
    copy.positions.table.copy_(model.positions.table)  # computed, so it is not in the state_dict
    for module in copy.modules():
        if isinstance(module, MultiHeadAttention):
            module.attention_fn = attention_by_formula
    return copy.eval().requires_grad_(False)


def attention_by_formula(
    q: Float[Tensor, "b h q d_head"],
    k: Float[Tensor, "b h k d_head"],
    v: Float[Tensor, "b h k d_head"],
    mask: Bool[Tensor, "#b #h #q #k"] | None = None,
) -> Float[Tensor, "b h q d_head"]:
    """Return `attention` without the fused kernel.

    The kernel gives zeros to a query that may attend to nothing, but the operators that it is
    exported as do not.
    """
    return attention_weights(q, k, mask) @ v


def write_graph(graph: nn.Module, inputs: dict[str, Tensor], output: str, path: Path) -> None:
    """Trace a graph on example inputs, with any batch size and any length, and write it."""
    axes = {"src": {0: "b", 1: "k"}, "memory": {0: "b", 1: "k"}, "tgt": {0: "b", 1: "t"}}
    program: Any = torch.onnx.export(
        graph.eval(),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=tuple(axes[name] for name in inputs),
        dynamo=True,
        verbose=False,
    )
    size = sum(parameter.numel() * parameter.element_size() for parameter in graph.parameters())
    program.save(path, external_data=size > ONE_FILE)


@contextmanager
def tracing() -> Iterator[None]:
    """Switch off jaxtyping's checks, which cannot be traced, and the exporter's messages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    disabled = jaxtyping.config.jaxtyping_disable
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            yield
        finally:
            logger.setLevel(level)
            jaxtyping.config.update("jaxtyping_disable", disabled)


# --- search ---------------------------------------------------------------------------------------


class OnnxEngine:
    """Search with ONNX Runtime on a CPU, in float32.

    The graphs have no cache, so every step reads again all that was written: simple, and slower
    than the other engines for long sentences. `folder` is what `export_onnx` wrote for a model with
    this `config`. Raises ValueError if the package is missing or the folder is of another model.
    """

    def __init__(self, folder: str | Path, config: Config):
        self.folder = Path(folder).resolve()
        self.config = config
        self.model = OnnxTransformer(self.folder, config)
        self.process = os.getpid()

    def __reduce__(self) -> tuple:
        """Rebuild a copy from the folder; it must still be there when the copy is unpickled."""
        return OnnxEngine, (self.folder, self.config)

    def search_all(
        self, groups: Sequence[Group], search: Search = Search()
    ) -> Iterator[list[list[Hypothesis]]]:
        """Yield the hypotheses of each group; see `Engine.search_all`.

        Raises RuntimeError after a fork.
        """
        check_process(self.process, os.getpid(), "ONNX")
        check_rows(groups, self.config)
        for group in groups:
            yield search_group(self.model, group, search, RecomputingDecoder)


class OnnxTransformer(Transformer):
    """A Transformer whose `encode` and `decode` are ONNX graphs; its own weights hold no numbers.

    So the searches of chapter 12 run on it unchanged, with a decoder that has no cache.
    """

    def __init__(self, folder: Path, config: Config):
        with torch.device("meta"):
            super().__init__(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size), requires_grad=False)
        check_config(folder, config)
        encoder, decoder = (start(folder / name) for name in GRAPHS)
        self.encoder_graph = encoder
        self.decoder_graph = decoder
        self.eval()

    def encode(self, src: Int[Tensor, "b k"]) -> Float[Tensor, "b k d_model"]:
        """Return the memory."""
        (memory,) = self.encoder_graph.run(None, {"src": src.numpy()})
        return torch.from_numpy(memory)

    def decode(
        self, tgt: Int[Tensor, "b t"], memory: Float[Tensor, "b k d_model"], src: Int[Tensor, "b k"]
    ) -> Float[Tensor, "b t vocab"]:
        """Return the logits of the token after each target position."""
        inputs = {"tgt": tgt.numpy(), "memory": memory.numpy(), "src": src.numpy()}
        (logits,) = self.decoder_graph.run(None, inputs)
        return torch.from_numpy(logits)


def check_config(folder: Path, config: Config) -> None:
    """Raise FileNotFoundError if a folder has no graphs, ValueError if they have another config."""
    path = folder / "config.json"
    if not all((folder / name).is_file() for name in ("config.json", *GRAPHS)):
        raise FileNotFoundError(
            f"there is no ONNX model in {folder}: `python -m transformer export` writes one"
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        found = {name: about[name] for name in asdict(config)}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!s:.200})") from None
    if found != asdict(config):
        raise ValueError(f"{path} belongs to another model: {found}, wanted {asdict(config)}")


def start(path: Path) -> Any:
    """Load a graph into ONNX Runtime; ValueError if it cannot read it."""
    runtime = optional("onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"ONNX Runtime cannot load {path} ({error!s:.200})") from None
