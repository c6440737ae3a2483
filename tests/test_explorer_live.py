"""The live page: what the model writes in a browser is what the library writes."""

import random
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsers import DESKTOP, PHONE, browser, missing, package_of_npm, serious_violations

from transformer.corpora import english_italian
from transformer.data import encode
from transformer.example import example_model, example_tokenizer
from transformer.explorer import explore, write_live
from transformer.explorer.graphs import write_graphs
from transformer.explorer.live import LIVE_FILES, RUNTIME, RUNTIME_FILES, live_page
from transformer.explorer.translation import dequantised
from transformer.inference import IncrementalDecoder
from transformer.texts import clean
from transformer.translator import Translator

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

SENTENCE = "there is a cat on the mat"


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(example_model(), example_tokenizer())


# --- the graphs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    write_graphs(example_model(), folder)
    return folder


def test_the_graphs_compute_what_the_model_computes(graphs: Path, translator: Translator) -> None:
    import onnxruntime

    encoder, step = (
        onnxruntime.InferenceSession(graphs / name) for name in ("encoder.onnx", "step.onnx")
    )
    found = explore(translator, SENTENCE).translation
    src = torch.tensor([found["source"]["ids"]])
    source, weights = encoder.run(None, {"src": src.numpy()})
    assert np.abs(weights - dequantised(found["attention"]["encoder"]).numpy()).max() < 0.003
    cross = dequantised(found["attention"]["cross"]).numpy()
    past = np.zeros((2, 2, 3, 4, 0, 6), np.float32)
    decoder = IncrementalDecoder(translator.model, src)
    for t, token in enumerate(found["read"]["ids"]):
        inputs = {"ids": np.full(3, token), "position": np.array([t])}
        logits, past, own, others = step.run(None, inputs | {"source": source, "past": past})
        with torch.no_grad():
            wanted = decoder.step(torch.tensor([token])).numpy()
        assert np.abs(logits - wanted).max() < 1e-3
        assert own.shape == (2, 3, 4, t + 1) and others.shape == (2, 4, 3, 8)
        assert np.abs(others[:, :, 1] - cross[:, :, t]).max() < 0.003
    assert past.shape == (2, 2, 3, 4, 8, 6)


# --- the folder -----------------------------------------------------------------------------------


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder with files that have the names of the runtime's."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in RUNTIME_FILES:
        (folder / name).write_text(name)
    return folder


def test_a_folder_has_all_that_the_page_needs(
    translator, runtime: Path, graphs: Path, tmp_path: Path, monkeypatch
) -> None:
    def write_graphs(_, folder: Path) -> None:
        shutil.copytree(graphs, folder, dirs_exist_ok=True)

    monkeypatch.setattr("transformer.explorer.live.write_graphs", write_graphs)
    folder = write_live(translator, tmp_path / "live", SENTENCE, runtime)
    assert sorted(path.name for path in folder.iterdir()) == sorted(LIVE_FILES)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an export"):
        write_live(translator, tmp_path / "other", SENTENCE, runtime)
    (runtime / RUNTIME_FILES[0]).unlink()
    with pytest.raises(ValueError, match=f"has no {RUNTIME_FILES[0]}"):
        write_live(translator, tmp_path / "new", SENTENCE, runtime)
    assert not (tmp_path / "new").exists()


def test_without_npm_the_error_says_what_to_do(translator, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TRANSFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="install npm, or give its dist as runtime"):
        write_live(translator, tmp_path / "live")


# --- in the browser -------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and does not write about it."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def trained() -> Translator:
    """The translator that the course trains."""
    from transformer.recipes import trained_translator

    return Translator.load(trained_translator())


@pytest.fixture(scope="module")
def folder(trained: Translator, tmp_path_factory) -> Path:
    dist = package_of_npm(RUNTIME) / "dist"
    return write_live(trained, tmp_path_factory.mktemp("served") / "live", SENTENCE, dist)


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Serve the folder, and return its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def opened(chromium) -> Iterator[Any]:
    """Open addresses as pages, and see that none complains or asks another host."""
    complaints: list[str] = []
    contexts = []

    def open_page(address: str, size: dict = DESKTOP, **options: Any) -> Any:
        context = chromium.new_context(viewport=size, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))

        def check(request: Any) -> None:
            if not request.url.startswith((address.removesuffix("index.html"), "data:", "blob:")):
                complaints.append(f"asks for {request.url}")

        page.on("request", check)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def ready(opened, address: str) -> Any:
    """The live page, when its model is loaded."""
    page = opened(address)
    page.wait_for_function("window.liveTranslator", timeout=60_000)
    return page


def strange_texts() -> list[str]:
    """Return texts that nobody expects, from the whole of Unicode; the same ones every time."""
    numbers = random.Random(0)
    ranges = [(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x600, 0x6FF)]
    ranges += [(0x900, 0x97F), (0x2000, 0x206F), (0x2580, 0x259F), (0x3000, 0x30FF)]
    ranges += [(0x1F300, 0x1F64F)]
    texts = [
        "",
        "İ",
        "ΑΣ",
        "a▁b",
        "▁",
        "▁▁ a",
        "e\u0301",
        "I'M  HERE\u00a0!",
        "a_b",
        "x²",
        "¼",
        "Ⅳ",
    ]
    for _ in range(300):
        start, stop = numbers.choice(ranges)
        letters = [chr(numbers.randrange(start, stop)) for _ in range(6)]
        texts.append("".join(numbers.choice([*letters, "cat", " ", "'"]) for _ in range(12)))
    return texts


@pytest.mark.translator
def test_the_tokenizer_is_the_librarys(ready, trained: Translator) -> None:
    texts = [en for en, _ in english_italian().test[:200]] + strange_texts()
    wanted = [trained.tokenizer.encode(clean(text)).ids for text in texts]
    found = ready.evaluate("texts => texts.map(liveTranslator.encode)", texts)
    assert [t for t, a, b in zip(texts, found, wanted) if a != b] == []


@pytest.mark.translator
@pytest.mark.parametrize("beam_size", [1, 5])
def test_the_tokens_of_200_sentences_are_the_librarys(ready, trained, beam_size: int) -> None:
    texts = [en for en, _ in english_italian().test[:200]]
    script = """async ([texts, beam]) => {
      const found = [];
      for (const text of texts) found.push(await liveTranslator.translate(text, beam));
      return found;
    }"""
    found = ready.evaluate(script, [texts, beam_size])
    wanted = trained.translate(texts, beam_size)
    assert [each["text"] for each in found] == wanted
    ids = [explore(trained, text, beam_size).translation["target"]["ids"] for text in texts[:20]]
    assert [each["ids"] for each in found[:20]] == ids
    assert all(each["ids"][-1] == 2 for each in found)
    assert [each["ids"][:-1] for each in found] == [
        row[:-1] for row in encode(trained.tokenizer, wanted)
    ]


@pytest.mark.translator
def test_a_typed_sentence_is_shown_as_a_recorded_one_is(ready, trained, chromium, tmp_path) -> None:
    sentence = "the girls read a red book"
    ready.fill("#sentence", sentence)
    ready.click("text=Translate")
    ready.wait_for_function("document.querySelector('.status').textContent.includes('Nothing has')")
    page = chromium.new_page(viewport=DESKTOP)
    page.goto(explore(trained, sentence).save(tmp_path / "page.html").as_uri())
    for selector in (".target", ".facts", ".shapes", ".cache", ".beam-which"):
        assert ready.inner_text(selector) == page.inner_text(selector), selector
    for kind in ("encoder", "decoder", "cross"):
        for each in (ready, page):
            each.click(f'[data-kind="{kind}"]')
            each.click('.atlas [data-row="0"][data-head="2"]')
        numbers = [
            each.eval_on_selector_all("tbody td", "all => all.map(c => +c.textContent)")
            for each in (ready, page)
        ]
        assert len(numbers[0]) == len(numbers[1]) > 30
        assert max(abs(a - b) for a, b in zip(*numbers)) <= 1
    states = [
        each.eval_on_selector_all(".node", "all => all.map(n => n.className)")
        for each in (ready, page)
    ]
    assert states[0] == states[1]
    page.close()


@pytest.mark.translator
@pytest.mark.parametrize(
    ("typed", "said"),
    [("   ", "nothing to translate"), ("øøø", "knows no character"), ("cat " * 100, "")],
)
def test_what_cannot_be_translated_is_said(ready, typed: str, said: str) -> None:
    ready.fill("#sentence", typed)
    ready.click("text=Translate")
    ready.wait_for_function("!document.querySelector('.ask button').disabled")
    assert said in ready.inner_text(".status")


@pytest.mark.translator
def test_the_live_page_is_accessible_and_fits_a_phone(opened, address: str) -> None:
    page = opened(address, PHONE)
    page.wait_for_function("window.liveTranslator", timeout=60_000)
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.translator
def test_opened_from_a_folder_it_says_what_it_needs(opened, folder: Path) -> None:
    page = opened((folder / "index.html").as_uri())
    assert "python -m http.server" in page.inner_text(".status")
    assert page.locator("text=Translate").first.is_disabled()
    assert page.inner_text(".target") != ""


def test_the_page_without_its_model_is_the_recorded_one(translator: Translator) -> None:
    page = live_page(translator, SENTENCE)
    assert 'src="ort.wasm.min.js"' in page and "c'è un gatto sul tappeto" in page


def test_a_missing_browser_is_a_skip_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROWSER_TESTS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        missing("no Chromium")
    monkeypatch.setenv("BROWSER_TESTS", "required")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        missing("no Chromium")
