"""From a translator's folder to the folder of another engine."""

from contextlib import suppress
from pathlib import Path

from transformer.data import load_tokenizer
from transformer.engines.ctranslate2 import export_ctranslate2
from transformer.engines.onnx import export_onnx
from transformer.engines.to_transformers import export_transformers
from transformer.files import TRANSLATOR_FILES, cache_dir, move_ready
from transformer.model import load_model
from transformer.pretrained import read_model, save_pretrained
from transformer.published import is_checkpoint

TARGETS = ("ctranslate2", "onnx", "transformers")


def export(folder: str | Path, to: str, out: str | Path | None = None) -> Path:
    """Write the translator in `folder`, or of that name, for another engine; return the new folder.

    `to` is "ctranslate2", "onnx" or "transformers"; without `out` the new folder has that name and
    is in the model's folder. Raises ValueError for another engine, a damaged model or a missing
    package; FileNotFoundError if there is no model; OSError if `out` cannot be written.
    """
    if to not in TARGETS:
        known = f"{', '.join(TARGETS[:-1])} or {TARGETS[-1]}"
        raise ValueError(f"a model can be exported to {known}, not to {to!r}")
    source = model_folder(folder)
    out = Path(out or source / to)
    if is_checkpoint(source):
        if to != "transformers":
            raise ValueError(f"{source} has published weights, which are not exported to {to}")
        return save_pretrained(read_model(source), out, like=source)
    model = load_model(source)
    if to == "transformers":
        return export_transformers(model, source / "tokenizer.json", out)
    if to == "onnx":
        return export_onnx(model, out)
    tokenizer = load_tokenizer(source / "tokenizer.json", model.config.vocab_size)
    return export_ctranslate2(model, tokenizer, out)


def model_folder(name: str | Path) -> Path:
    """Return the folder `name`, or the one in the cache of the model trained under that name.

    If training was killed while it put a new translator there, the new one is moved into place.
    Raises FileNotFoundError if neither has a config.json.
    """
    for folder in (Path(name), cache_dir() / name):
        with suppress(OSError):  # in a folder that cannot be written, it stays as it is
            move_ready(folder, *TRANSLATOR_FILES)
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"there is no model {str(name)!r}: give a folder with config.json, model.safetensors and "
        "tokenizer.json, or train one with `python -m transformer train`"
    )
