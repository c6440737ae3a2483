"""BLEU, chrF, exact match and Moses tokens of a whole test set."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> float:
    """Return BLEU of a whole test set, from 0 to 100.

    `tokenize` is one of sacrebleu's tokenizers; "none" is for text that is tokenized already.
    Raises ValueError for another name, and if there are no hypotheses, or not one reference for
    each. Source: Papineni et al. 2002.
    """
    check_aligned(hypotheses, references)
    score = bleu_metric(tokenize).corpus_score(list(hypotheses), [list(references)]).score
    return min(score, 100.0)  # a perfect one comes out a rounding error above


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return chrF of a whole test set, from 0 to 100.

    Raises ValueError if there are no hypotheses, or not one reference for each.
    Source: Popović 2015.
    """
    check_aligned(hypotheses, references)
    return CHRF().corpus_score(list(hypotheses), [list(references)]).score


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return the share of hypotheses that equal their reference, from 0 to 1.

    Raises ValueError if there are no hypotheses, or not one reference for each.
    """
    check_aligned(hypotheses, references)
    equal = sum(map(str.__eq__, hypotheses, references))
    return equal / len(hypotheses)


def scores(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a"
) -> dict[str, float | list[str]]:
    """Return BLEU and chrF, rounded to two digits, and the "signatures" of how they were computed.

    Arguments and errors are those of `bleu`. Source: Post 2018 (sacrebleu).
    """
    check_aligned(hypotheses, references)
    metrics = {"BLEU": bleu_metric(tokenize), "chrF": CHRF()}
    found: dict[str, float | list[str]] = {}
    for name, metric in metrics.items():
        score = metric.corpus_score(list(hypotheses), [list(references)]).score
        found[name] = round(score, 2)
    # A metric knows its signature only after it has seen how many references there are.
    found["signatures"] = [f"{name}: {metric.get_signature()}" for name, metric in metrics.items()]
    return found


def moses_tokens(texts: Sequence[str], language: str) -> list[str]:
    """Return the texts as lowercased, normalised Moses tokens, separated by spaces.

    `language` is a code such as "de". Raises ValueError if sacremoses is not installed.
    """
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError:
        missing = "Moses tokens need the package sacremoses: pip install sacremoses"
        raise ValueError(missing) from None
    normalizer = MosesPunctNormalizer(language)
    tokenizer = MosesTokenizer(language)
    normal = [normalizer.normalize(text.lower()) for text in texts]
    return [str(tokenizer.tokenize(text, return_str=True)) for text in normal]


def bleu_metric(tokenize: str) -> BLEU:
    """Return sacrebleu's metric; ValueError if it has no such tokenizer."""
    if tokenize not in BLEU.TOKENIZERS:
        known = ", ".join(BLEU.TOKENIZERS)
        raise ValueError(f"tokenize must be one of {known}, not {tokenize!r}")
    # `force` silences the warning about text that looks tokenized.
    return BLEU(tokenize=tokenize, force=tokenize == "none")


def check_aligned(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Raise a ValueError unless there is one reference for each hypothesis, and at least one."""
    if len(hypotheses) != len(references) or not hypotheses:
        counts = f"{len(hypotheses)} hypotheses and {len(references)} references"
        raise ValueError(f"{counts}: there must be one reference for each hypothesis, at least one")
