"""Which tensor of a file is which, and whether file, config and vocabulary belong together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from transformer.model import Config
from transformer.published.families import COPIES
from transformer.published.tensors import equal_tensors, read_into, read_tensor, tensor_shapes
from transformer.published.vocabularies import PublishedTokenizer

Shape = tuple[int, ...]
POSITIONS = tuple(f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder"))
IGNORED = tuple(f"{name}s" for name in POSITIONS)
"""Position tables of old files of M2M100, which the formula gives."""
MOST_NAMED = 3


@dataclass(frozen=True)
class TensorNames:
    """The names in a file: of each of the model's tensors, and of tables of positions, if any."""

    weights: dict[str, str]
    positions: tuple[str, ...]


def tensor_names(
    folder: str | Path, config: Config, names: Mapping[str, str], model: Mapping[str, Tensor]
) -> TensorNames:
    """Return where the tensors of `model` are, by the headers of the file.

    `names` are those that the family gives them. Raises ValueError, in one sentence that names
    them, for missing, unexpected and misshapen tensors.
    """
    found = tensor_shapes(folder)
    kind = (getattr(config, "family", ""), getattr(config, "tables", ""))
    copies = [name for name in COPIES.get(kind, ()) if name in found]
    table = names["embedding.weight"]
    same = [name for name in (table, *copies) if name in found]
    used = {ours: same[0] if theirs == table and same else theirs for ours, theirs in names.items()}
    if "final_logits_bias" not in found:  # files without it have zeros
        used = {ours: theirs for ours, theirs in used.items() if theirs != "final_logits_bias"}
    positions = tuple(name for name in POSITIONS if name in found)
    known = {*used.values(), *copies, *positions, *IGNORED}
    problems = [
        *named("missing", sorted(set(used.values()) - set(found))),
        *named("unexpected", sorted(set(found) - known)),
        *named("misshapen", misshapen(found, used, {n: tuple(x.shape) for n, x in model.items()})),
    ]
    if problems:
        raise ValueError(f"the weights in {folder} do not fit its config: {'; '.join(problems)}")
    if not equal_tensors(folder, same):
        raise ValueError(f"in {folder}, {same[0]} and {same[1]} must be one table, but differ")
    return TensorNames(used, positions)


def fill_weights(
    folder: str | Path, config: Config, names: Mapping[str, str], model: Mapping[str, Tensor]
) -> Tensor | None:
    """Copy a file's weights into the tensors of `model`; return its table of positions, if any.

    Raises the errors of `tensor_names` before anything is read, and ValueError if the positions of
    source and target differ or are too few.
    """
    places = tensor_names(folder, config, names, model)
    tables = [read_tensor(folder, name)[-config.max_len :] for name in places.positions]
    for table in tables:
        if table.shape != (config.max_len, config.d_model) or not table.equal(tables[0]):
            raise ValueError(
                f"{' and '.join(places.positions)} in {folder} must be equal and have "
                f"{config.max_len} rows of {config.d_model}"
            )
    for ours, theirs in places.weights.items():
        read_into(model[ours], folder, theirs)
    for ours in names.keys() - places.weights.keys():
        model[ours].zero_()
    return tables[0] if tables else None


def misshapen(
    found: Mapping[str, Shape], used: Mapping[str, str], wanted: Mapping[str, Shape]
) -> list[str]:
    """List the tensors of another shape, apart from axes of size 1 in front."""
    pairs = [
        (theirs, found[theirs], wanted[ours]) for ours, theirs in used.items() if theirs in found
    ]
    return [
        f"{name} is {shape}, not {want}"
        for name, shape, want in pairs
        if shape[max(len(shape) - len(want), 0) :] != want or set(shape[: -len(want)]) - {1}
    ]


def named(problem: str, names: list[str]) -> Iterable[str]:
    """Yield a phrase that names the first few tensors with a problem, if there are any."""
    if names:
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        yield f"{problem}: {', '.join(names[:MOST_NAMED])}{more}"


def check_vocabulary(
    folder: str | Path, tokenizer: PublishedTokenizer, sizes: tuple[int, int], config: Config
) -> None:
    """Raise a ValueError if a tokenizer's ids do not fit a model's tables of these sizes."""
    for side, needed, size in zip(("source", "target"), tokenizer.sizes, sizes, strict=True):
        if needed > size:
            raise ValueError(
                f"the {side} vocabulary in {folder} has {needed} ids and the model {size}: they do "
                "not belong together"
            )
    ids = {"</s>": (tokenizer.eos_id, config.eos_id), "<pad>": (tokenizer.pad_id, config.pad_id)}
    for token, (mine, wanted) in ids.items():
        if mine not in (None, wanted):
            raise ValueError(
                f"{token} is {mine} in the vocabulary in {folder} and {wanted} in its config: they "
                "do not belong together"
            )
