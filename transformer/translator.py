"""A translator: a model, its vocabulary and an engine. Sentences in, sentences out."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from tqdm import tqdm

from transformer.data import BLANK, UNKNOWN, decode, load_tokenizer
from transformer.engines import CTranslate2Engine, Engine, OnnxEngine, PyTorchEngine, Search
from transformer.engines.by_rules import RulesEngine
from transformer.engines.ctranslate2 import current_ctranslate2
from transformer.engines.exporter import model_folder
from transformer.engines.onnx import current_onnx
from transformer.files import cache_dir
from transformer.model import Transformer, load_model
from transformer.pretrained import PublishedTransformer, load_pretrained
from transformer.published import (
    PublishedTokenizer,
    SearchRules,
    checkpoint_folder,
    is_checkpoint,
    is_hub_name,
    read_rules,
)
from transformer.reader import OnProblem, clean_lines, read_texts, warn_about
from transformer.texts import clean, most_characters

__all__ = [
    "PublishedTranslator",
    "Translation",
    "Translator",
    "groups_by_length",
    "model_folder",
    "round_up",
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
        languages: Sequence[str] | None = None,
    ) -> "Translator":
        """Read a translator from a folder, or by the name under which it was trained.

        Published weights are read, too, from a folder or by their name on the hub, such as
        "Helsinki-NLP/opus-mt-en-it", into a `PublishedTranslator`; `languages` are the codes of
        source and target, for models of many languages.

        `engine` is pytorch, ctranslate2 or onnx; for the last two the model is exported into
        `engine_folder`, or into its own folder, when it is loaded for the first time. `precision`
        is fp32, with pytorch also bf16, with ctranslate2 also int8. If the folder has a
        decoding.json, the translator searches as it says. Raises FileNotFoundError if
        there is no such model, ValueError if a file is damaged, a package is missing, or engine,
        precision and device do not fit; OSError if the hub cannot be reached.
        """
        check_engine(engine, precision, device)
        published = published_place(name)
        if published:
            return PublishedTranslator.read_checkpoint(
                published, device, engine, precision, languages
            )
        if languages:
            raise ValueError(f"{name} is of one pair of languages; it takes no languages")
        if engine == "pytorch" and engine_folder:
            raise ValueError(
                "engine pytorch reads the model's own folder and needs no engine_folder"
            )
        folder = model_folder(name)
        model = load_model(folder)
        tokenizer = load_tokenizer(folder / "tokenizer.json", model.config.vocab_size)
        place = Path(engine_folder or folder / engine)
        ready = exported_engine(engine, place, model, tokenizer, device, precision)
        if ready is None:
            model = model.to(device)
            model = model.bfloat16() if precision == "bf16" else model
        return cls(model, tokenizer, ready, read_search(folder))

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
        rows = self.read(texts, on_problem)
        readable = [i for i, row in enumerate(rows) if row]
        lengths = [len(rows[i]) for i in readable]
        groups = groups_by_length([rows[i] for i in readable], max_tokens // search.beam_size)
        work = [
            ([rows[readable[i]] for i in group], self.most_tokens(lengths[group[0]]))
            for group in groups
        ]
        results = self.engine.search_all(work, search)
        results = tqdm(results, "translating", len(groups), disable=not progress)
        found: list[list[Translation]] = [[] for _ in rows]
        for group, hypotheses in zip(groups, results, strict=True):
            for i, best in zip(group, hypotheses, strict=True):
                texts = self.write([ids for ids, _ in best])
                scores = [score for _, score in best]
                found[readable[i]] = list(map(Translation, map(clean, texts), scores))
        return found

    def read(self, texts: Iterable[str], on_problem: OnProblem) -> list[list[int]]:
        """Return the ids of each text; none for a text with a problem."""
        max_len = self.model.config.max_len
        return read_texts(self.tokenizer, texts, max_len, self.most_characters, on_problem)

    def write(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each row of target ids."""
        return decode(self.tokenizer, rows)

    def most_tokens(self, length: int) -> int:
        """Return how many tokens the translation of a source of so many may have."""
        return 2 * round_up(length, 16)

    @cached_property
    def most_characters(self) -> int:
        """The length of the longest text that can have at most max_len tokens."""
        return most_characters(self.tokenizer.get_vocab(), self.model.config.max_len)


class PublishedTranslator(Translator):
    """Translate with published weights: their tokenizer, and a search by their rules.

    `Translator.load` makes one. A text may begin with a tag of its target language, such as
    >>ita<<, if the model has such tags.
    """

    model: PublishedTransformer
    engine: RulesEngine

    def __init__(
        self, model: PublishedTransformer, tokenizer: PublishedTokenizer, rules: SearchRules
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.engine = RulesEngine(model, rules)
        self.search = Search(rules.beam_size, rules.length_penalty)

    def __getstate__(self) -> dict:
        return vars(self)

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)

    @classmethod
    def read_checkpoint(
        cls,
        name: str | Path,
        device: str = "cpu",
        engine: str = "pytorch",
        precision: str = "fp32",
        languages: Sequence[str] | None = None,
    ) -> "PublishedTranslator":
        """Read a published checkpoint; see `Translator.load`."""
        if engine != "pytorch":
            raise ValueError(f"published weights are searched by engine pytorch, not {engine}")
        folder = checkpoint_folder(name)
        rules = read_rules(folder)
        model, tokenizer = load_pretrained(folder, languages)
        if tokenizer.first_id is not None:
            rules = replace(rules, first_id=tokenizer.first_id)
        model = model.to(device)
        return cls(model.bfloat16() if precision == "bf16" else model, tokenizer, rules)

    def read(self, texts: Iterable[str], on_problem: OnProblem) -> list[list[int]]:
        max_len = self.model.config.max_len
        lines, lengths = clean_lines(texts, self.most_characters)
        rows = self.tokenizer.encode(lines)
        for i, line in enumerate(lines):
            problem = "" if self.tokenizer.knows(rows[i]) else f"{UNKNOWN}: {line[:40]!r}"
            if not line:
                problem = BLANK
            if lengths[i] > self.most_characters or len(rows[i]) > max_len:
                problem = f"is longer than the model's max_len of {max_len} tokens: split it"
            if problem:
                rows[i] = []
                on_problem(i + 1, problem)
        return rows

    def write(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return self.tokenizer.decode(rows)

    def most_tokens(self, length: int) -> int:
        return self.engine.rules.max_len

    @cached_property
    def most_characters(self) -> int:
        """A length that no text of max_len tokens has."""
        return LONGEST_PIECE * self.model.config.max_len


LONGEST_PIECE = 100
"""Characters of a token at most."""


def published_place(name: str | Path) -> str | Path | None:
    """Return the folder or hub name of published weights, or None if `name` is another model's."""
    for folder in (Path(name), cache_dir() / name):
        if is_checkpoint(folder):
            return folder
        if folder.is_dir():
            return None
    return name if is_hub_name(name) and not Path(name).parent.is_dir() else None


def exported_engine(
    engine: str, folder: Path, model: Transformer, tokenizer: Tokenizer, device: str, precision: str
) -> Engine | None:
    """Return an engine that reads what a model is exported to in `folder`; None for pytorch.

    The model is exported if that is not done, or if it has changed since.
    """
    if engine == "ctranslate2":
        exported = current_ctranslate2(model, tokenizer, folder)
        return CTranslate2Engine(exported, model.config, device, precision)
    if engine == "onnx":
        return OnnxEngine(current_onnx(model, folder), model.config)
    return None


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
