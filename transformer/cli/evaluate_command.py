"""`python -m transformer evaluate`: translate a test set and print the scores as JSON."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

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
from transformer.cli.sharing import n_best_by_all
from transformer.corpora import Corpus
from transformer.corpora.multi30k import TEST_SETS
from transformer.files import check_writable
from transformer.metrics import exact_match, moses_tokens, scores
from transformer.ranks import current


def add_evaluate(commands: Commands) -> None:
    """Add the command `evaluate` and its options."""
    command = commands.add_parser("evaluate", help="score a model: BLEU, chrF, exact match")
    add_corpus_options(command)
    add_search_options(command)
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
    command.add_argument("--out", type=Path, help="file for the translations")
    command.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    """Translate a test set, print the scores, and then write the translations.

    What can be checked is checked before anything is translated.
    """
    sources, references = zip(*test_pairs(options), strict=True)
    language = moses_language(options)
    if language:
        moses_tokens(references[:1], language)
    if options.out:
        check_writable(options.out)
    problems = Problems(options.strict, options.copy_unknown)
    problems.begin(list(sources))
    translator = load_translator(options)
    found = n_best_by_all(translator, list(sources), search_of(options), problems, progress=True)
    translations = [
        best[0].text if best else problems.instead_of(i) for i, best in enumerate(found)
    ]
    tokenize = "none" if options.tokenized or options.tok else "13a"
    print(all_scores(translations, references, tokenize, language), flush=True)
    if options.out and current().is_first:
        text = "".join(f"{line}\n" for line in translations)
        options.out.write_text(text, encoding="utf-8")


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


def all_scores(
    translations: list[str], references: Sequence[str], tokenize: str, language: str | None
) -> str:
    """Return the number of sentences, the share of exact matches, BLEU and chrF, as JSON."""
    found = {
        "sentences": len(references),
        "exact": round(exact_match(translations, references), 4),
        **scores(translations, references, tokenize),
    }
    if language:
        hypothesis_tokens = moses_tokens(translations, language)
        reference_tokens = moses_tokens(references, language)
        found["moses"] = scores(hypothesis_tokens, reference_tokens, "none")
    return json.dumps(found, indent=2, ensure_ascii=False)
