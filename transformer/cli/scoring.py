"""The scores of translations, the differences between systems, and the spread over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformer.metrics import (
    Difference,
    exact_match,
    mean_and_spread,
    moses_tokens,
    paired_bootstrap,
    scores,
)


@dataclass(frozen=True)
class Scoring:
    """How translations are scored: sacrebleu's tokenizer, and a language for Moses tokens."""

    tokenize: str
    language: str | None

    def scores(self, translations: list[str], references: Sequence[str]) -> dict[str, Any]:
        """Return the number of sentences, the share of exact matches, BLEU and chrF."""
        found: dict[str, Any] = {
            "sentences": len(references),
            "exact": round(exact_match(translations, references), 4),
            **scores(translations, references, self.tokenize),
        }
        if self.language:
            mine, wanted = self.in_tokens(translations, references)
            found["moses"] = scores(mine, wanted, "none")
        return found

    def compared(
        self, translations: list[str], others: list[str], references: Sequence[str]
    ) -> dict[str, Any]:
        """Return the differences from another system's output, and their p."""
        found: dict[str, Any] = as_dicts(
            paired_bootstrap(translations, others, references, self.tokenize)
        )
        if self.language:
            mine, theirs, wanted = self.in_tokens(translations, others, references)
            found["moses"] = as_dicts(paired_bootstrap(mine, theirs, wanted, "none"))
        return found

    def in_tokens(self, *texts: Sequence[str]) -> list[list[str]]:
        """Return lowercased Moses tokens of each list of texts."""
        return [moses_tokens(each, self.language or "en") for each in texts]


def as_dicts(found: dict[str, Difference]) -> dict[str, dict[str, float]]:
    """Return differences by metric in a form that JSON has."""
    return {name: difference._asdict() for name, difference in found.items()}


def over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean of the models' scores, and their standard deviation."""
    result: dict[str, dict[str, float]] = {"mean": {}, "spread": {}}
    flat = [each | {f"moses {k}": v for k, v in each.get("moses", {}).items()} for each in found]
    for name in ("BLEU", "chrF", "moses BLEU", "moses chrF"):
        if name in flat[0]:
            mean, spread = mean_and_spread([each[name] for each in flat])
            result["mean"][name] = round(mean, 2)
            result["spread"][name] = round(spread, 2)
    return result
