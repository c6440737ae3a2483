"""What a checkpoint says about its run, and how the settings of a resumed run differ from it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from transformer.corpora import Corpus
from transformer.corpora.large_files import LargePairs
from transformer.recipes.presets import Decoding, Preset
from transformer.recipes.techniques import Techniques
from transformer.training import TrainingConfig, read_about

LIMITS = ("steps", "minutes")
"""Where a run ends: a resumed run may end elsewhere, and every step is the same."""
ORDER = ("max_tokens", "accumulate", "seed", "both_directions", "corpus")
"""What the order of the batches follows from."""


@dataclass(frozen=True)
class SavedRun:
    """Hold what a checkpoint of `fit` says about its run.

    `tokenizer` is the content of a tokenizer.json, `corpus` a hash of the training pairs. `history`
    is the learning curve, `seconds` how long training has taken.
    """

    checkpoint: Path
    preset: Preset
    precision: str
    corpus: str
    tokenizer: str
    seconds: float
    history: list[dict]

    def load_tokenizer(self) -> Tokenizer:
        """Return the tokenizer; ValueError if it is damaged."""
        try:
            tokenizer = Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{self.checkpoint} has no tokenizer ({error!s:.200})") from None
        tokenizer.encode_special_tokens = True  # the text does not keep this setting
        return tokenizer


def read_run(checkpoint: str | Path) -> SavedRun:
    """Read what a checkpoint says about its run, without its tensors.

    Raises FileNotFoundError if there is none, ValueError if it is damaged or not one of `fit`.
    """
    checkpoint = Path(checkpoint)
    if not checkpoint.is_file():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint}")
    about = read_about(checkpoint)
    notes = about["notes"]
    try:
        sizes = {name: value for name, value in about["config"].items() if name != "vocab_size"}
        preset = Preset(
            int(notes["vocab_size"]),
            TrainingConfig(**about["training"]),
            sizes,
            float(notes["minutes"]),
            Techniques(**notes.get("techniques", {})),  # absent in older checkpoints
            Decoding(**notes.get("decoding", {})),
        )
        return SavedRun(
            checkpoint=checkpoint,
            preset=preset,
            precision=str(notes["precision"]),
            corpus=str(notes["corpus"]),
            tokenizer=str(notes["tokenizer"]),
            seconds=float(notes["seconds"]),
            history=list(notes["history"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{checkpoint} was not written by a run of `fit`") from None


def corpus_hash(corpus: Corpus) -> str:
    """Return a hash of the training pairs and their order."""
    if isinstance(corpus.train, LargePairs):
        return corpus.train.fingerprint
    digest = hashlib.sha256()
    for pair in corpus.train:
        digest.update(json.dumps(pair).encode())
    return digest.hexdigest()[:16]


def check_same_model(saved: SavedRun, preset: Preset) -> None:
    """Raise a ValueError that names every size in which the preset's model is another one."""
    found = sizes_of(saved.preset)
    wanted = sizes_of(preset)
    different = [
        f"{option(name)} is {found[name]} there, not {value}"
        for name, value in wanted.items()
        if found[name] != value
    ]
    if different:
        raise ValueError(f"{saved.checkpoint} belongs to another config: {', '.join(different)}")


def is_same_run(saved: SavedRun, preset: Preset, precision: str, corpus: str) -> bool:
    """Return whether a new run with these settings would make the checkpoint of the saved one."""
    same_model = sizes_of(saved.preset) == sizes_of(preset)
    return same_model and not changes(saved, preset, precision, corpus)


def sizes_of(preset: Preset) -> dict[str, Any]:
    """Return the sizes of a preset's model; the vocabulary may come out smaller."""
    return asdict(preset.model_config(preset.vocab_size))


def changes(saved: SavedRun, preset: Preset, precision: str, corpus: str) -> list[str]:
    """Return a sentence for each setting that is no longer what it was in the checkpoint."""
    found = announced(saved.preset) | {"precision": saved.precision, "corpus": saved.corpus}
    now = announced(preset) | {"precision": precision, "corpus": corpus}
    changed = [name for name in now if name not in LIMITS and found[name] != now[name]]
    sentences = [
        f"{option(name)} was {found[name]}, now {now[name]}" for name in changed if name != "corpus"
    ]
    if "corpus" in changed:
        sentences.append("the training pairs are not those that the checkpoint was trained on")
    if set(changed) & set(ORDER):
        sentences.append(
            "the batches now come in another order: in this epoch some pairs may be read twice, "
            "others not at all"
        )
    return sentences


def announced(preset: Preset) -> dict[str, Any]:
    """Return the settings of a preset whose change is announced, by name."""
    parts = (preset.training, preset.techniques, preset.decoding)
    return {name: value for part in parts for name, value in asdict(part).items()}


def option(name: str) -> str:
    """Return the name of a setting on the command line."""
    return name.replace("_", "-")
