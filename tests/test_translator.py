"""A translator takes sentences in any order and number, and says what is wrong with bad ones."""

import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from transformer.checks.fixtures import small_model
from transformer.data import train_tokenizer
from transformer.engines import (
    CTranslate2Engine,
    Hypothesis,
    OnnxEngine,
    PyTorchEngine,
    Search,
)
from transformer.model import save_model
from transformer.reader import clean_lines, refuse
from transformer.translator import Translator, groups_by_length, model_folder, round_up

TEXTS = ["the cat is on the mat", "il gatto è sul tappeto"] * 3


def make_translator() -> Translator:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, 40)
    model = small_model(vocab_size=tokenizer.get_vocab_size(), max_len=24)
    return Translator(model, tokenizer)


def save(translator: Translator, folder: Path) -> Path:
    save_model(translator.model, folder)
    (folder / "tokenizer.json").write_text(translator.tokenizer.to_str(), encoding="utf-8")
    return folder


@pytest.fixture
def translator() -> Translator:
    return make_translator()


@pytest.fixture
def saved(translator, tmp_path) -> Path:
    """Return the folder of a translator."""
    return save(translator, tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Return the folder of a translator that no test damages, so that it is exported once."""
    return save(make_translator(), tmp_path_factory.mktemp("kept"))


# --- translate ------------------------------------------------------------------------------------


def test_order_and_company_do_not_change_a_translation(translator) -> None:
    texts = ["the cat", "the cat is on the mat", "mat", "the mat is on"]
    alone = [translator.translate([text])[0] for text in texts]
    assert translator.translate(texts) == alone
    assert translator.translate(texts[::-1], max_tokens=30) == alone[::-1]
    assert translator.translate([]) == []


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("the cat", r"^translate takes a list of sentences, not one str$"),
        (["the cat", ""], "text 2 is empty"),
        (["猫"], "text 1 has no character that the vocabulary knows"),
        (["the cat " * 20], "text 1 has .* the model's max_len is 24: split it"),
    ],
)
def test_bad_text_is_refused_when_asked(translator, texts, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        translator.translate(texts, on_problem=refuse)


def test_what_is_not_text_is_named(kept) -> None:
    # In a process of its own, where no test checks the types of arguments.
    code = """
import sys
from transformer.translator import Translator
translator = Translator.load(sys.argv[1])
for texts in (None, b"the cat", ["the cat", None], [b"the cat"]):
    try:
        translator.translate(texts)
    except ValueError as error:
        print(error)
"""
    said = subprocess.check_output([sys.executable, "-c", code, str(kept)], text=True).splitlines()
    assert said == [
        "translate takes a list of sentences, not one NoneType",
        "translate takes a list of sentences, not one bytes",
        "text 2 is not a string but a NoneType",
        "text 1 is not a string but a bytes",
    ]


def test_a_text_with_a_problem_has_an_empty_translation_and_a_warning(translator) -> None:
    texts = ["the cat", "猫", "  ", "the cat " * 20, "the mat"]
    with pytest.warns(UserWarning) as warned:
        found = translator.translate(texts)
    assert found == [
        *translator.translate(texts[:1]),
        "",
        "",
        "",
        *translator.translate(["the mat"]),
    ]
    messages = [str(warning.message) for warning in warned]
    assert [message[:10] for message in messages] == ["text 2 has", "text 4 has"]


@pytest.mark.parametrize(
    "text",
    [
        "the cat\r\n",
        "\ufeffthe cat",
        "the\u00a0cat",
        " the  cat\t",
        "the\ncat",
        "the\0cat",
        "the\u2028cat",
    ],
)
def test_text_is_cleaned_before_it_is_read(translator, text: str) -> None:
    assert translator.translate([text]) == translator.translate(["the cat"])


def test_half_a_surrogate_pair_is_an_unknown_character(translator) -> None:
    assert translator.translate(["the cat \ud800"]) == translator.translate(["the cat \ufffd"])


def test_any_iterable_of_texts_will_do(translator) -> None:
    assert translator.translate(iter(["the cat"])) == translator.translate(["the cat"])


def test_a_huge_text_is_not_even_tokenized(translator) -> None:
    huge = "a" * 5_000_000
    assert clean_lines([huge, "the cat"], 1_000) == (["", "the cat"], [5_000_000, 7])
    with pytest.warns(UserWarning, match="text 1 has more than [0-9]+ characters"):
        assert translator.translate([huge, "the cat"])[0] == ""


def test_n_best_translations_come_with_their_scores(translator) -> None:
    ((first, second, third),) = translator.n_best(["the cat"], Search(n_best=3))
    assert first.score >= second.score >= third.score
    assert [first.text] == translator.translate(["the cat"])
    ((greedy,),) = translator.n_best(["the cat"], Search(1, scores=True))
    assert math.isfinite(greedy.score)
    assert [greedy.text] == translator.translate(["the cat"], beam_size=1)


def test_a_beam_without_hypotheses_is_refused(translator) -> None:
    with pytest.raises(ValueError, match="beam_size must be at least 1, not 0"):
        translator.translate(["the cat"], beam_size=0)


def test_a_text_as_long_as_max_len_is_translated(translator) -> None:
    limit = translator.model.config.max_len
    length = len(translator.tokenizer.encode("the").ids)
    words = (limit - 1) // length
    assert len(translator.translate([" ".join(["the"] * words)], beam_size=1)) == 1
    message = rf"^text 2 has \d+ tokens, the model's max_len is {limit}: split it$"
    with pytest.raises(ValueError, match=message):
        translator.translate(["the", " ".join(["the"] * (limit + 1))], on_problem=refuse)


def test_progress_is_shown_when_asked_for(translator, capsys) -> None:
    translator.translate(["the cat"])
    assert capsys.readouterr().err == ""
    translator.translate(["the cat"], progress=True)
    assert "translating" in capsys.readouterr().err


def test_the_bar_counts_the_groups(translator, capsys) -> None:
    translator.translate(["the cat", "the mat"], max_tokens=5, progress=True)
    shown = capsys.readouterr().err
    assert "\rtranslating: 100%" in shown
    assert "2/2" in shown


def test_translate_hands_its_options_to_the_search(translator, monkeypatch) -> None:
    seen = []

    def search(model, src, beam_size, length_penalty, max_len, make):
        seen.append((tuple(src.shape), beam_size, length_penalty, max_len))
        return [[(0.0, 0.0, row)] for row in src]

    monkeypatch.setattr("transformer.engines.pytorch.beam_hypotheses", search)
    translator.translate(["the cat", "the cat"], beam_size=3, length_penalty=0.6)
    translator.translate(["the cat", "the cat"], max_tokens=10, beam_size=2)
    width = seen[0][0][1]
    assert seen[0] == ((2, width), 3, 0.6, 32)
    assert seen[1:] == [((1, width), 2, 1.0, 32)] * 2


# --- groups ---------------------------------------------------------------------------------------


def test_texts_are_grouped_by_length_within_one_limit() -> None:
    rows = [[0] * length for length in (3, 20, 5, 16, 17, 4)]
    assert groups_by_length(rows, 40) == [[1, 4], [3, 2], [5, 0]]
    assert groups_by_length(rows, 32) == [[1], [4], [3, 2], [5, 0]]
    assert groups_by_length(rows, 0) == [[1], [4], [3], [2], [5], [0]]
    assert groups_by_length([], 40) == []


def test_lengths_are_rounded_up_to_a_multiple() -> None:
    lengths = (1, 15, 16, 17, 32, 33)
    assert [round_up(length, 16) for length in lengths] == [16, 16, 16, 32, 32, 48]
    assert round_up(7, 5) == 10


# --- engines --------------------------------------------------------------------------------------


class Echo:
    """An engine that answers with its sources, except some that it loses."""

    def __init__(self, groups_lost: int = 0, rows_lost: int = 0):
        self.groups_lost = groups_lost
        self.rows_lost = rows_lost
        self.asked: list[tuple] = []

    def search_all(self, groups, search: Search):
        limits = [max_len for _, max_len in groups]
        self.asked.append((limits, search.beam_size, search.length_penalty))
        for rows, _ in groups[self.groups_lost :]:
            yield [[Hypothesis(row, 0.0)] for row in rows[self.rows_lost :]]


def test_a_translator_uses_the_engine_that_it_is_given(translator) -> None:
    echo = Echo()
    texts = ["the cat", " ".join(["the cat"] * 9), "mat"]
    echoing = Translator(translator.model, translator.tokenizer, echo)
    assert echoing.translate(texts) == texts
    assert echoing.translate(texts, beam_size=2, length_penalty=0.6) == texts
    assert echo.asked == [([64, 32], 5, 1.0), ([64, 32], 2, 0.6)]


@pytest.mark.parametrize("lost", [{"groups_lost": 1}, {"rows_lost": 1}], ids=str)
def test_an_engine_that_loses_a_sentence_is_noticed(translator, lost: dict) -> None:
    lossy = Translator(translator.model, translator.tokenizer, Echo(**lost))
    with pytest.raises(ValueError, match="shorter"):
        lossy.translate(["the cat", "the mat"])


def test_pytorch_is_the_default_engine(translator) -> None:
    assert isinstance(translator.engine, PyTorchEngine)
    assert translator.engine.model is translator.model


# --- copies and pickles ---------------------------------------------------------------------------


def pickled(thing: object) -> object:
    return pickle.loads(pickle.dumps(thing))


each_copy = pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])


@each_copy
def test_a_copy_translates_the_same_on_a_model_of_its_own(translator, duplicate: Callable) -> None:
    want = translator.translate(TEXTS)
    twin = duplicate(translator)
    assert twin.translate(TEXTS) == want
    assert twin.engine.model is twin.model is not translator.model
    with torch.no_grad():
        for parameter in translator.model.parameters():
            parameter.zero_()
    assert twin.translate(TEXTS) == want
    assert duplicate(twin).translate(TEXTS) == want


@each_copy
@pytest.mark.parametrize("setting", [True, False])
def test_a_copy_reads_a_typed_end_as_the_original_does(
    translator, duplicate: Callable, setting: bool
) -> None:
    translator.tokenizer.encode_special_tokens = setting
    twin = duplicate(translator)
    assert twin.tokenizer.encode_special_tokens == setting
    assert translator.tokenizer.encode_special_tokens == setting
    assert vars(twin).keys() == vars(translator).keys()


@each_copy
@pytest.mark.parametrize(
    ("engine", "packages"),
    [
        ("ctranslate2", ["ctranslate2"]),
        pytest.param("onnx", ["onnx", "onnxscript", "onnxruntime"], marks=pytest.mark.slow),
    ],
)
def test_a_copy_has_an_engine_of_the_same_kind(
    kept, duplicate: Callable, engine: str, packages: list[str]
) -> None:
    for package in packages:
        pytest.importorskip(package)
    translator = Translator.load(kept, engine=engine)
    twin = duplicate(translator)
    assert type(twin.engine) is type(translator.engine)
    assert twin.translate(TEXTS) == translator.translate(TEXTS)


# --- files ----------------------------------------------------------------------------------------


def test_a_translator_comes_back_from_its_folder(translator, saved) -> None:
    assert Translator.load(saved).translate(["the cat"]) == translator.translate(["the cat"])


def test_a_translator_is_found_by_its_name_in_the_cache(saved, monkeypatch) -> None:
    monkeypatch.setenv("TRANSFORMER_CACHE", str(saved.parent))
    assert model_folder(saved.name) == saved
    assert model_folder(saved) == saved
    assert isinstance(Translator.load(saved.name), Translator)


def test_a_translator_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="there is no model 'no-such-model'"):
        Translator.load("no-such-model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_of_a_translator_that_was_cut_off_is_named(saved, name: str) -> None:
    path = saved / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=name):
        Translator.load(saved)


def test_a_tokenizer_of_another_model_is_named_with_both_sizes(translator, saved) -> None:
    other = train_tokenizer(TEXTS, 30)
    (saved / "tokenizer.json").write_text(other.to_str(), encoding="utf-8")
    size = translator.model.config.vocab_size
    sizes = (
        f"has {other.get_vocab_size()} entries and the model {size}: they do not belong together"
    )
    with pytest.raises(ValueError, match=sizes):
        Translator.load(saved)


def test_a_typed_end_is_text(saved) -> None:
    tokenizer = Translator.load(saved).tokenizer
    assert tokenizer.token_to_id("</s>") not in tokenizer.encode("the </s> cat").ids


@pytest.mark.parametrize(
    ("options", "dtype"), [({}, torch.float32), ({"precision": "bf16"}, torch.bfloat16)], ids=str
)
def test_a_translator_is_as_precise_as_asked(saved, options: dict, dtype: torch.dtype) -> None:
    loaded = Translator.load(saved, **options)
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    assert isinstance(loaded.translate(["the cat"])[0], str)


@pytest.mark.parametrize(("precision", "kind"), [("fp32", "float32"), ("int8", "int8")])
def test_ctranslate2_says_the_same_as_precisely_as_asked(saved, precision: str, kind: str) -> None:
    pytest.importorskip("ctranslate2")
    texts = ["the cat", "il gatto è sul tappeto"]
    loaded = Translator.load(saved, engine="ctranslate2", precision=precision)
    assert isinstance(loaded.engine, CTranslate2Engine)
    assert loaded.engine.translator.compute_type.startswith(kind)
    assert (saved / "ctranslate2").is_dir()
    if precision == "fp32":
        assert loaded.translate(texts) == Translator.load(saved).translate(texts)


def test_onnx_says_the_same_and_is_exported_once(kept) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    texts = ["the cat", "il gatto è sul tappeto"]
    loaded = Translator.load(kept, engine="onnx")
    assert isinstance(loaded.engine, OnnxEngine)
    for beam_size in (1, 5):
        want = Translator.load(kept).translate(texts, beam_size)
        assert loaded.translate(texts, beam_size) == want
    written = (kept / "onnx" / "decoder.onnx").stat().st_mtime_ns
    Translator.load(kept, engine="onnx")
    assert (kept / "onnx" / "decoder.onnx").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("pytorch", "int8"), ("onnx", "bf16"), ("ctranslate2", "fp8"), ("tensorflow", "fp32")],
)
def test_an_engine_or_a_precision_that_does_not_exist_is_named(
    saved, engine: str, precision: str
) -> None:
    words = f"^there is no engine {engine} with precision {precision}: pytorch has fp32, bf16; "
    with pytest.raises(ValueError, match=words):
        Translator.load(saved, engine=engine, precision=precision)


def test_onnx_runs_on_a_cpu_only(saved) -> None:
    with pytest.raises(ValueError, match="engine onnx runs on cpu only, not on cuda"):
        Translator.load(saved, "cuda", engine="onnx")
