"""The translator that the course trains: the figures that the README promises."""

import pytest

from transformer.data import english_italian
from transformer.inference import Translator
from transformer.training import trained_translator


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator.load(trained_translator())


@pytest.fixture(scope="module")
def corpus():
    return english_italian()


def exact(translator: Translator, pairs: list[tuple[str, str]], beam_size: int) -> float:
    sources, references = zip(*pairs, strict=True)
    return sum(map(str.__eq__, translator.translate(sources, beam_size), references)) / len(pairs)


def test_it_translates_the_sentences_that_the_course_promises(translator):
    assert translator.translate(["I love you very much"]) == ["ti amo molto"]
    assert translator.translate(["There is a cat on the mat"]) == ["c'è un gatto sul tappeto"]


def test_at_least_99_percent_of_the_test_split_are_exactly_right(translator, corpus):
    assert len(corpus.test) == 1000
    assert exact(translator, corpus.test, beam_size=1) >= 0.99


def test_at_least_95_percent_of_combinations_never_seen_together_are_exactly_right(translator, corpus):
    assert len(corpus.more["compositional"]) == 1000
    assert exact(translator, corpus.more["compositional"], beam_size=1) >= 0.95


def test_order_and_company_do_not_change_a_translation(translator, corpus):
    texts = [source for source, _ in corpus.test[:20]]
    together = translator.translate(texts)
    assert translator.translate(texts[::-1])[::-1] == together
    assert [translator.translate([text])[0] for text in texts[:5]] == together[:5]
