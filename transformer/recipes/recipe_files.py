"""Recipes as files: a corpus, its languages, and every setting of the run that trains on it.

A recipe is a small TOML file with the sections model, training, techniques and decoding; what it
leaves out has its default. `base` names another recipe from which the file starts.
"""

import sys
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from transformer.model import Config
from transformer.recipes.presets import Decoding, Preset
from transformer.recipes.techniques import Techniques
from transformer.training import TrainingConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

TOP = ("base", "corpus", "src", "tgt", "tokenized")
SECTIONS = {
    "model": {each.name for each in fields(Config)},
    "training": {each.name for each in fields(TrainingConfig)} | {"minutes", "precision"},
    "techniques": {each.name for each in fields(Techniques)},
    "decoding": {each.name for each in fields(Decoding)},
}
KINDS: dict[str, Any] = {
    each.name: each.type
    for kind in (Config, TrainingConfig, Techniques, Decoding)
    for each in fields(kind)
} | {"minutes": float, "precision": str}
"""The type of each setting: int, float or str."""


@dataclass(frozen=True)
class Recipe:
    """What a recipe says: which corpus, from which language to which, and the settings.

    `tokenized` takes Multi30k as lowercased Moses tokens, not as raw text.
    """

    name: str
    corpus: str
    src: str | None
    tgt: str | None
    preset: Preset
    precision: str = "auto"
    tokenized: bool = False


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
    found = resources.files("transformer.recipes").iterdir()
    return sorted(p.name.removesuffix(".toml") for p in found if p.name.endswith(".toml"))


def read_recipe(name: str | Path) -> Recipe:
    """Read a recipe: one of the package by its name, or a file of your own by its path.

    Raises FileNotFoundError if there is none, ValueError for a file that is not a recipe, a setting
    that does not exist and a value that makes no sense.
    """
    found = read_with_base(str(name), ())
    try:
        return recipe_of(str(name), found)
    except ValueError as error:
        raise ValueError(f"recipe {name}: {error}") from None


def read_with_base(name: str, above: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of a recipe's file on top of its base's."""
    if name in above:
        raise ValueError(f"recipe {name} is its own base")
    found = read_file(name)
    if "base" not in found:
        return found
    base = read_with_base(str(found.pop("base")), (*above, name))
    merged = {part: base.get(part, {}) | found.get(part, {}) for part in SECTIONS}
    return base | found | merged


def read_file(name: str) -> dict[str, Any]:
    """Return the content of one file, whose settings all exist."""
    if name in recipe_names():
        path = resources.files("transformer.recipes").joinpath(f"{name}.toml")
    else:
        path = Path(name)
        if not path.is_file():
            known = ", ".join(recipe_names())
            raise FileNotFoundError(f"there is no recipe {name}: give a path, or one of {known}")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {name} is not TOML: {error}") from None
    check_names(name, "", found, {*TOP, *SECTIONS})
    for section, known in SECTIONS.items():
        if not isinstance(found.get(section, {}), dict):
            raise ValueError(f"recipe {name}: {section} must be a section, [{section}]")
        check_names(name, f"[{section}] ", found.get(section, {}), known)
    return found


def check_names(name: str, where: str, found: dict[str, Any], known: set[str]) -> None:
    """Raise a ValueError that names a setting that does not exist."""
    for key in found:
        if key not in known:
            choices = ", ".join(sorted(known))
            raise ValueError(f"recipe {name}: {where}has no setting {key}, only {choices}")


def recipe_of(name: str, found: dict[str, Any]) -> Recipe:
    """Return the recipe that a file's content describes."""
    parts = {section: typed(found.get(section, {})) for section in SECTIONS}
    default = Preset(10_000, TrainingConfig())
    model = parts["model"]
    training = parts["training"]
    preset = Preset(
        vocab_size=model.pop("vocab_size", default.vocab_size),
        minutes=training.pop("minutes", default.minutes),
        sizes=model,
        techniques=Techniques(**parts["techniques"]),
        decoding=Decoding(**parts["decoding"]),
        training=default.training,
    )
    precision = training.pop("precision", "auto")
    preset = replace(preset, training=TrainingConfig(**training))
    preset.model_config(preset.vocab_size)  # raises for impossible sizes
    corpus = found.get("corpus", "files")
    tokenized = found.get("tokenized", False)
    if type(tokenized) is not bool:
        raise ValueError(f"tokenized must be true or false, not {tokenized!r}")
    languages = (found.get("src"), found.get("tgt"))
    return Recipe(Path(name).stem, corpus, *languages, preset, precision, tokenized)


def typed(section: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a section, whole numbers that stand for real ones as real numbers.

    Raises ValueError for a value of another type.
    """
    found = {}
    for name, value in section.items():
        kind = KINDS[name]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"{name} must be of type {kind.__name__}, not {value!r}")
        found[name] = value
    return found


def settings_of(preset: Preset) -> dict[str, Any]:
    """Return every setting of a preset by its name."""
    parts = (preset.model_config(preset.vocab_size), preset.training, preset.techniques)
    found = {"minutes": preset.minutes} | asdict(preset.decoding)
    for part in parts:
        found |= asdict(part)
    return found
