"""`python -m transformer evaluate`: translate a test set and print the scores as JSON."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from transformer.alignment import attention_rows
from transformer.cli.choosing import add_choice_options, best_translations
from transformer.cli.options import (
    Commands,
    add_corpus_options,
    add_problem_options,
    add_search_options,
    load_translator,
    read_corpus,
    search_of,
    target_language,
)
from transformer.cli.problems import Problems
from transformer.cli.recipe_options import add_recipe_option, use_recipe
from transformer.cli.scoring import Scoring, over_seeds
from transformer.corpora import Corpus
from transformer.corpora.multi30k import TEST_SETS
from transformer.files import check_writable
from transformer.metrics import moses_tokens
from transformer.ranks import current
from transformer.texts import read_lines
from transformer.translator import published_place


def add_evaluate(commands: Commands) -> None:
    """Add the command `evaluate` and its options."""
    command = commands.add_parser("evaluate", help="score a model: BLEU, chrF, exact match")
    add_recipe_option(command)
    add_corpus_options(command)
    add_search_options(command)
    add_choice_options(command)
    add_problem_options(command)
    command.add_argument(
        "--split",
        default="test",
        help="test (default), val, or another test set of the corpus: compositional of en-it; "
        "test_2017_flickr, test_2017_mscoco and test_2018_flickr of multi30k",
    )
    command.add_argument(
        "--tokenized",
        action="store_true",
        help="the text is tokenized already: score it without further tokenization",
    )
    command.add_argument(
        "--moses",
        nargs="?",
        const="",
        metavar="LANGUAGE",
        help="also score lowercased Moses tokens, as papers on Multi30k do, by the rules of a "
        "language (default: the corpus's target language)",
    )
    command.add_argument(
        "--also",
        nargs="+",
        metavar="MODEL",
        default=(),
        help="further models, such as those of other seeds: their scores, the mean and the spread",
    )
    command.add_argument(
        "--against",
        nargs="+",
        type=Path,
        metavar="FILE",
        default=(),
        help="translations of the same test set by other systems, one a line: the differences, and "
        "how easily chance explains them (paired bootstrap)",
    )
    command.add_argument("--out", type=Path, help="file for the translations")
    command.add_argument(
        "--attention",
        type=Path,
        metavar="FILE",
        help="file for what each translation attends to: its tokens, the source's, and a matrix of "
        "weights for each layer, as JSON, one translation a line",
    )
    command.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    """Translate a test set, print the scores, and then write the translations.

    What can be checked is checked before anything is translated.
    """
    use_recipe(options)
    search_of(options)
    sources, references = zip(*test_pairs(options), strict=True)
    language = moses_language(options)
    if language:
        moses_tokens(references[:1], language)
    check_outputs(options)
    others = {str(path): other_output(path, len(references)) for path in options.against}
    how = Scoring("none" if options.tokenized or options.tok else "13a", language)
    outputs = {m: translate_all(options, m, sources) for m in (options.model, *options.also)}
    found: dict[str, dict] = {}
    for model, (translations, search) in outputs.items():
        found[model] = how.scores(translations, references) | {"search": search}
        compared = {path: how.compared(translations, o, references) for path, o in others.items()}
        found[model] |= {"against": compared} if compared else {}
    several = {"models": found} | over_seeds(list(found.values()))
    printed = several if options.also else found[options.model]
    print(json.dumps(printed, indent=2, ensure_ascii=False), flush=True)
    if options.out and current().is_first:
        text = "".join(f"{line}\n" for line in outputs[options.model][0])
        options.out.write_text(text, encoding="utf-8")
    if options.attention and current().is_first:
        write_attention(options, sources, outputs[options.model][0])


def check_outputs(options: argparse.Namespace) -> None:
    """Raise OSError for a file that cannot be written, ValueError for attention that is not had."""
    for path in (options.out, options.attention):
        if path:
            check_writable(path)
    if options.attention and published_place(options.model):
        raise ValueError("--attention is for models that were trained here, not published ones")


def write_attention(
    options: argparse.Namespace, sources: Sequence[str], translations: Sequence[str]
) -> None:
    """Write what each translation attends to."""
    translator = load_translator(options)
    pairs = list(zip(sources, translations, strict=True))
    rows = attention_rows(translator.model, translator.tokenizer, pairs)
    with options.attention.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(f"{json.dumps(row, ensure_ascii=False)}\n")


def translate_all(
    options: argparse.Namespace, model: str, sources: Sequence[str]
) -> tuple[list[str], str]:
    """Return a model's translations of all sources, and in words how they were found."""
    options = argparse.Namespace(**vars(options) | {"model": model})
    problems = Problems(options.strict, options.copy_unknown)
    problems.begin(list(sources))
    translator = load_translator(options)
    found, search = best_translations(translator, sources, options, problems)
    return [
        problems.instead_of(i) if text is None else text for i, text in enumerate(found)
    ], search


def other_output(path: Path, count: int) -> list[str]:
    """Return the lines of another system's output; ValueError if there are not `count`."""
    lines = read_lines(path)
    if len(lines) != count:
        raise ValueError(f"{path} has {len(lines)} lines, and the test set {count} sentences")
    return lines


def test_pairs(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the pairs of the split that the options name."""
    if options.corpus == "multi30k" and options.split in TEST_SETS:
        return read_corpus(options, options.split).test
    return chosen_split(read_corpus(options), options.split)


def moses_language(options: argparse.Namespace) -> str | None:
    """Return the language of --moses; None without it, ValueError if it is not known."""
    language = options.moses or target_language(options)
    if options.moses == "" and not language:
        raise ValueError("--moses needs the language of the files' targets, such as --moses it")
    return None if options.moses is None else language


def chosen_split(corpus: Corpus, split: str) -> list[tuple[str, str]]:
    """Return the pairs of a split; ValueError that names the others if the corpus has none."""
    splits = {"val": corpus.val, "test": corpus.test, **corpus.more}
    if not splits.get(split):
        known = ", ".join(name for name, pairs in splits.items() if pairs)
        raise ValueError(f"{corpus.name} has no split {split!r}, only {known}")
    return splits[split]
