"""A translator: a model, its vocabulary and an engine. Sentences in, sentences out."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from transformer.data import decode, load_tokenizer, pad
from transformer.engines import CTranslate2Engine, Engine, OnnxEngine, PyTorchEngine, Search
from transformer.engines.ctranslate2 import current_ctranslate2
from transformer.engines.exporter import model_folder
from transformer.engines.onnx import current_onnx
from transformer.inference import sample
from transformer.model import Transformer, load_model
from transformer.reader import OnProblem, read_texts, warn_about
from transformer.texts import clean, most_characters

__all__ = [
    "Translation",
    "Translator",
    "groups_by_length",
    "model_folder",
    "round_up",
    "sample_translations",
]

PRECISIONS = {
    "pytorch": ("fp32", "bf16"),
    "ctranslate2": ("fp32", "int8", "fp16", "bf16"),
    "onnx": ("fp32",),
}
"""By engine. CTranslate2 has the last two on a GPU only."""


class Translation(NamedTuple):
    """A translation, and its log-probability / length ** length_penalty."""

    text: str
    score: float


class Translator:
    """Translate sentences with a model and its vocabulary.

    `engine` searches; the default is `PyTorchEngine(model)`, which has the model's weights as they
    are now. `search` is how it searches unless told otherwise. A translator can be copied and
    pickled.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        engine: Engine | None = None,
        search: Search = Search(),
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.engine = engine or PyTorchEngine(model)
        self.search = search

    def __getstate__(self) -> dict:
        """Return what a copy needs; a copied tokenizer forgets that a typed </s> is text."""
        return vars(self) | {"encode_special_tokens": self.tokenizer.encode_special_tokens}

    def __setstate__(self, state: dict) -> None:
        """Restore a copy."""
        vars(self).update(state)
        self.tokenizer.encode_special_tokens = vars(self).pop("encode_special_tokens")

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str = "cpu",
        engine: str = "pytorch",
        precision: str = "fp32",
        engine_folder: str | Path | None = None,
    ) -> "Translator":
        """Read a translator from a folder, or by the name under which it was trained.

        `engine` is pytorch, ctranslate2 or onnx; for the last two the model is exported into
        `engine_folder`, or into its own folder, when it is loaded for the first time. `precision`
        is fp32, with pytorch also bf16, with ctranslate2 also int8. If the folder has a
        decoding.json, the translator searches as it says. Raises FileNotFoundError if
        there is no such model, ValueError if a file is damaged, a package is missing, or engine,
        precision and device do not fit.
        """
        check_engine(engine, precision, device)
        if engine == "pytorch" and engine_folder:
            raise ValueError(
                "engine pytorch reads the model's own folder and needs no engine_folder"
            )
        folder = model_folder(name)
        model = load_model(folder)
        tokenizer = load_tokenizer(folder / "tokenizer.json", model.config.vocab_size)
        search = read_search(folder)
        if engine == "ctranslate2":
            exported = current_ctranslate2(
                model, tokenizer, engine_folder or folder / "ctranslate2"
            )
            ready = CTranslate2Engine(exported, model.config, device, precision)
            return cls(model, tokenizer, ready, search)
        if engine == "onnx":
            exported = current_onnx(model, engine_folder or folder / "onnx")
            return cls(model, tokenizer, OnnxEngine(exported, model.config), search)
        model = model.to(device)
        model = model.bfloat16() if precision == "bf16" else model
        return cls(model, tokenizer, search=search)

    def translate(
        self,
        texts: Iterable[str],
        beam_size: int | None = None,
        length_penalty: float | None = None,
        max_tokens: int = 4096,
        progress: bool = False,
        on_problem: OnProblem = warn_about,
    ) -> list[str]:
        """Return the translation of every text; a `beam_size` of 1 is greedy search.

        `beam_size` and `length_penalty` are those of `self.search` unless given. The other
        arguments are those of `n_best`. A blank text has a blank translation, and so has a text
        with a problem.
        """
        given = {"beam_size": beam_size, "length_penalty": length_penalty}
        given = {name: value for name, value in given.items() if value is not None}
        search = replace(self.search, **given)
        found = self.n_best(texts, search, max_tokens, progress, on_problem)
        return [translations[0].text if translations else "" for translations in found]

    def n_best(
        self,
        texts: Iterable[str],
        search: Search | None = None,
        max_tokens: int = 4096,
        progress: bool = False,
        on_problem: OnProblem = warn_about,
    ) -> list[list[Translation]]:
        """Return the best translations of every text, best first; `search` is `self.search`.

        Each text is cleaned and read as one line. Texts of similar length are translated together,
        as many as have `max_tokens` source tokens, padding included and counted once for each
        hypothesis. A text that is longer than the model's max_len or has no known character gets
        an empty list, and so does a blank one. `on_problem` is called for each of them:
        `warn_about` warns, except of blanks, and `refuse` raises a ValueError.
        Raises ValueError for what is not a string.
        """
        search = search or self.search
        max_len = self.model.config.max_len
        rows = read_texts(self.tokenizer, texts, max_len, self.most_characters, on_problem)
        readable = [i for i, row in enumerate(rows) if row]
        lengths = [len(rows[i]) for i in readable]
        groups = groups_by_length([rows[i] for i in readable], max_tokens // search.beam_size)
        work = [
            ([rows[readable[i]] for i in group], 2 * round_up(lengths[group[0]], 16))
            for group in groups
        ]
        results = self.engine.search_all(work, search)
        results = tqdm(results, "translating", len(groups), disable=not progress)
        found: list[list[Translation]] = [[] for _ in rows]
        for group, hypotheses in zip(groups, results, strict=True):
            for i, best in zip(group, hypotheses, strict=True):
                texts = decode(self.tokenizer, [ids for ids, _ in best])
                scores = [score for _, score in best]
                found[readable[i]] = list(map(Translation, map(clean, texts), scores))
        return found

    @cached_property
    def most_characters(self) -> int:
        """The length of the longest text that can have at most max_len tokens."""
        return most_characters(self.tokenizer.get_vocab(), self.model.config.max_len)


def sample_translations(
    translator: Translator,
    texts: Iterable[str],
    count: int,
    temperature: float = 1.0,
    seed: int = 0,
    max_tokens: int = 4096,
    on_problem: OnProblem = warn_about,
) -> list[list[str]]:
    """Draw `count` translations of every text by their probability, with PyTorch.

    The same arguments give the same draws. A text that cannot be translated has none; the other
    arguments are those of `Translator.n_best`. ValueError for a `temperature` that is not above 0,
    and if the translator's engine is another one.
    """
    if not isinstance(translator.engine, PyTorchEngine):
        raise ValueError("only the engine pytorch draws samples")
    model = translator.model
    limits = (model.config.max_len, translator.most_characters)
    rows = read_texts(translator.tokenizer, texts, *limits, on_problem)
    readable = [i for i, row in enumerate(rows) if row]
    generator = torch.Generator(model.bias.device).manual_seed(seed)
    found: list[list[str]] = [[] for _ in rows]
    for group in groups_by_length([rows[i] for i in readable], max_tokens // count):
        many = [rows[readable[i]] for i in group for _ in range(count)]
        longest = 2 * round_up(max(map(len, many)), 16)
        src = pad(many, model.config.pad_id).to(model.bias.device)
        make = translator.engine.decoder
        ids = sample(model, src, temperature, None, longest, generator, make)
        drawn = [clean(text) for text in decode(translator.tokenizer, ids.tolist())]
        for position, i in enumerate(group):
            found[readable[i]] = drawn[position * count : (position + 1) * count]
    return found


def read_search(folder: Path) -> Search:
    """Return the search that decoding.json in `folder` describes, or the default one.

    Raises ValueError if the file is damaged.
    """
    path = folder / "decoding.json"
    if not path.is_file():
        return Search()
    try:
        return Search(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!s:.200})") from None


def check_engine(engine: str, precision: str, device: str) -> None:
    """Raise a ValueError for an engine that does not exist, or that lacks the precision or device.

    What CTranslate2 has on a CPU and on a GPU it says itself.
    """
    if precision not in PRECISIONS.get(engine, ()):
        known = "; ".join(f"{name} has {', '.join(kinds)}" for name, kinds in PRECISIONS.items())
        raise ValueError(f"there is no engine {engine} with precision {precision}: {known}")
    if engine == "onnx" and not str(device).startswith("cpu"):
        raise ValueError(f"engine onnx runs on cpu only, not on {device}")


def round_up(length: int, multiple: int) -> int:
    """Return the smallest multiple that is at least `length`.

    Limits are rounded up so that a translation does not depend on which texts share its batch.
    """
    return multiple * math.ceil(length / multiple)


def groups_by_length(rows: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Return the indices of the rows in groups, longest rows first.

    The lengths in a group round up to the same multiple of 16, and it has at most `max_tokens`
    tokens, padding included; a longer row gets a group of its own.
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        longest = len(rows[groups[-1][0]]) if groups else 0
        same_length = round_up(longest, 16) == round_up(len(rows[i]), 16)
        if not same_length or longest * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
        groups[-1].append(i)
    return groups
