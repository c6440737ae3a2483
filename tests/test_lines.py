"""Line n out belongs to line n in: for any text, on every way in, with every engine."""

import io
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformer.cli import main
from transformer.recipes import trained_translator
from transformer.translator import Translator

WORDS = st.sampled_from(["the cat", "is on the mat", "il gatto", "\ufeff", "\r", "\u00a0", "😀"])
ANY_TEXT = st.one_of(st.text(max_size=30), st.lists(WORDS, max_size=9).map(" ".join))
SLOW = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


pytestmark = pytest.mark.translator


@pytest.fixture(scope="module")
def folder() -> Path:
    return trained_translator()


@pytest.fixture(scope="module", params=["pytorch", "ctranslate2"])
def translator(request, folder) -> Translator:
    if request.param == "ctranslate2":
        pytest.importorskip("ctranslate2")
    return Translator.load(folder, engine=request.param)


@pytest.fixture(scope="module")
def reference(folder) -> Translator:
    return Translator.load(folder)


@pytest.mark.filterwarnings("ignore:text .*its translation is empty")
@SLOW
@given(texts=st.lists(ANY_TEXT, max_size=9))
def test_any_texts_have_as_many_translations_in_order(
    translator, reference, monkeypatch, texts: list[str]
) -> None:
    found = translator.translate(texts, beam_size=2)
    assert len(found) == len(texts)
    alone = [reference.translate([text], beam_size=2)[0] for text in texts]
    assert found == alone
    assert not any("\n" in text for text in found)
    monkeypatch.setattr("transformer.cli.translate_command.load_translator", lambda _: translator)
    if texts:
        lines = [text.replace("\n", " ") for text in texts]
        stdin = "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        assert main(["translate", "--beam", "2"]) == 0
        monkeypatch.undo()
        assert out.getvalue() == "".join(f"{text}\n" for text in found)
