"""`python -m transformer evaluate`: translate a test set and print the scores as JSON."""

import argparse
import json
from pathlib import Path

from transformer.cli.options import (
    Commands,
    add_corpus_options,
    add_search_options,
    load_translator,
    read_corpus,
)
from transformer.corpora import Corpus
from transformer.files import check_writable
from transformer.metrics import exact_match, moses_tokens, scores


def add_evaluate(commands: Commands) -> None:
    """Add the command `evaluate` and its options."""
    command = commands.add_parser("evaluate", help="score a model: BLEU, chrF, exact match")
    add_corpus_options(command)
    add_search_options(command)
    command.add_argument(
        "--split",
        default="test",
        help="test (default), val, or another test set of the corpus, such as compositional",
    )
    command.add_argument(
        "--tokenized",
        action="store_true",
        help="the text is tokenized already: score it without further tokenization",
    )
    command.add_argument(
        "--moses",
        action="store_true",
        help="also score lowercased Moses tokens, as papers on Multi30k do",
    )
    command.add_argument("--out", type=Path, help="file for the translations")
    command.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    """Translate a test set and print the scores.

    All that can be refused is tried before anything is translated, and the scores are printed
    before the translations are written.
    """
    corpus = read_corpus(options)
    sources, references = zip(*chosen_split(corpus, options.split), strict=True)
    all_scores([references[0]], references[:1], options)
    if options.out:
        check_writable(options.out)
    translator = load_translator(options)
    translations = translator.translate(
        sources, options.beam, options.length_penalty, progress=True
    )
    print(json.dumps(all_scores(translations, references, options), indent=2, ensure_ascii=False))
    if options.out:
        text = "".join(f"{line}\n" for line in translations)
        options.out.write_text(text, encoding="utf-8")


def chosen_split(corpus: Corpus, split: str) -> list[tuple[str, str]]:
    """Return the pairs of a split; ValueError that names the others if the corpus has none."""
    splits = {"val": corpus.val, "test": corpus.test, **corpus.more}
    if not splits.get(split):
        known = ", ".join(name for name, pairs in splits.items() if pairs)
        raise ValueError(f"{corpus.name} has no split {split!r}, only {known}")
    return splits[split]


def all_scores(translations: list[str], references: tuple, options: argparse.Namespace) -> dict:
    """Return the number of sentences, the share of exact matches, BLEU and chrF."""
    tokenize = "none" if options.tokenized or options.tok else "13a"
    found = {
        "sentences": len(references),
        "exact": round(exact_match(translations, references), 4),
        **scores(translations, references, tokenize),
    }
    if options.moses:
        language = options.tgt if options.corpus == "multi30k" else "en"
        hypothesis_tokens = moses_tokens(translations, language)
        reference_tokens = moses_tokens(references, language)
        found["moses"] = scores(hypothesis_tokens, reference_tokens, "none")
    return found
