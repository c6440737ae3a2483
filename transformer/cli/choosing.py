"""Which translation of a sentence counts: the most probable, or the one most like the others."""

import argparse
from collections.abc import Sequence

from transformer.cli.options import positive, search_of
from transformer.cli.problems import Problems
from transformer.cli.sharing import n_best_by_all
from transformer.metrics import minimum_risk
from transformer.sampling import sample_translations
from transformer.translator import Translator


def add_choice_options(command: argparse.ArgumentParser) -> None:
    """Add the options for minimum Bayes risk."""
    command.add_argument(
        "--mbr",
        type=positive,
        metavar="N",
        help="of N translations take the one with the highest mean chrF against all of them "
        "(minimum Bayes risk), not the most probable one",
    )
    command.add_argument(
        "--mbr-from",
        choices=("beam", "samples"),
        default="beam",
        help="the N best of a beam of N, or N random samples (default: beam)",
    )


def best_translations(
    translator: Translator,
    sources: Sequence[str],
    options: argparse.Namespace,
    problems: Problems,
) -> tuple[list[str | None], str]:
    """Return the translation of each source, None where there is none, and in words how."""
    search = search_of(options, translator.search)
    if options.mbr and options.mbr_from == "samples":
        drawn = sample_translations(translator, sources, options.mbr, on_problem=problems)
        return list(map(least_risk, drawn)), f"minimum risk of {options.mbr} samples"
    if options.mbr:
        options = argparse.Namespace(**vars(options) | {"beam": options.mbr})
        search = search_of(options, translator.search, options.mbr)
    found = n_best_by_all(translator, list(sources), search, problems, progress=True)
    words = f"beam {search.beam_size}, length penalty {search.length_penalty:g}"
    if not options.mbr:
        return [best[0].text if best else None for best in found], words
    texts = [[text for text, _ in best] for best in found]
    return list(map(least_risk, texts)), f"minimum risk of {options.mbr} best, {words}"


def least_risk(texts: Sequence[str]) -> str | None:
    """Return the text of the least risk; None if there is no text."""
    return texts[minimum_risk(texts)] if texts else None
