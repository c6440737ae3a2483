"""Three families of published translators: what config.json says, and where the tables are.

Marian (Helsinki-NLP/opus-mt-*), FSMT (facebook/wmt19-*), M2M100 and NLLB (facebook/m2m100_*,
facebook/nllb-*). Their layers have the same names; they differ in what is around the layers.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Settings = dict[str, Any]
"""The content of a config.json."""

EMBED = "embed_tokens.weight"
SHARED = "model.shared.weight"
SOURCE = f"model.encoder.{EMBED}"
TARGET = f"model.decoder.{EMBED}"
HEAD = "lm_head.weight"
PROJECTION = "model.decoder.output_projection.weight"

TABLES: dict[tuple[str, str], tuple[str, str, str]] = {
    ("marian", "one"): (SHARED, SHARED, SHARED),
    ("marian", "two"): (SOURCE, TARGET, TARGET),
    ("marian", "three"): (SOURCE, TARGET, HEAD),
    ("fsmt", "one"): (TARGET, TARGET, TARGET),
    ("fsmt", "three"): (SOURCE, TARGET, PROJECTION),
    ("m2m_100", "one"): (SHARED, SHARED, SHARED),
    ("annotated", "three"): (SOURCE, TARGET, HEAD),  # not a family of files (torch_layouts)
}
"""By family and number of tables: the names in the file of those for source, target and output."""
COPIES: dict[tuple[str, str], tuple[str, ...]] = {
    ("marian", "one"): (HEAD, SOURCE, TARGET),
    ("marian", "two"): (HEAD,),
    ("fsmt", "one"): (SOURCE, PROJECTION),
    ("m2m_100", "one"): (HEAD, SOURCE, TARGET),
}
"""Names under which a file may have the target's table, too, or instead."""
SIZES = {
    "d_model": "d_model",
    "n_heads": "decoder_attention_heads",
    "n_layers": "decoder_layers",
    "d_ff": "decoder_ffn_dim",
    "encoder_heads": "encoder_attention_heads",
    "encoder_layers": "encoder_layers",
    "encoder_d_ff": "encoder_ffn_dim",
    "max_len": "max_position_embeddings",
    "dropout": "dropout",
    "pad_id": "pad_token_id",
    "bos_id": "decoder_start_token_id",
    "eos_id": "eos_token_id",
}
"""The settings that all families have under these names. Decoding begins with `bos_id`."""
ARCHITECTURES = {
    "marian": "MarianMTModel",
    "fsmt": "FSMTForConditionalGeneration",
    "m2m_100": "M2M100ForConditionalGeneration",
}
ACTIVATIONS = {"swish": "silu", "silu": "silu", "relu": "relu", "gelu": "gelu"}
FIXED = {
    "normalize_before": {"marian": False},
    "normalize_embedding": {"marian": False},
    "add_final_layer_norm": {"marian": False},
    "add_bias_logits": {"marian": False},
    "static_position_embeddings": {"marian": True},
}
"""Settings of old files for which the model has no option; they must have these values."""


def marian_options(settings: Settings) -> Settings:
    """Return the options of a Marian model."""
    shared = settings.get("share_encoder_decoder_embeddings", True)
    tied = settings.get("tie_word_embeddings", True)
    if shared and not tied:
        raise ValueError("a shared table with an output layer of its own is not supported")
    return {
        "tables": "one" if shared else "two" if tied else "three",
        "vocab_size": (None if shared else settings.get("decoder_vocab_size"))
        or settings["vocab_size"],
        "source_vocab_size": settings["vocab_size"],
        "positions": "halves",
        "scale_embedding": settings.get("scale_embedding", False),
        "logits_bias": True,
    }


def fsmt_options(settings: Settings) -> Settings:
    """Return the options of a model of facebook/wmt19-*."""
    tied = settings.get("tie_word_embeddings", False)
    if tied and settings["src_vocab_size"] != settings["tgt_vocab_size"]:
        raise ValueError("src_vocab_size and tgt_vocab_size differ, but the tables are tied")
    return {
        "tables": "one" if tied else "three",
        "vocab_size": settings["tgt_vocab_size"],
        "source_vocab_size": settings["src_vocab_size"],
        "positions": "fairseq",
        "scale_embedding": settings.get("scale_embedding", True),
    }


def m2m100_options(settings: Settings) -> Settings:
    """Return the options of a model of M2M100 or NLLB."""
    if not settings.get("tie_word_embeddings", True):
        raise ValueError("an output layer of its own is not supported")
    return {
        "tables": "one",
        "vocab_size": settings["vocab_size"],
        "source_vocab_size": settings["vocab_size"],
        "norm": "pre",
        "positions": "fairseq",
        "scale_embedding": settings.get("scale_embedding", True),
    }


FAMILIES: dict[str, Callable[[Settings], Settings]] = {
    "marian": marian_options,
    "fsmt": fsmt_options,
    "m2m_100": m2m100_options,
}


def read_settings(path: str | Path) -> Settings:
    """Read a JSON object; FileNotFoundError if there is none, ValueError if it is damaged."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error!s:.200})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not a JSON object")
    return settings


def read_options(folder: str | Path) -> Settings:
    """Return what the config.json in `folder` says, as options of the course's model.

    Raises FileNotFoundError if there is none, ValueError, which names the setting, for another
    architecture or what the model has no option for.
    """
    path = Path(folder) / "config.json"
    settings = read_settings(path)
    family = settings.get("model_type")
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ValueError(f"{path} is of another architecture: model_type {family!r}, not {known}")
    check_settings(path, settings, family)
    try:
        options = {name: settings[theirs] for name, theirs in SIZES.items()}
        options |= FAMILIES[family](settings)
        rules = generation_settings(folder)
    except KeyError as error:
        raise ValueError(f"{path} has no setting {error.args[0]!r}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    banned = rules.get("bad_words_ids") or []
    if isinstance(options["eos_id"], list):
        raise ValueError(f"{path}: eos_token_id must be one id, not {options['eos_id']}")
    return options | {
        "family": family,
        "activation": ACTIVATIONS[settings.get("activation_function", "relu")],
        "banned": [ids[0] for ids in banned if len(ids) == 1],
    }


def check_settings(path: Path, settings: Settings, family: str) -> None:
    """Raise a ValueError for a setting that the model has no option for."""
    activation = settings.get("activation_function", "relu")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{path}: activation_function is {activation!r}, not one of {known}")
    for name, values in FIXED.items():
        if family in values and settings.get(name, values[family]) != values[family]:
            raise ValueError(f"{path}: {name}={settings[name]!r} is not supported")


def settings_of(options: Settings) -> Settings:
    """Return the config.json of a model with these options: what `read_options` reads them from."""
    family = options["family"]
    settings = {theirs: options[name] for name, theirs in SIZES.items()}
    names = {"silu": "swish"}
    settings |= {
        "model_type": family,
        "architectures": [ARCHITECTURES[family]],
        "activation_function": names.get(options["activation"], options["activation"]),
        "scale_embedding": options["scale_embedding"],
        "tie_word_embeddings": options["tables"] != "three",
        "is_encoder_decoder": True,
        "dtype": "float32",
    }
    if family == "fsmt":
        both = {"src_vocab_size": "source_vocab_size", "tgt_vocab_size": "vocab_size"}
        return settings | {theirs: options[name] for theirs, name in both.items()}
    settings["vocab_size"] = options["source_vocab_size"]
    if family == "marian":
        settings["share_encoder_decoder_embeddings"] = options["tables"] == "one"
        settings["decoder_vocab_size"] = options["vocab_size"]
    return settings


def generation_settings(folder: str | Path) -> Settings:
    """Return how `transformers` would search: generation_config.json, or config.json without it."""
    path = Path(folder) / "generation_config.json"
    return read_settings(path if path.is_file() else Path(folder) / "config.json")
