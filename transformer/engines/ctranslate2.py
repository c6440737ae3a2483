"""CTranslate2: an engine made for translation, which finds the tokens that `beam_search` finds.

The package is optional (`pip install ctranslate2`) and imported when it is needed.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from transformer.data import UNK
from transformer.decoder import DecoderLayer
from transformer.encoder import EncoderLayer
from transformer.engines.protocol import Group, Hypothesis, Search, check_process, check_rows
from transformer.engines.weights import as_array, export_if_stale, optional, weights_hash
from transformer.files import atomic_folder
from transformer.model import Config, Transformer
from transformer.residual_norm import LayerNorm

CTRANSLATE2_FILES = ("config.json", "model.bin", "shared_vocabulary.json")
NEVER = -10_000.0
"""A logit below all others that float16 can hold."""
HYPOTHESES = 128
"""In one batch: four times as many are no faster, and leave threads idle at the end."""
PRECISIONS = {
    "cpu": {"fp32": "float32", "int8": "int8_float32"},
    "cuda": {"fp32": "float32", "int8": "int8_float32", "fp16": "float16", "bf16": "bfloat16"},
}


# --- export ---------------------------------------------------------------------------------------


def export_ctranslate2(model: Transformer, tokenizer: Tokenizer, out: str | Path) -> Path:
    """Write the model as a CTranslate2 folder in float32, and return its path.

    CTranslate2 converts to other precisions when it loads. Its sources must end with </s>, as
    `encode` makes them. Raises ValueError if the package is missing, if the tokenizer belongs to
    another model, or if `out` holds something else; OSError if it cannot be written.
    """
    specs = optional("ctranslate2", "ctranslate2").specs
    config = model.config
    out = Path(out).resolve()
    entries = tokenizer.get_vocab_size()
    known = [tokenizer.id_to_token(i) for i in range(config.vocab_size)]
    tokens = [token for token in known if token is not None]
    if not entries == len(tokens) == config.vocab_size:
        raise ValueError(
            f"the tokenizer has {entries} entries and the model {config.vocab_size}: "
            "they do not belong together"
        )
    pre_norm = config.norm == "pre"
    spec = specs.TransformerSpec.from_config(config.n_layers, config.n_heads, pre_norm=pre_norm)
    fill_model(spec, model)
    describe(spec, model, tokens)
    with atomic_folder(out, CTRANSLATE2_FILES) as draft:
        spec.save(str(draft))
    return out


def current_ctranslate2(model: Transformer, tokenizer: Tokenizer, out: str | Path) -> Path:
    """Return the CTranslate2 folder `out`; write it if it is missing or has other weights."""
    out = Path(out).resolve()

    def write() -> Path:
        return export_ctranslate2(model, tokenizer, out)

    return export_if_stale(out, CTRANSLATE2_FILES, model, write)


def fill_model(spec: Any, model: Transformer) -> None:
    """Copy all weights into CTranslate2's specification, which has its own names and groups."""
    for side, stack in ((spec.encoder, model.encoder), (spec.decoder, model.decoder)):
        listed = isinstance(side.embeddings, list)
        embeddings = side.embeddings[0] if listed else side.embeddings
        embeddings.weight = as_array(model.embedding.weight)
        side.position_encodings.encodings = as_array(model.positions.table)
        if isinstance(stack.norm, LayerNorm):
            fill_norm(side.layer_norm, stack.norm)
        layers: Any = stack.layers
        for layer_spec, layer in zip(side.layer, layers, strict=True):
            fill_layer(layer_spec, layer)
    bias = model.bias.detach().clone()
    bias[[model.config.pad_id, model.config.bos_id]] = NEVER
    spec.decoder.projection.weight = as_array(model.embedding.weight)
    spec.decoder.projection.bias = as_array(bias)


def fill_layer(spec: Any, layer: EncoderLayer | DecoderLayer) -> None:
    """Copy a layer of the encoder or decoder; the specification keeps norms in the sublayers."""
    attention = layer.self_attention
    qkv = [attention.w_q, attention.w_k, attention.w_v]
    fill_linears(spec.self_attention.linear, qkv, [attention.w_o])
    fill_norm(spec.self_attention.layer_norm, layer.residuals[0].norm)
    if isinstance(layer, DecoderLayer):
        cross = layer.cross_attention
        fill_linears(spec.attention.linear, [cross.w_q], [cross.w_k, cross.w_v], [cross.w_o])
        fill_norm(spec.attention.layer_norm, layer.residuals[1].norm)
    hidden = layer.feed_forward
    fill_linears([spec.ffn.linear_0, spec.ffn.linear_1], [hidden.w_1], [hidden.w_2])
    fill_norm(spec.ffn.layer_norm, layer.residuals[-1].norm)


def fill_linears(specs: Sequence[Any], *groups: Sequence[nn.Linear]) -> None:
    """Copy groups of linear layers; the layers of a group are stacked and become one layer."""
    for spec, group in zip(specs, groups, strict=True):
        spec.weight = as_array(torch.cat([linear.weight for linear in group]))
        spec.bias = as_array(torch.cat([linear.bias for linear in group]))


def fill_norm(spec: Any, norm: Any) -> None:
    """Copy the gain and bias of a norm."""
    spec.gamma = as_array(norm.gain)
    spec.beta = as_array(norm.bias)


def describe(spec: Any, model: Transformer, tokens: list[str]) -> None:
    """Write vocabulary and settings, validate the specification, and store equal weights once."""
    config = model.config
    first_layer: Any = model.encoder.layers[0]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.unk_token = tokens[UNK] if len(tokens) > UNK else tokens[config.pad_id]
    spec.config.bos_token = tokens[config.bos_id]
    spec.config.decoder_start_token = tokens[config.bos_id]
    spec.config.eos_token = tokens[config.eos_id]
    spec.config.layer_norm_epsilon = first_layer.residuals[0].norm.eps
    spec.config.add_attribute("weights", weights_hash(model))
    spec.validate()
    spec.optimize()


# --- search ---------------------------------------------------------------------------------------


class CTranslate2Engine:
    """Search with CTranslate2: the tokens of `beam_search`, several batches at once.

    `folder` is what `export_ctranslate2` wrote for a model with this `config`. `precision` is fp32
    or int8, on CUDA also fp16 or bf16. `threads` batches are searched at the same time, each on one
    thread; the default is PyTorch's number of threads on a CPU and 1 on a GPU. Raises ValueError
    for an impossible precision or device, a missing package, and the folder of another model.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Config,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
    ):
        folder = Path(folder).resolve()
        device = torch.device(device)
        if threads is None:
            threads = torch.get_num_threads() if device.type == "cpu" else 1
        kind = compute_type(device.type, precision)
        self.arguments = (folder, config, device, precision, threads)
        self.config = config
        self.threads = threads
        self.tokens = read_tokens(folder, config)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.translator = start(folder, device, threads, kind)
        self.process = os.getpid()

    def __reduce__(self) -> tuple:
        """Rebuild a copy from the folder; it must still be there when the copy is unpickled."""
        return CTranslate2Engine, self.arguments

    def search_all(
        self, groups: Sequence[Group], search: Search = Search()
    ) -> Iterator[list[list[Hypothesis]]]:
        """Yield the hypotheses of each group; all are searched at once.

        See `Engine.search_all`. Raises ValueError, too, for a beam that is too wide for the
        vocabulary, and for rows that are not words followed by </s>; RuntimeError after a fork.
        """
        check_process(self.process, os.getpid(), "CTranslate2")
        check_rows(groups, self.config)
        check_sentences(groups, search.beam_size, self.config)
        total = sum(len(rows) for rows, _ in groups)
        share = math.ceil(total / self.threads)
        options = {
            "beam_size": search.beam_size,
            "num_hypotheses": search.n_best,
            # With 0 it stops by another rule, as soon as the best hypothesis ends. A penalty as
            # small as this changes no rank.
            "length_penalty": search.length_penalty or 1e-12,
            "max_batch_size": max(1, min(share, HYPOTHESES // search.beam_size)),
            "min_decoding_length": search.min_len,
            "return_scores": True,
        }
        waiting = [self.begin(group, options) for group in groups]
        for results in waiting:
            yield [self.hypotheses(result.result()) for result in results]

    def begin(self, group: Group, options: dict[str, Any]) -> list[Any]:
        """Submit a group and return its asynchronous results."""
        rows, max_len = group
        return self.translator.translate_batch(
            [[self.tokens[i] for i in row] for row in rows],
            **options,
            max_input_length=0,
            max_decoding_length=min(max_len, self.config.max_len),
            return_end_token=True,  # otherwise </s> is not counted in the length that ranks
            asynchronous=True,
        )

    def hypotheses(self, result: Any) -> list[Hypothesis]:
        """Return the hypotheses of one row as ids."""
        found = zip(result.hypotheses, result.scores, strict=True)
        return [Hypothesis([self.ids[token] for token in tokens], score) for tokens, score in found]


def compute_type(device: str, precision: str) -> str:
    """Return CTranslate2's name for a precision; ValueError if that kind of device has none."""
    if precision not in PRECISIONS.get(device, ()):
        known = "; ".join(f"on {name} {', '.join(kinds)}" for name, kinds in PRECISIONS.items())
        raise ValueError(f"CTranslate2 has no precision {precision!r} on {device}, only {known}")
    return PRECISIONS[device][precision]


def start(folder: Path, device: torch.device, threads: int, kind: str) -> Any:
    """Load a folder into CTranslate2; ValueError if it cannot read it or has no such device."""
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    translator = optional("ctranslate2", "ctranslate2").Translator
    before = torch.get_num_threads()
    try:
        return translator(
            str(folder),
            device.type,
            device_index=device.index or 0,
            compute_type=kind,
            inter_threads=threads,
            intra_threads=1,
            max_queued_batches=-1,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"CTranslate2 cannot load {folder} on {device} ({error!s:.200})") from None
    finally:
        torch.set_num_threads(before)  # it sets OpenMP's number of threads, which PyTorch shares


def read_tokens(folder: Path, config: Config) -> list[str]:
    """Read the vocabulary of a CTranslate2 folder.

    Raises FileNotFoundError if there is none, ValueError if it is damaged or of another model.
    """
    path = folder / "shared_vocabulary.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no CTranslate2 model in {folder}: `python -m transformer export` writes one"
        )
    try:
        tokens = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!s:.200})") from None
    size = config.vocab_size
    if not isinstance(tokens, list) or not len(tokens) == len(set(map(str, tokens))) == size:
        raise ValueError(
            f"{path} is not a vocabulary of {size} tokens: it belongs to another model"
        )
    return tokens


def check_sentences(groups: Sequence[Group], beam_size: int, config: Config) -> None:
    """Raise a ValueError for what CTranslate2 would search in another way than `beam_search`."""
    # It takes 2 · beam_size candidates, also impossible ones; `beam_search` leaves these out.
    if 2 * beam_size > config.vocab_size - 2:
        raise ValueError(
            f"beam_size {beam_size} is too wide for a vocabulary of {config.vocab_size} tokens"
        )
    special = {config.pad_id, config.bos_id, config.eos_id}
    rows = [row for rows, _ in groups for row in rows]
    for number, row in enumerate(rows, start=1):
        # It skips a row without words, and reads padding as if it were a word.
        if len(row) < 2 or row[-1] != config.eos_id or not special.isdisjoint(row[:-1]):
            raise ValueError(
                f"row {number} is not a sentence, words and then </s>: {list(row[:8])}"
            )
