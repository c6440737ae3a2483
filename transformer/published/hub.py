"""From a name to a folder: a local one, or what `huggingface_hub` downloads and keeps."""

import importlib
import re
from pathlib import Path
from types import ModuleType

from transformer.published.families import read_settings

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "source.spm",
    "target.spm",
    "vocab.json",
    "target_vocab.json",
    "vocab-src.json",
    "vocab-tgt.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""What is downloaded: no pickles, and no weights for other frameworks."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def extra(package: str) -> ModuleType:
    """Import a package of the extra `pretrained`; ValueError if it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"published weights need {package} ({error}): "
            'pip install "transformer-course[pretrained]"'
        ) from None


def is_hub_name(name: str | Path) -> bool:
    """Return whether a name looks like one of the hub's, such as Helsinki-NLP/opus-mt-en-it."""
    return HUB_NAME.fullmatch(str(name)) is not None


def is_checkpoint(folder: str | Path) -> bool:
    """Return whether a folder holds a published checkpoint: its config.json has a model_type."""
    try:
        return "model_type" in read_settings(Path(folder) / "config.json")
    except (OSError, ValueError):
        return False


def checkpoint_folder(name: str | Path) -> Path:
    """Return the local folder `name`, or the one into which the model of that name is downloaded.

    Raises FileNotFoundError if neither exists, OSError if the hub cannot be reached, ValueError if
    huggingface_hub is missing.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not is_hub_name(name):
        raise FileNotFoundError(f"there is no folder {name}, and it is not a name of the hub")
    hub = extra("huggingface_hub")
    errors = extra("huggingface_hub.errors")
    try:
        return Path(hub.snapshot_download(str(name), allow_patterns=list(FILES)))
    except errors.LocalEntryNotFoundError:
        raise OSError(f"{name} is not in the cache, and the hub cannot be reached") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise FileNotFoundError(f"there is no model {name} on the hub") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"{name} could not be downloaded ({reason:.200})") from None
