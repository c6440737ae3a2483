"""All engines keep to one protocol and find the same tokens; exports are written beside a model."""

import copy
import json
import math
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lively_models import (
    ROWS,
    SIZE,
    TOKENIZER,
    found,
    lively,
    search,
    search_groups,
    without_padding,
)
from torch import Tensor

from transformer.checks.fixtures import LIVELY, decoding_model, small_model, sources
from transformer.cpu.workers import parallel_map
from transformer.data import BOS, EOS, PAD, pad
from transformer.engines import (
    CTranslate2Engine,
    Engine,
    Hypothesis,
    OnnxEngine,
    PyTorchEngine,
    Search,
    export,
    export_ctranslate2,
    export_onnx,
)
from transformer.engines.ctranslate2 import CTRANSLATE2_FILES
from transformer.engines.pytorch import split_groups
from transformer.engines.weights import weights_hash
from transformer.inference import IncrementalDecoder, beam_search, greedy_search
from transformer.model import Transformer, save_model

# --- what all engines have in common --------------------------------------------------------------

PACKAGES = {
    "pytorch": (),
    "ctranslate2": ("ctranslate2",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
}


@pytest.fixture(scope="module")
def made() -> dict[str, Engine]:
    """The engines so far: pytest makes a fixture with parameters anew when it comes back to one."""
    return {}


@pytest.fixture(params=PACKAGES)
def engine(request, made: dict[str, Engine], tmp_path_factory) -> Engine:
    for package in PACKAGES[request.param]:
        pytest.importorskip(package)
    if request.param not in made:
        made[request.param] = make_engine(request.param, tmp_path_factory.mktemp("engine") / "out")
    return made[request.param]


def make_engine(name: str, folder: Path) -> Engine:
    model = lively()
    if name == "ctranslate2":
        return CTranslate2Engine(export_ctranslate2(model, TOKENIZER, folder), model.config)
    if name == "onnx":
        return OnnxEngine(export_onnx(model, folder), model.config)
    return PyTorchEngine(model)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_every_engine_finds_the_tokens_of_the_search_group_by_group(engine, beam_size) -> None:
    assert isinstance(engine, Engine)
    groups = [(ROWS, 12), ([], 9), (ROWS[:3], 20), (ROWS[:1], 1)]
    want = [found(lively(), rows, beam_size, 0.6, n) if rows else [] for rows, n in groups]
    assert search_groups(engine, groups, beam_size, 0.6) == want
    assert list(engine.search_all([])) == []
    assert not {PAD, BOS} & {i for rows in want for row in rows for i in row}


def test_a_beam_of_five_ranked_by_the_mean_is_every_engines_default(engine) -> None:
    assert search_groups(engine, [(ROWS, 20)]) == [found(lively(), ROWS, 5, 1.0, 20)]


@pytest.mark.parametrize(
    "wanted",
    [
        Search(4, 1.0, n_best=4),
        Search(3, 0.0, n_best=2),
        Search(1, scores=True),
        Search(3, 0.6, min_len=9),
        Search(1, min_len=4),
    ],
    ids=str,
)
def test_every_engine_has_the_n_best_with_scores_and_a_least_length(engine, wanted) -> None:
    reference = PyTorchEngine(lively())
    (found_here,) = engine.search_all([(ROWS, 12)], wanted)
    (want,) = reference.search_all([(ROWS, 12)], wanted)
    for hypotheses, expected in zip(found_here, want, strict=True):
        assert [ids for ids, _ in hypotheses] == [ids for ids, _ in expected]
        assert len({tuple(ids) for ids, _ in hypotheses}) == wanted.n_best
        assert all(len(ids) > wanted.min_len for ids, _ in hypotheses)
        if wanted.scores or wanted.beam_size > 1:
            scores = torch.tensor([score for _, score in hypotheses])
            torch.testing.assert_close(
                scores, torch.tensor([score for _, score in expected]), atol=1e-4, rtol=1e-4
            )
            assert scores.tolist() == sorted(scores.tolist(), reverse=True)


def test_the_score_is_the_log_probability_by_length() -> None:
    model = lively()
    (((best,),),) = PyTorchEngine(model).search_all([(ROWS[:1], 12)], Search(3, 0.6))
    _, log_probs = beam_search(model, pad(ROWS[:1]), 3, 0.6, 12)
    assert best.score == pytest.approx(log_probs.item() / len(best.ids) ** 0.6, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(beam_size=0), "beam_size must be at least 1, not 0"),
        (dict(beam_size=2, n_best=3), "n_best must be from 1 to beam_size=2, not 3"),
        (dict(n_best=0), "n_best must be from 1"),
        (dict(length_penalty=math.nan), "length_penalty must be a number, not nan"),
        (dict(min_len=-1), "min_len must be at least 0, not -1"),
    ],
)
def test_an_impossible_search_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Search(**settings)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_after_a_fork_an_engine_works_or_says_that_it_cannot(engine) -> None:
    want = search(engine, ROWS[:3])
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = repr(search(engine, ROWS[:3]))
        except BaseException as error:  # what left this block would run the other tests twice
            answer = str(error)
        os.write(write, answer.encode())
        os._exit(0)
    ready, _, _ = select.select([read], [], [], 60)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert ready, "it hangs"
    answer = os.read(read, 10_000).decode()
    assert answer == repr(want) or "was loaded before a fork" in answer


def test_tuples_are_rows_too(engine) -> None:
    rows = tuple(map(tuple, ROWS))
    assert search(engine, rows, 2) == search(engine, ROWS, 2)


def pickled(thing: object) -> object:
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_a_copy_of_an_engine_finds_the_same(engine, duplicate: Callable) -> None:
    search(engine, ROWS[:2])
    twin = duplicate(engine)
    assert type(twin) is type(engine)
    assert search(twin, ROWS) == search(engine, ROWS)


@pytest.mark.parametrize(
    ("rows", "beam_size", "words"),
    [
        ([[5, 2]], 0, "beam_size must be at least 1, not 0"),
        ([[5] * 24 + [2]], 1, "row 1 has 25 tokens, the model's max_len is 24: split it"),
        ([[5, 2], [SIZE, 2]], 1, f"ids from 2 to {SIZE}, but the vocabulary ends at {SIZE - 1}"),
        ([[-1, 2]], 1, "rows has ids from -1"),
    ],
)
def test_what_no_model_can_read_is_refused(engine, rows: list, beam_size: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        search(engine, rows, beam_size)


class Echo:
    """An engine that answers with its sources."""

    def search_all(self, groups, search: Search):
        yield from ([[Hypothesis(row, 0.0)] for row in rows] for rows, _ in groups)


def test_whatever_has_the_method_is_an_engine() -> None:
    assert isinstance(Echo(), Engine)
    assert not isinstance(lively(), Engine)


def test_optional_packages_are_not_imported_before_they_are_needed() -> None:
    code = (
        "import sys, transformer.engines, transformer.translator\n"
        "print([name for name in ('ctranslate2', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_hash_of_the_weights_is_of_all_of_them_and_of_the_config() -> None:
    models = [lively() for _ in range(4)]
    models[1].encoder.layers[0].self_attention.w_q.weight[0, 0] += 1e-3
    models[2].bias[5] += 1e-3
    models.append(lively(eos_id=3, bos_id=2, pad_id=1))
    hashes = [weights_hash(model) for model in models]
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 4


@pytest.mark.parametrize("max_len", [21, 24])
def test_a_sentence_as_long_as_max_len_is_searched_to_max_len(max_len: int) -> None:
    model = lively(max_len=max_len)
    model.bias[EOS] = -30
    rows = [[5, *([6, 7, 8] * 9)[: max_len - 2], EOS]]
    (ids,) = search(PyTorchEngine(model), rows, 2, max_len=100)
    assert len(rows[0]) == len(ids) == max_len
    assert [ids] == found(model, rows, 2, 1.0, 100)


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.fixture(params=LIVELY, ids=lambda seed: f"model {seed}")
def model(request) -> Transformer:
    return decoding_model("cpu", seed=request.param).eval()


@pytest.fixture
def many() -> Tensor:
    """Return twenty sources of different lengths, whose translations end at different times."""
    lengths = torch.randint(6, (20, 1))
    return torch.randint(3, 9, (20, 6)).masked_fill(torch.arange(6) > lengths, 0)


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_on_a_cpu_groups_are_searched_at_the_same_time(two_threads) -> None:
    both = threading.Barrier(2)
    engine = PyTorchEngine(small_model())

    def decoder(model: Transformer, src: Tensor) -> IncrementalDecoder:
        both.wait(timeout=9)
        return IncrementalDecoder(model, src)

    engine.decoder = decoder
    for width in (1, 2):
        assert len(search_groups(engine, [([[4, 2]], 9), ([[5, 2]], 9)], width)) == 2


def test_a_single_group_is_shared_by_the_workers(two_threads) -> None:
    both = threading.Barrier(2)
    engine = PyTorchEngine(small_model())
    sizes = []

    def decoder(model: Transformer, src: Tensor) -> IncrementalDecoder:
        both.wait(timeout=9)
        sizes.append(len(src))
        return IncrementalDecoder(model, src)

    engine.decoder = decoder
    assert len(search(engine, [[4, 2]] * 30, 1)) == 30
    assert sizes == [15, 15]


@pytest.mark.parametrize("width", [1, 3])
def test_rows_are_padded_with_the_models_own_padding(width: int) -> None:
    engine = PyTorchEngine(small_model(pad_id=3))
    seen = []

    def decoder(model: Transformer, src: Tensor) -> IncrementalDecoder:
        seen.append(src.tolist())
        return IncrementalDecoder(model, src)

    engine.decoder = decoder
    (ids,) = search_groups(engine, [([[4, 5, 6, 2], [7, 2]], 9)], width)
    assert seen == [[[4, 5, 6, 2], [7, 2, 3, 3]]]
    assert not any(3 in row for row in ids)


@pytest.mark.parametrize(("width", "penalty", "max_len"), [(1, 1.0, 6), (2, 0.0, 12), (5, 1.0, 12)])
def test_the_search_is_told_all_that_the_engine_is(model, many, width, penalty, max_len) -> None:
    rows = [row[row != 0].tolist() for row in many]
    ids = search(PyTorchEngine(model), rows, width, penalty, max_len)
    want, _ = beam_search(model, many, width, penalty, max_len)
    assert ids == without_padding(want)


def test_a_beam_of_one_is_greedy_search(model, many) -> None:
    rows = [row[row != 0].tolist() for row in many]
    want = greedy_search(model, many, 12)
    assert search(PyTorchEngine(model), rows, 1, max_len=12) == without_padding(want)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_any_number_of_workers_finds_the_same(beam_size: int) -> None:
    engine = PyTorchEngine(decoding_model("cpu"))
    rows = [[i for i in row if i != PAD] for row in sources(9, "cpu").tolist()] * 12
    groups = [(rows, 9), (rows[:20], 5), (rows[:3], 7)]
    threads = torch.get_num_threads()
    results = []
    try:
        for workers in (1, 2, 3):
            torch.set_num_threads(workers)
            results.append(search_groups(engine, groups, beam_size))
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1] == results[2]
    assert [len(group) for group in results[0]] == [len(rows), 20, 3]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("width", [1, 2])
def test_a_search_leaves_model_and_pytorch_as_they_were(width: int, training: bool) -> None:
    model = decoding_model("cpu").train(training)
    engine = PyTorchEngine(model)
    before = (torch.get_rng_state(), torch.get_num_threads())
    search(engine, [[4, 5, 2]] * 20, width)
    assert {module.training for module in model.modules()} == {training}
    assert torch.get_rng_state().equal(before[0])
    assert torch.get_num_threads() == before[1]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_between_two_groups_the_caller_is_not_in_inference_mode(two_threads) -> None:
    results = PyTorchEngine(decoding_model("cpu")).search_all([([[4, 2]], 3), ([[5, 2]], 3)])
    next(results)
    assert not torch.is_inference_mode_enabled()
    results.close()


def test_an_engine_keeps_the_weights_it_was_made_with() -> None:
    model = lively()
    engine = PyTorchEngine(model)
    before = search(engine, ROWS, max_len=9)
    for parameter in model.decoder.parameters():
        parameter.mul_(-1)
    assert search(engine, ROWS, max_len=9) == before
    assert search(PyTorchEngine(model), ROWS, max_len=9) != before


@pytest.mark.parametrize(
    ("sizes", "workers", "parts"),
    [
        ([64], 2, [[32, 32]]),
        ([65], 2, [[33, 32]]),
        ([64, 36], 2, [[32, 32], [36]]),
        ([62, 38], 2, [[62], [38]]),
        ([32, 32, 32, 32], 2, [[32], [32], [32], [32]]),
        ([100, 20], 4, [[25, 25, 25, 25], [20]]),
        ([9], 4, [[9]]),
        ([12], 4, [[6, 6]]),
        ([5, 20], 1, [[5], [20]]),
        ([5, 0], 2, [[5], []]),
        ([0], 2, [[]]),
        ([], 2, []),
    ],
)
def test_groups_much_larger_than_a_workers_share_are_cut(sizes, workers: int, parts: list) -> None:
    groups = [([[i, j] for j in range(size)], 7 + i) for i, size in enumerate(sizes)]
    split = split_groups(groups, workers)
    assert [[len(rows) for rows, _ in group] for group in split] == parts
    for (rows, max_len), group in zip(groups, split, strict=True):
        assert [row for part, _ in group for row in part] == rows
        assert {limit for _, limit in group} <= {max_len}


@pytest.mark.gpu
@pytest.mark.parametrize("beam_size", [1, 3])
def test_on_a_gpu_the_plain_decoder_finds_the_same(beam_size: int) -> None:
    model = lively()
    want = found(model, ROWS, beam_size, 1.0, 12)
    engine = PyTorchEngine(model.cuda())
    assert engine.decoder is IncrementalDecoder
    assert search(engine, ROWS, beam_size, max_len=12) == want


# --- workers --------------------------------------------------------------------------------------


def test_two_workers_work_at_once() -> None:
    both = threading.Barrier(2)
    results = parallel_map(lambda item: both.wait(timeout=9), range(2), workers=2)
    assert sorted(results) == [0, 1]


def test_workers_are_kept_for_the_next_time() -> None:
    both = threading.Barrier(2)

    def work(item: int) -> threading.Thread:
        both.wait(timeout=9)  # so that neither does it all
        return threading.current_thread()

    first, second = (set(parallel_map(work, range(2), workers=2)) for _ in range(2))
    assert first == second
    assert len(first) == 2


def test_no_more_items_at_once_than_workers_and_none_after_the_caller_has_left() -> None:
    at_work = set()
    counts = []

    def work(item: int) -> None:
        at_work.add(item)
        counts.append(len(at_work))
        time.sleep(0.01)
        at_work.remove(item)

    results = parallel_map(work, range(40), workers=2)
    next(results)
    results.close()
    assert max(counts) <= 2
    assert len(counts) < 40


def test_an_engine_that_is_left_early_stops_and_gives_the_threads_back(two_threads) -> None:
    results = PyTorchEngine(decoding_model("cpu")).search_all([([[4, 5, 2]], 3)] * 40)
    next(results)
    results.close()
    assert torch.get_num_threads() == 2


# --- from folder to folder ------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    """Return the folder of a translator."""
    save_model(lively(), tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text(TOKENIZER.to_str(), encoding="utf-8")
    return tmp_path / "model"


def test_a_translator_is_exported_beside_its_model_or_elsewhere(
    saved, tmp_path, monkeypatch
) -> None:
    pytest.importorskip("ctranslate2")
    beside = export(saved, "ctranslate2")
    assert beside == saved / "ctranslate2"
    assert sorted(path.name for path in beside.iterdir()) == sorted(CTRANSLATE2_FILES)
    monkeypatch.setenv("TRANSFORMER_CACHE", str(tmp_path))
    other = export("model", "ctranslate2", tmp_path / "new" / "other")
    assert other == tmp_path / "new" / "other"
    for name in CTRANSLATE2_FILES:
        assert (other / name).read_bytes() == (beside / name).read_bytes()


def test_a_translator_is_exported_to_onnx(saved, monkeypatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(
        "transformer.engines.onnx.write_graph",
        lambda graph, inputs, output, path: path.write_text(output),
    )
    folder = export(saved, "onnx")
    assert folder == saved / "onnx"
    texts = [(folder / f"{name}.onnx").read_text() for name in ("encoder", "decoder")]
    assert texts == ["memory", "logits"]


def test_another_engine_no_model_and_no_tokenizer_are_named(saved) -> None:
    pytest.importorskip("ctranslate2")
    with pytest.raises(ValueError, match="to ctranslate2, onnx or transformers, not to 'tflite'"):
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
    [
        ("ctranslate2", "ctranslate2", "pip install ctranslate2"),
        ("onnx", "onnxscript", "pip install onnx onnxscript"),
    ],
)
def test_a_missing_package_is_named(saved, monkeypatch, to: str, package: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"^{package} cannot be imported .*: {words}$"):
        export(saved, to)
    assert not (saved / to).exists()


@pytest.mark.parametrize("to", ["ctranslate2", "onnx"])
def test_a_translators_own_folder_is_not_overwritten(saved, to: str) -> None:
    for package in PACKAGES[to]:
        pytest.importorskip(package)
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(ValueError, match="holds something that is not an export"):
        export(saved, to, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert json.loads(before["config.json"])["vocab_size"] == SIZE
