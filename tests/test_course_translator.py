"""The translator that the course trains reaches the figures that the README promises."""

import copy
import pickle

import pytest

from transformer.corpora import Corpus, english_italian
from transformer.metrics import exact_match
from transformer.recipes import trained_translator
from transformer.translator import Translator


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator.load(trained_translator())


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return english_italian()


def exact(translator: Translator, pairs: list[tuple[str, str]], beam_size: int) -> float:
    sources, references = zip(*pairs, strict=True)
    return exact_match(translator.translate(sources, beam_size), references)


def test_it_translates_the_sentences_that_the_course_promises(translator):
    assert translator.translate(["I love you very much"]) == ["ti amo molto"]
    assert translator.translate(["There is a cat on the mat"]) == ["c'è un gatto sul tappeto"]


def test_at_least_99_percent_of_the_test_split_are_exactly_right(translator, corpus):
    assert len(corpus.test) == 1000
    assert exact(translator, corpus.test, beam_size=1) >= 0.99


def test_at_least_95_percent_of_combinations_never_seen_together_are_exactly_right(
    translator, corpus
):
    assert len(corpus.more["compositional"]) == 1000
    assert exact(translator, corpus.more["compositional"], beam_size=1) >= 0.95


def test_order_and_company_do_not_change_a_translation(translator, corpus):
    texts = [source for source, _ in corpus.test[:20]]
    together = translator.translate(texts)
    assert translator.translate(texts[::-1])[::-1] == together
    assert [translator.translate([text])[0] for text in texts[:5]] == together[:5]


def test_a_copy_and_a_pickle_translate_the_same(translator, corpus):
    texts = [source for source, _ in corpus.test[:20]]
    want = translator.translate(texts)
    assert copy.deepcopy(translator).translate(texts) == want
    assert pickle.loads(pickle.dumps(translator)).translate(texts) == want


@pytest.mark.parametrize(
    ("engine", "packages"),
    [
        ("ctranslate2", ["ctranslate2"]),
        # tests/test_translator.py compares ONNX, too, with a smaller model.
        pytest.param("onnx", ["onnx", "onnxscript", "onnxruntime"], marks=pytest.mark.slow),
    ],
)
def test_every_engine_translates_the_same(translator, corpus, engine, packages):
    for package in packages:
        pytest.importorskip(package)
    texts = [source for source, _ in corpus.test[:40]]
    want = translator.translate(texts)
    assert Translator.load(trained_translator(), engine=engine).translate(texts) == want
