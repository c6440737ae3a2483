"""Exported models find what ours find, and an export that fails leaves nothing half-written."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from transformer.attention import attention
from transformer.checks import small_model
from transformer.data import BOS, EOS, PAD, encode, pad, train_tokenizer
from transformer.export import (
    CTRANSLATE2_FILES,
    HYPOTHESES,
    CTranslate2Engine,
    current_ctranslate2,
    export,
    export_ctranslate2,
    export_onnx,
    plain,
    put_in_place,
    whole_folder,
)
from transformer.fast import speed_up
from transformer.inference import beam_search, greedy_search
from transformer.model import Transformer, save_model

TEXTS = ["the cat is on the mat", "il gatto è sul tappeto", "a dog", "the mat", "cat", "a gatto on il tappeto is on it"]
TOKENIZER = train_tokenizer(TEXTS * 3, 50)
SIZE = TOKENIZER.get_vocab_size()
DICE = torch.Generator().manual_seed(0)
ROWS = encode(TOKENIZER, TEXTS) + [[*torch.randint(3, SIZE, (n,), generator=DICE).tolist(), EOS] for n in range(1, 20)]
both_norms = pytest.mark.parametrize("norm", ["post", "pre"])


def lively(norm: str = "post", seed: int = 0, end: float = 2.0, **changes) -> Transformer:
    """Return a model that says various things of various lengths, and neither padding nor <s>."""
    torch.manual_seed(seed)
    model = small_model(vocab_size=SIZE, max_len=24, norm=norm, dropout=0.5, **changes).requires_grad_(False).eval()
    last = model.decoder.layers[-1].residuals[-1].norm if norm == "post" else model.decoder.norm
    model.positions.table.mul_(2)
    last.gain.normal_(std=3)
    model.bias.sub_(model(*torch.randint(3, SIZE, (2, 50, 6))).mean((0, 1)))
    model.bias[EOS] += end
    model.bias[[PAD, BOS]] = -30
    return model


def found(model: Transformer, rows: list[list[int]], beam_size: int, penalty: float, max_len: int) -> list[list[int]]:
    """Return what `beam_search` finds, without padding."""
    ids, _ = beam_search(model, pad(rows), beam_size, penalty, max_len)
    return [[i for i in row if i != PAD] for row in ids.tolist()]


def engine(model: Transformer, folder: Path, **options) -> CTranslate2Engine:
    pytest.importorskip("ctranslate2")
    return CTranslate2Engine(export_ctranslate2(model, TOKENIZER, folder), model.config, **options)


# --- CTranslate2 -----------------------------------------------------------------------------------------------------


@both_norms
@pytest.mark.parametrize("seed", range(3))
def test_ctranslate2_finds_the_same_tokens(norm: str, seed: int, tmp_path) -> None:
    model = lively(norm, seed)
    searcher = engine(model, tmp_path / "out")
    settings, seen = [(1, 1.0, 20), (2, 0.0, 20), (5, 1.0, 20), (5, 0.6, 9), (3, 2.0, 1), (8, 0.0, 40)], set()
    for beam_size, penalty, max_len in settings:
        want = found(model, ROWS, beam_size, penalty, max_len)
        assert searcher.search(ROWS, beam_size, penalty, max_len) == want, (beam_size, penalty, max_len)
        seen |= set(map(tuple, want))
    assert len({len(row) for row in seen}) > 3 and {row[-1] == EOS for row in seen} == {True, False}


def test_without_a_length_penalty_it_ends_by_the_same_rule(tmp_path) -> None:
    """Two hypotheses end, neither as the likeliest of its step: by the engine's own rule for 0 it would go on."""
    model = lively("pre", 1, end=3.0)
    assert engine(model, tmp_path / "out").search([[25, 28, EOS]], 2, 0.0, 20) == found(
        model, [[25, 28, EOS]], 2, 0.0, 20
    )


def test_groups_keep_their_limits_and_their_order(tmp_path) -> None:
    model = lively()
    searcher = engine(model, tmp_path / "out", threads=3)
    groups = [(ROWS, 5), ([], 9), (ROWS[::-1] * (HYPOTHESES // 2), 2), (ROWS[:1], 20)]
    for beam_size in (1, 4):
        results = list(searcher.search_all(groups, beam_size, 1.0))
        assert results == [found(model, rows, beam_size, 1.0, n) if rows else [] for rows, n in groups]
    assert list(searcher.search_all([])) == []


def test_the_engine_writes_neither_padding_nor_the_start(tmp_path) -> None:
    model = lively()
    model.bias[[PAD, BOS]] += 60
    searcher = engine(model, tmp_path / "out")
    greedy = greedy_search(model, pad(ROWS), 20).tolist()
    assert searcher.search(ROWS, 1, 1.0, 20) == [[i for i in row if i != PAD] for row in greedy]
    assert not {PAD, BOS} & {i for row in searcher.search(ROWS, 5, 1.0, 20) for i in row}


def test_int8_finds_nearly_the_same(tmp_path) -> None:
    model = lively(d_model=48, d_ff=96)
    searcher = engine(model, tmp_path / "out", precision="int8")
    want, got = found(model, ROWS, 1, 1.0, 20), searcher.search(ROWS, 1, 1.0, 20)
    assert sum(map(list.__eq__, want, got)) >= len(ROWS) / 2


def test_the_engine_leaves_pytorchs_threads_as_they_were(tmp_path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        searcher = engine(lively(), tmp_path / "out")
        searcher.search(ROWS)
        assert searcher.threads == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_model_in_training_in_half_and_with_fast_kernels_is_exported_and_left_as_it_is(tmp_path) -> None:
    model = speed_up(lively()).bfloat16().train()
    searcher = engine(model, tmp_path / "out")
    assert model.training and model.bias.dtype == torch.bfloat16
    model = model.float().eval()
    assert searcher.search(ROWS, 5, 1.0, 20) == found(model, ROWS, 5, 1.0, 20)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(precision="fp16"), "no precision 'fp16' on cpu, only on cpu fp32, int8; on cuda fp32, int8, fp16, bf16"),
        (dict(device="meta"), "no precision 'fp32' on meta"),
        (dict(threads=0), "threads must be at least 1, not 0"),
    ],
)
def test_what_the_engine_can_not_be_is_refused(options: dict, words: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=words):
        engine(lively(), tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("rows", "beam_size", "words"),
    [
        ([[5, 2]], 0, "beam_size must be at least 1, not 0"),
        ([[5, 2]], SIZE // 2, f"beam_size {SIZE // 2} is too wide for a vocabulary of {SIZE} tokens"),
        ([[5] * 24 + [2]], 1, "row 1 has 25 tokens, the model's max_len is 24: split it"),
        ([[5, 2], [SIZE, 2]], 1, f"rows has ids from 2 to {SIZE}, but the vocabulary ends at {SIZE - 1}"),
        ([[-1, 2]], 1, "rows has ids from -1"),
        *(([[5, 2], row], 1, "row 2 is not a sentence") for row in ([], [5], [2], [1, 5, 2], [5, 0, 2], [5, 2, 2])),
    ],
)
def test_what_the_engine_can_not_search_is_refused(rows: list, beam_size: int, words: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=words):
        engine(lively(), tmp_path / "out").search(rows, beam_size)


def test_a_sentence_as_long_as_max_len_is_searched_to_max_len(tmp_path) -> None:
    model, rows = lively(), [[*[5, 6, 7] * 7, 5, 6, EOS]]
    model.bias[EOS] = -30
    got = engine(model, tmp_path / "out").search(rows, 2, 1.0, 100)
    assert len(rows[0]) == len(got[0]) == 24 and got == found(model, rows, 2, 1.0, 100)


def test_an_engine_without_its_folder_or_with_another_models_is_refused(tmp_path) -> None:
    pytest.importorskip("ctranslate2")
    model, folder = lively(), tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="there is no CTranslate2 model in"):
        CTranslate2Engine(folder, model.config)
    export_ctranslate2(model, TOKENIZER, folder)
    with pytest.raises(ValueError, match="not a vocabulary of 11 tokens: it belongs to another model"):
        CTranslate2Engine(folder, small_model().config)
    weights = folder / "model.bin"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ValueError, match="CTranslate2 can not load"):
        CTranslate2Engine(folder, model.config)
    (folder / "shared_vocabulary.json").write_text("[")
    with pytest.raises(ValueError, match=r"shared_vocabulary\.json is damaged"):
        CTranslate2Engine(folder, model.config)


def test_a_tokenizer_of_another_model_is_refused(tmp_path) -> None:
    pytest.importorskip("ctranslate2")
    with pytest.raises(ValueError, match="they do not belong together"):
        export_ctranslate2(small_model(), TOKENIZER, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_it_is_exported_again_when_the_weights_have_changed_or_a_file_is_missing(tmp_path) -> None:
    pytest.importorskip("ctranslate2")
    model, out = lively(), tmp_path / "out"

    def is_written_again() -> bool:
        before = (out / "model.bin").stat().st_ino if (out / "model.bin").exists() else None
        return current_ctranslate2(model, TOKENIZER, out).joinpath("model.bin").stat().st_ino != before

    assert [is_written_again() for _ in range(2)] == [True, False]
    model.decoder.layers[0].residuals[0].norm.gain[0] += 1e-3
    assert [is_written_again() for _ in range(2)] == [True, False]
    (out / "shared_vocabulary.json").unlink()
    assert [is_written_again() for _ in range(2)] == [True, False]
    for damaged in ("{", "[]", "{}"):
        (out / "config.json").write_text(damaged)
        assert is_written_again()


# --- ONNX ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["post", "pre"])
def onnx(request, tmp_path_factory):
    """Return a model and its two graphs as functions of arrays."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    model = speed_up(lively(request.param, end=3.0, n_layers=1).train())
    folder = export_onnx(model, tmp_path_factory.mktemp("onnx") / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["decoder.onnx", "encoder.onnx"]
    encoder, decoder = (runtime.InferenceSession(folder / f"{name}.onnx") for name in ("encoder", "decoder"))
    return (
        model.eval(),
        lambda src: encoder.run(None, {"src": src})[0],
        lambda tgt, memory, src: decoder.run(None, {"tgt": tgt, "memory": memory, "src": src})[0],
    )


@pytest.mark.parametrize(("b", "k", "t"), [(1, 1, 1), (1, 5, 1), (3, 1, 9), (4, 24, 2), (2, 3, 24)])
def test_onnx_computes_the_same_logits_at_every_size(onnx, b: int, k: int, t: int) -> None:
    model, encoder, decoder = onnx
    src, tgt = torch.randint(3, SIZE, (b, k)), torch.randint(3, SIZE, (b, t))
    src[0, 2:], tgt[0, 3:] = PAD, PAD
    memory = encoder(src.numpy())
    np.testing.assert_allclose(memory, model.encode(src), atol=1e-4)
    np.testing.assert_allclose(decoder(tgt.numpy(), memory, src.numpy()), model(src, tgt), atol=1e-4)


def test_a_greedy_loop_over_onnx_finds_the_same_tokens(onnx) -> None:
    model, encoder, decoder = onnx
    src = pad(ROWS)
    want = greedy_search(model, src, 20)
    src, tgt = src.numpy(), np.full((len(src), 1), BOS)
    memory, done = encoder(src), np.zeros(len(src), bool)
    for _ in range(20):
        logits = decoder(tgt, memory, src)[:, -1]
        logits[:, [PAD, BOS]] = -np.inf
        ids = np.where(done, PAD, logits.argmax(-1))
        tgt, done = np.concatenate([tgt, ids[:, None]], axis=1), done | (ids == EOS)
        if done.all():
            break
    assert tgt[:, 1:].tolist() == want.tolist() and len(set((want != PAD).sum(1).tolist())) > 2


def test_the_model_that_is_traced_is_a_copy() -> None:
    model = speed_up(lively()).bfloat16().train()

    def kinds(model: Transformer) -> list[tuple]:
        return [(module.training, getattr(module, "kernel", None)) for module in model.modules()]

    before, copy = kinds(model), plain(model)
    assert set(kinds(copy)) == {(False, None), (False, attention)} and copy.bias.dtype == torch.float32
    assert kinds(model) == before and model.bias.dtype == torch.bfloat16


def test_onnx_refuses_more_tokens_than_max_len(onnx) -> None:
    with pytest.raises(Exception, match="Add"):
        onnx[1](np.full((1, 25), 5))


# --- from folder to folder -------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    save_model(lively(), tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text(TOKENIZER.to_str(), encoding="utf-8")
    return tmp_path / "model"


def test_a_translator_is_exported_beside_its_model_or_elsewhere(saved, tmp_path, monkeypatch) -> None:
    pytest.importorskip("ctranslate2")
    assert export(saved, "ctranslate2") == saved / "ctranslate2"
    assert sorted(path.name for path in (saved / "ctranslate2").iterdir()) == sorted(CTRANSLATE2_FILES)
    monkeypatch.setenv("TRANSFORMER_CACHE", str(tmp_path))
    other = export("model", "ctranslate2", tmp_path / "new" / "other")
    assert [(other / name).read_bytes() for name in CTRANSLATE2_FILES] == [
        (saved / "ctranslate2" / name).read_bytes() for name in CTRANSLATE2_FILES
    ]


def test_a_translator_is_exported_to_onnx(saved, monkeypatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("transformer.export.write_graph", lambda graph, inputs, output, path: path.write_text(output))
    folder = export(saved, "onnx")
    assert [(folder / f"{name}.onnx").read_text() for name in ("encoder", "decoder")] == ["memory", "logits"]


def test_another_engine_no_model_and_no_tokenizer_are_named(saved) -> None:
    pytest.importorskip("ctranslate2")
    with pytest.raises(ValueError, match="to ctranslate2 or onnx, not to 'tflite'"):
        export(saved, "tflite")
    with pytest.raises(FileNotFoundError, match="there is no model 'no-such-model'"):
        export("no-such-model", "ctranslate2")
    (saved / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        export(saved, "ctranslate2")
    (saved / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*tokenizer\.json"):
        export(saved, "ctranslate2")


@pytest.mark.parametrize(
    ("to", "package", "words"),
    [("ctranslate2", "ctranslate2", "pip install ctranslate2"), ("onnx", "onnxscript", "pip install onnx onnxscript")],
)
def test_a_missing_package_is_named(saved, monkeypatch, to: str, package: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"^{package} can not be imported .*: {words}$"):
        export(saved, to)
    assert not (saved / to).exists()


# --- a folder is written whole or not at all -------------------------------------------------------------------------


@pytest.fixture
def out(tmp_path) -> Path:
    """Return a folder that was exported once."""
    with whole_folder(tmp_path / "out", ["a", "b"]) as draft:
        (draft / "a").write_text("old")
    return tmp_path / "out"


def state(out: Path) -> dict[str, list[tuple[str, str]]]:
    return {p.name: [(q.name, q.read_text()) for q in p.iterdir()] for p in out.parent.iterdir()}


def test_a_new_export_takes_the_place_of_the_old_one(out) -> None:
    with whole_folder(out, ["a", "b"]) as draft:
        (draft / "b").write_text("new")
        assert (out / "a").read_text() == "old"
    assert state(out) == {"out": [("b", "new")]}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("?"), KeyboardInterrupt()])
def test_an_export_that_fails_leaves_the_old_one(out, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, whole_folder(out, ["a", "b"]) as draft:
        (draft / "b").write_text("new")
        raise error
    assert state(out) == {"out": [("a", "old")]}
    if isinstance(error, OSError):
        assert str(caught.value).endswith("(No space left on device); what was there before is untouched")


def test_a_rename_that_fails_puts_the_old_one_back(out) -> None:
    with pytest.raises(FileNotFoundError):
        put_in_place(out.with_name("no-such-draft"), out, out.with_name(".out.old"))
    assert state(out) == {"out": [("a", "old")]}


def test_after_a_crash_between_the_renames_the_old_one_is_found_again(out) -> None:
    out.rename(out.with_name(".out.old"))
    out.with_name(".out.draft").mkdir()
    with pytest.raises(RuntimeError), whole_folder(out, ["a", "b"]):
        raise RuntimeError
    assert state(out) == {"out": [("a", "old")]}


def test_what_an_export_did_not_write_is_never_removed(out) -> None:
    (out / "diary").write_text("mine")
    for path in (out, out / "diary"):
        with pytest.raises(ValueError, match="holds something that is not an export"), whole_folder(path, ["a", "b"]):
            pass
    assert sorted(state(out)["out"]) == [("a", "old"), ("diary", "mine")]


def test_a_translators_own_folder_is_not_written_over(saved) -> None:
    pytest.importorskip("ctranslate2")
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(ValueError, match="holds something that is not an export"):
        export(saved, "ctranslate2", saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert json.loads(before["config.json"])["vocab_size"] == SIZE
