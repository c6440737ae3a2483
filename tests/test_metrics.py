"""Scores are sacrebleu's, say how they were computed, and are refused for lists that differ."""

import logging
import os
import sys

import pytest
from sacrebleu.metrics import CHRF

from transformer.corpora import multi30k
from transformer.metrics import (
    bleu,
    chrf,
    exact_match,
    mean_and_spread,
    minimum_risk,
    moses_tokens,
    paired_bootstrap,
    scores,
    sentence_chrf,
)

REFERENCES = ["the cat is on the mat", "yes"]
HYPOTHESES = ["the cat is on the mat", "no"]


def test_scores_are_sacrebleus_and_say_how() -> None:
    found = scores(HYPOTHESES, REFERENCES)
    assert 80 < found["BLEU"] < 100 and 0 < found["chrF"] < 100
    assert all("version:" in signature for signature in found["signatures"])
    assert "tok:13a" in found["signatures"][0]
    assert "tok:none" in scores(["a b"], ["a b"], "none")["signatures"][0]


def test_a_perfect_translation_has_100_points_and_a_wrong_one_none() -> None:
    text = ["the cat is on the mat"]
    wrong = ["uno due tre quattro cinque"]
    assert scores(text, text)["BLEU"] == 100
    assert scores(wrong, text)["BLEU"] == 0
    assert bleu(text, text) == chrf(text, text) == 100
    assert bleu(wrong, text) == 0


def test_scores_are_rounded_to_two_digits() -> None:
    hypotheses = ["the cat sat on a mat today"]
    references = ["the cat sat on the mat today"]
    found = scores(hypotheses, references)
    assert 0 < found["BLEU"] < 100
    assert found["BLEU"] == round(found["BLEU"], 2) != round(found["BLEU"], 1)
    assert found["BLEU"] == round(bleu(hypotheses, references), 2)
    assert found["chrF"] == round(chrf(hypotheses, references), 2)


def test_bleu_is_of_the_whole_set_and_needs_the_right_order() -> None:
    texts = ["the cat is on the mat", "a dog sleeps under the old tree"]
    assert bleu(tuple(texts), tuple(texts)) == 100
    assert bleu(texts, texts[::-1]) < 10
    hypotheses = ["the cat is on the mat", "a dog sleeps"]
    single = [bleu([hyp], [ref]) for hyp, ref in zip(hypotheses, texts, strict=True)]
    assert bleu(hypotheses, texts) != pytest.approx(sum(single) / 2, abs=1)


def test_bleu_depends_on_how_words_are_split() -> None:
    hypotheses = ["the cat is on the mat, today"]
    references = ["the cat is on the mat , today"]
    assert bleu(hypotheses, references) == 100
    assert bleu(hypotheses, references, tokenize="none") < 100


def test_chrf_rewards_a_right_stem_with_a_wrong_ending() -> None:
    references = ["la ragazza stanca"]
    assert chrf(["la ragazza stanco"], references) > chrf(["la ragazza felice"], references) + 10
    assert bleu(["la ragazza stanco"], references) == bleu(["la ragazza felice"], references)


def test_exact_match_is_the_share_of_equal_texts() -> None:
    assert exact_match(HYPOTHESES, REFERENCES) == 0.5
    assert exact_match(REFERENCES, REFERENCES) == 1.0
    assert exact_match(["a", "b", "c"], ("a", "b ", "C")) == pytest.approx(1 / 3)


@pytest.mark.parametrize("metric", [bleu, chrf, exact_match, scores])
@pytest.mark.parametrize(
    ("hypotheses", "references"), [(["a"], ["a", "b"]), (["a", "b"], ["a"]), ([], [])]
)
def test_lists_that_do_not_belong_together_are_refused(metric, hypotheses, references) -> None:
    counts = f"^{len(hypotheses)} hypotheses and {len(references)} references: .* at least one$"
    with pytest.raises(ValueError, match=counts):
        metric(hypotheses, references)


@pytest.mark.parametrize("metric", [bleu, scores])
def test_a_tokenizer_that_there_is_not_is_named(metric) -> None:
    with pytest.raises(ValueError, match=r"tokenize must be one of .*13a.*, not 'moses'"):
        metric(["a"], ["a"], "moses")


@pytest.mark.parametrize(("tokenize", "warned"), [("13a", True), ("none", False)])
def test_only_text_that_should_not_be_tokenized_is_suspected_of_it(
    caplog, tokenize: str, warned: bool
) -> None:
    text = ["the cat is on the mat ."] * 100
    with caplog.at_level(logging.WARNING):
        scores(text, text, tokenize)
    assert ("tokenized period" in caplog.text) == warned


def test_moses_tokens_are_lowercased_normalised_and_split() -> None:
    pytest.importorskip("sacremoses")
    assert moses_tokens(["The cat’s  mat, please."], "en") == ["the cat &apos;s mat , please ."]
    assert moses_tokens(["L'albero è qui!"], "it") == ["l&apos; albero è qui !"]


def test_a_missing_sacremoses_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ValueError, match=r"^Moses tokens need .*: pip install sacremoses$"):
        moses_tokens(["a"], "en")


@pytest.mark.skipif("MULTI30K" not in os.environ, reason="$MULTI30K names no copy of Multi30k")
@pytest.mark.parametrize("side", [0, 1])
def test_moses_tokens_are_those_that_multi30k_publishes(side: int) -> None:
    raw = [pair[side] for pair in multi30k().test]
    assert moses_tokens(raw, ("en", "de")[side]) == [p[side] for p in multi30k(tokenized=True).test]


# --- differences and seeds ------------------------------------------------------------------------

SEEN = [f"the {a} {b} sees the {c}" for a in ("red", "old") for b in "xyz" for c in "uvw"]
WORSE = [text.replace("sees", "sieht") if i % 3 else text for i, text in enumerate(SEEN)]


def test_a_bootstrap_tells_a_large_difference_from_none() -> None:
    found = paired_bootstrap(SEEN, WORSE, SEEN, samples=200)
    for name in ("BLEU", "chrF"):
        assert found[name].difference == round(found[name].score - found[name].other, 2) > 5
        assert found[name].p < 0.02
    same = paired_bootstrap(WORSE, WORSE, SEEN, samples=200)
    assert same["BLEU"].difference == 0
    assert same["BLEU"].p > 0.9
    assert paired_bootstrap(WORSE, WORSE, SEEN, samples=200) == same


def test_a_bootstrap_has_sacrebleus_scores() -> None:
    found = paired_bootstrap(WORSE, SEEN, SEEN, samples=50)
    assert found["BLEU"].score == scores(WORSE, SEEN)["BLEU"]
    assert found["chrF"].score == scores(WORSE, SEEN)["chrF"]
    assert found["BLEU"].other == 100
    assert found["BLEU"].interval > 0


def test_outputs_of_another_test_set_are_refused() -> None:
    with pytest.raises(ValueError, match="17 hypotheses and 18 references"):
        paired_bootstrap(SEEN, WORSE[1:], SEEN)


def test_scores_of_seeds_have_a_mean_and_a_spread() -> None:
    assert mean_and_spread([40.0, 41.0, 42.0]) == (41.0, 1.0)
    assert mean_and_spread([40.0]) == (40.0, 0.0)
    with pytest.raises(ValueError, match="no score"):
        mean_and_spread([])


# --- minimum risk ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hypothesis", "reference"),
    [
        ("ein Hund läuft", "ein Hund rennt über die Wiese"),
        ("ein Hund läuft über die Wiese", "ein Hund"),
        ("ab", "ab"),
        ("a", "abcdefgh"),
        ("xyz", "uvw"),
        ("aaaa", "aa a"),
        ("", "a b"),
    ],
)
def test_chrf_of_a_sentence_is_sacrebleus(hypothesis: str, reference: str) -> None:
    want = CHRF().sentence_score(hypothesis, [reference]).score
    assert sentence_chrf(hypothesis, reference) == pytest.approx(want, abs=1e-9)


def test_the_candidate_most_like_the_others_is_chosen() -> None:
    candidates = ["a man sings", "the dog runs", "the dog ran", "a dog runs", "the dog runs"]
    assert minimum_risk(candidates) == 1
    means = [sum(sentence_chrf(a, b) for b in candidates) for a in candidates]
    assert means.index(max(means)) == 1
    assert minimum_risk(["one"]) == 0
    with pytest.raises(ValueError, match="no candidate"):
        minimum_risk([])


def test_a_candidate_that_occurs_often_weighs_more() -> None:
    assert minimum_risk(["xx", "yy", "yy"]) == 1
    assert minimum_risk(["xx", "xx", "yy"]) == 0
