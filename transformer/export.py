"""Hand a trained model to other engines: `python -m transformer export --to ctranslate2 | onnx`.

CTranslate2 is an engine made for translation: it searches, and finds the tokens that `beam_search` finds. ONNX is a format
that many runtimes read; it holds the model as two graphs, and whoever runs them searches. Both packages are optional.
"""

import copy
import hashlib
import importlib
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxtyping
import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from transformer.attention import attention
from transformer.data import UNK, cache_dir
from transformer.decoder import DecoderLayer, padding_mask
from transformer.encoder import EncoderLayer
from transformer.model import Config, Transformer, check_ids, load_model
from transformer.multi_head import MultiHeadAttention
from transformer.residual_norm import LayerNorm

CTRANSLATE2_FILES = ("config.json", "model.bin", "shared_vocabulary.json")
ONNX_FILES = ("encoder.onnx", "encoder.onnx.data", "decoder.onnx", "decoder.onnx.data")
NEVER = -10_000.0  # a logit that no other one comes down to, and that float16 can hold
HYPOTHESES = 128  # in a batch of the engine: four times as many are no faster, and leave threads idle at the end
PRECISIONS = {
    "cpu": {"fp32": "float32", "int8": "int8_float32"},
    "cuda": {"fp32": "float32", "int8": "int8_float32", "fp16": "float16", "bf16": "bfloat16"},
}


def export(folder: str | Path, to: str, out: str | Path | None = None) -> Path:
    """Write the translator in `folder`, or of that name, for another engine, and return the folder it is in.

    `to` is "ctranslate2" or "onnx"; without `out` it is written into a folder of that name, beside the model. ValueError
    for another engine, a damaged model, or a package that is missing; FileNotFoundError when there is no model.
    """
    if to not in ("ctranslate2", "onnx"):
        raise ValueError(f"a model can be exported to ctranslate2 or onnx, not to {to!r}")
    source = next((path for path in (Path(folder), cache_dir() / folder) if (path / "config.json").is_file()), None)
    if source is None:
        raise FileNotFoundError(
            f"there is no model {str(folder)!r}: give a folder with config.json and model.safetensors"
        )
    model, out = load_model(source), Path(out or source / to)
    if to == "onnx":
        return export_onnx(model, out)
    return export_ctranslate2(model, read_vocabulary(source / "tokenizer.json"), out)


def read_vocabulary(path: Path) -> Tokenizer:
    """Read a tokenizer.json; ValueError when it is damaged, FileNotFoundError when it is missing."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:
        raise ValueError(f"{path} is not a tokenizer ({error!s:.200})") from None


def optional(package: str, install: str) -> ModuleType:
    """Import a package that not everybody has; ValueError that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"{package} can not be imported ({error}): pip install {install}") from None


# --- writing a folder ------------------------------------------------------------------------------------------------


@contextmanager
def whole_folder(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """Give a draft folder, which takes the place of `out` when all is written: a crash leaves what was there before.

    ValueError if `out` has files other than `names`, which an export did not write and must not remove; OSError if the
    disk is full or read-only.
    """
    draft, old = (out.with_name(f".{out.name}.{word}") for word in ("draft", "old"))
    if old.is_dir() and not out.exists():  # a crash came between the two renames
        os.replace(old, out)
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - set(names)):
        raise ValueError(f"{out} holds something that is not an export: name a folder that is new")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        flush(draft)
        put_in_place(draft, out, old)
    except OSError as error:
        raise OSError(f"could not write {out} ({error.strerror}); what was there before is untouched") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def flush(folder: Path) -> None:
    """Wait until the files of a folder are on the disk."""
    for path in folder.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def put_in_place(draft: Path, out: Path, old: Path) -> None:
    """Rename `draft` to `out`; a folder can't replace another one, so what was there steps aside and is then removed."""
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    try:
        os.replace(draft, out)
    except OSError:
        if old.exists():
            os.replace(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)


# --- CTranslate2 -----------------------------------------------------------------------------------------------------


def export_ctranslate2(model: Transformer, tokenizer: Tokenizer, out: str | Path) -> Path:
    """Write the model as a CTranslate2 folder in float32, and return its path.

    The engine converts to other precisions when it loads. Sources are to be given with </s>, as `encode` makes them.
    ValueError when the package is missing, tokenizer and model don't belong together, or `out` holds something else.
    """
    specs = optional("ctranslate2", "ctranslate2").specs
    config, out = model.config, Path(out).resolve()
    tokens = [tokenizer.id_to_token(i) for i in range(config.vocab_size)]
    if tokenizer.get_vocab_size() != config.vocab_size or None in tokens:
        entries = tokenizer.get_vocab_size()
        raise ValueError(
            f"the tokenizer has {entries} entries and the model {config.vocab_size}: they do not belong together"
        )
    spec = specs.TransformerSpec.from_config(config.n_layers, config.n_heads, pre_norm=config.norm == "pre")
    fill_model(spec, model)
    describe(spec, model, tokens)
    with whole_folder(out, CTRANSLATE2_FILES) as draft:
        spec.save(str(draft))
    return out


def fill_model(spec: Any, model: Transformer) -> None:
    """Write all weights into CTranslate2's specification, which names and groups them in its own way."""
    for side, stack in ((spec.encoder, model.encoder), (spec.decoder, model.decoder)):
        embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        embeddings.weight = array(model.embedding.weight)
        side.position_encodings.encodings = array(model.positions.table)
        if isinstance(stack.norm, LayerNorm):
            fill_norm(side.layer_norm, stack.norm)
        for layer_spec, layer in zip(side.layer, stack.layers, strict=True):
            fill_layer(layer_spec, layer)
    bias = model.bias.detach().clone()
    bias[[model.config.pad_id, model.config.bos_id]] = NEVER
    spec.decoder.projection.weight, spec.decoder.projection.bias = array(model.embedding.weight), array(bias)


def fill_layer(spec: Any, layer: EncoderLayer | DecoderLayer) -> None:
    """Write a layer of the encoder or the decoder; the norm of a residual belongs to its sublayer there."""
    look, think = layer.self_attention, layer.feed_forward
    fill_linears(spec.self_attention.linear, [look.w_q, look.w_k, look.w_v], [look.w_o])
    fill_norm(spec.self_attention.layer_norm, layer.residuals[0].norm)
    if isinstance(layer, DecoderLayer):
        ask = layer.cross_attention
        fill_linears(spec.attention.linear, [ask.w_q], [ask.w_k, ask.w_v], [ask.w_o])
        fill_norm(spec.attention.layer_norm, layer.residuals[1].norm)
    fill_linears([spec.ffn.linear_0, spec.ffn.linear_1], [think.w_1], [think.w_2])
    fill_norm(spec.ffn.layer_norm, layer.residuals[-1].norm)


def fill_linears(specs: Sequence[Any], *groups: Sequence[nn.Linear]) -> None:
    """Write groups of linear layers, each group as one layer: the rows of the first, then those of the next."""
    for spec, group in zip(specs, groups, strict=True):
        spec.weight = array(torch.cat([linear.weight for linear in group]))
        spec.bias = array(torch.cat([linear.bias for linear in group]))


def fill_norm(spec: Any, norm: LayerNorm) -> None:
    """Write gain and bias of a norm."""
    spec.gamma, spec.beta = array(norm.gain), array(norm.bias)


def array(tensor: Tensor) -> np.ndarray:
    """Return a tensor of any device and precision as a float32 array."""
    return tensor.detach().cpu().float().contiguous().numpy()


def describe(spec: Any, model: Transformer, tokens: list[str]) -> None:
    """Write vocabulary and settings, have the specification checked, and let equal weights be stored once."""
    config = model.config
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.unk_token = tokens[UNK] if len(tokens) > UNK else tokens[config.pad_id]
    spec.config.bos_token = spec.config.decoder_start_token = tokens[config.bos_id]
    spec.config.eos_token = tokens[config.eos_id]
    spec.config.layer_norm_epsilon = model.encoder.layers[0].residuals[0].norm.eps
    spec.config.add_attribute("weights", fingerprint(model))
    spec.validate()
    spec.optimize()


def fingerprint(model: Transformer) -> str:
    """Return a hash of sizes, gains and biases: every step of training changes it, and it is quickly made."""
    found = hashlib.sha256(repr(model.config).encode())
    for parameter in model.parameters():
        if parameter.dim() == 1:
            found.update(array(parameter).tobytes())
    return found.hexdigest()


def current_ctranslate2(model: Transformer, tokenizer: Tokenizer, out: str | Path) -> Path:
    """Return the folder `out` with the model for CTranslate2; write it if it is missing or was made of other weights."""
    path = Path(out).resolve()
    try:
        made_of = json.loads((path / "config.json").read_text(encoding="utf-8"))["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        made_of = None
    whole = all((path / name).is_file() for name in CTRANSLATE2_FILES)
    return path if whole and made_of == fingerprint(model) else export_ctranslate2(model, tokenizer, out)


class CTranslate2Engine:
    """Search with CTranslate2: the tokens of `beam_search`, several batches at once.

    `folder` is what `export_ctranslate2` wrote for a model with this `config`. `precision` is fp32 or int8, on CUDA also
    fp16 or bf16. So many batches as `threads` says (on a CPU by default: PyTorch's number) are searched at once, on one
    thread each. ValueError for a precision or device that can't be, a missing package and a folder of another model.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Config,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
    ):
        place = torch.device(device)
        kind = compute_type(place.type, precision)
        self.config, self.tokens = config, read_tokens(Path(folder), config)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.threads = (torch.get_num_threads() if place.type == "cpu" else 1) if threads is None else threads
        self.translator = start(Path(folder), place, compute_type=kind, inter_threads=self.threads)

    def search(
        self, rows: Sequence[Sequence[int]], beam_size: int = 5, length_penalty: float = 1.0, max_len: int = 64
    ) -> list[list[int]]:
        """Return for each row of source ids what `beam_search` finds: without <s> and padding, with </s> if it ended."""
        return next(self.search_all([(rows, max_len)], beam_size, length_penalty))

    def search_all(
        self, groups: Iterable[tuple[Sequence[Sequence[int]], int]], beam_size: int = 5, length_penalty: float = 1.0
    ) -> Iterator[list[list[int]]]:
        """Yield what `search` returns for every group of rows with its max_len; all groups are worked on at once."""
        groups = [(rows, max_len) for rows, max_len in groups]
        check_search(groups, beam_size, self.config)
        share = math.ceil(sum(len(rows) for rows, _ in groups) / self.threads)
        # Told 0, it would end by another rule: when the best hypothesis has. So little changes no rank.
        options = dict(beam_size=beam_size, length_penalty=length_penalty or 1e-12)
        options["max_batch_size"] = max(1, min(share, HYPOTHESES // beam_size))
        waiting = [self.begin(rows, min(max_len, self.config.max_len), options) for rows, max_len in groups]
        for results in waiting:
            yield [[self.ids[token] for token in result.result().hypotheses[0]] for result in results]

    def begin(self, rows: Sequence[Sequence[int]], max_len: int, options: dict[str, Any]) -> list[Any]:
        """Hand in a group of rows and return their results, which are still to come."""
        texts = [[self.tokens[i] for i in row] for row in rows]
        limits = dict(max_input_length=0, min_decoding_length=0, max_decoding_length=max_len)
        # Without the end token its engine would not count it in the length by which a hypothesis is ranked.
        return self.translator.translate_batch(texts, **options, **limits, return_end_token=True, asynchronous=True)


def compute_type(device: str, precision: str) -> str:
    """Return CTranslate2's name for a precision; ValueError if there is no such one on that kind of device."""
    if precision not in PRECISIONS.get(device, ()):
        known = "; ".join(f"on {name} {', '.join(kinds)}" for name, kinds in PRECISIONS.items())
        raise ValueError(f"CTranslate2 has no precision {precision!r} on {device}, only {known}")
    return PRECISIONS[device][precision]


def start(folder: Path, place: torch.device, inter_threads: int, **options: Any) -> Any:
    """Start CTranslate2 on a folder; ValueError when it can't read it or has no such device."""
    if inter_threads < 1:
        raise ValueError(f"threads must be at least 1, not {inter_threads}")
    options |= dict(device_index=place.index or 0, inter_threads=inter_threads, intra_threads=1, max_queued_batches=-1)
    translator, threads = optional("ctranslate2", "ctranslate2").Translator, torch.get_num_threads()
    try:
        return translator(str(folder), place.type, **options)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"CTranslate2 can not load {folder} on {place} ({error!s:.200})") from None
    finally:
        torch.set_num_threads(threads)  # it sets OpenMP's number, which is PyTorch's, too, but not MKL's


def read_tokens(folder: Path, config: Config) -> list[str]:
    """Read the vocabulary of a CTranslate2 folder; ValueError when it is damaged or of another model."""
    path = folder / "shared_vocabulary.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no CTranslate2 model in {folder}: `python -m transformer export` writes one")
    try:
        tokens = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!s:.200})") from None
    if not isinstance(tokens, list) or not len(tokens) == len(set(map(str, tokens))) == config.vocab_size:
        raise ValueError(f"{path} is not a vocabulary of {config.vocab_size} tokens: it belongs to another model")
    return tokens


def check_search(groups: Sequence[tuple[Sequence[Sequence[int]], int]], beam_size: int, config: Config) -> None:
    """Raise a ValueError for what the engine would truncate, search in another way than `beam_search`, or stumble over."""
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, not {beam_size}")
    # It takes 2 · beam_size candidates, also those that can't be; `beam_search` leaves these out.
    if 2 * beam_size > config.vocab_size - 2:
        raise ValueError(f"beam_size {beam_size} is too wide for a vocabulary of {config.vocab_size} tokens")
    rows = [row for rows, _ in groups for row in rows]
    check_ids("rows", torch.tensor([i for row in rows for i in row]), config.vocab_size)
    special = {config.pad_id, config.bos_id, config.eos_id}
    for number, row in enumerate(rows, start=1):
        if len(row) > config.max_len:
            raise ValueError(f"row {number} has {len(row)} tokens, the model's max_len is {config.max_len}: split it")
        # Without a word it would search nothing, and padding it would read like a word.
        if len(row) < 2 or row[-1] != config.eos_id or not special.isdisjoint(row[:-1]):
            raise ValueError(f"row {number} is not a sentence, words and then </s>: {list(row[:8])}")


# --- ONNX ------------------------------------------------------------------------------------------------------------


class EncoderGraph(nn.Module):
    """`Transformer.encode` as a graph: without the look at the values of ids, which a tracer can't follow."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, src: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
        return self.model.encoder(self.model.embed(src), padding_mask(src, self.model.config.pad_id))


class DecoderGraph(EncoderGraph):
    """`Transformer.decode` as a graph: the logits of the token after each target position."""

    def forward(
        self, tgt: Int[Tensor, "b t"], memory: Float[Tensor, "b k d"], src: Int[Tensor, "b k"]
    ) -> Float[Tensor, "b t v"]:
        model, src_mask = self.model, padding_mask(src, self.model.config.pad_id)
        return model.logits(model.decoder(model.embed(tgt), memory, model.past(tgt), src_mask))


def export_onnx(model: Transformer, out: str | Path) -> Path:
    """Write encoder.onnx (src → memory) and decoder.onnx (tgt, memory, src → logits), and return their folder.

    Ids are int64, the rest is float32; b, t and k may be any from 1 to the model's max_len. Ids are not checked.
    ValueError when a package is missing or `out` holds something else.
    """
    optional("onnxscript", "onnx onnxscript")
    out, model = Path(out).resolve(), plain(model)
    length = min(7, model.config.max_len)
    src, tgt = torch.full((2, length), model.config.eos_id), torch.full((2, max(1, length - 2)), model.config.eos_id)
    memory = torch.zeros(2, length, model.config.d_model)
    with whole_folder(out, ONNX_FILES) as draft, tracing():
        write_graph(EncoderGraph(model), {"src": src}, "memory", draft / "encoder.onnx")
        write_graph(DecoderGraph(model), {"tgt": tgt, "memory": memory, "src": src}, "logits", draft / "decoder.onnx")
    return out


def plain(model: Transformer) -> Transformer:
    """Return a copy that a tracer can follow: on the CPU, in float32, without dropout, with plain blocks."""
    model = copy.deepcopy(model).cpu().float().eval()
    vars(model).pop("past", None)  # of a quick one, which speaks to its own kernel
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.kernel = attention
        if isinstance(module, nn.Linear):
            module.__class__ = nn.Linear  # also a quick one: the same weights, multiplied as usual
    return model


def write_graph(graph: nn.Module, inputs: dict[str, Tensor], output: str, path: Path) -> None:
    """Trace a graph on some inputs, with any batch and any length, and write it."""
    axes = {"src": {0: "b", 1: "k"}, "memory": {0: "b", 1: "k"}, "tgt": {0: "b", 1: "t"}}
    program = torch.onnx.export(
        graph.eval(),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=tuple(axes[name] for name in inputs),
        dynamo=True,
        verbose=False,
    )
    size = sum(parameter.numel() * parameter.element_size() for parameter in graph.parameters())
    program.save(path, external_data=size > 2**30)  # one file can hold 2 GiB


@contextmanager
def tracing() -> Iterator[None]:
    """Switch off what a tracer stumbles over, checks of types by jaxtyping, and what its user need not read.

    Those are the exporter's remarks about its own insides and about torchvision.
    """
    logger = logging.getLogger("torch.onnx")
    level, disabled = logger.level, jaxtyping.config.jaxtyping_disable
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            yield
        finally:
            logger.setLevel(level)
            jaxtyping.config.update("jaxtyping_disable", disabled)
