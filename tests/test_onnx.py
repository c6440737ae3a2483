"""Exported graphs compute what the model computes, and the ONNX engine finds the same tokens."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lively_models import ROWS, SIZE, found, lively, search, search_groups, without_padding

from transformer.checks.fixtures import small_model
from transformer.data import BOS, EOS, PAD, pad
from transformer.engines.onnx import OnnxEngine, current_onnx, export_onnx, exportable
from transformer.fast_training import optimize_for_cpu
from transformer.inference import greedy_search
from transformer.model import Transformer

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)


@pytest.fixture(scope="module", params=["post", pytest.param("pre", marks=pytest.mark.slow)])
def exported(request, tmp_path_factory) -> tuple[Transformer, Path]:
    """Return a model, in training mode and optimized, and the folder that it was exported to."""
    model = optimize_for_cpu(lively(request.param, end=3.0, n_layers=1).train())
    folder = export_onnx(model, tmp_path_factory.mktemp("onnx") / "out")
    return model.eval(), folder


@pytest.fixture
def model(exported) -> Transformer:
    return exported[0]


@pytest.fixture(scope="module")
def engine(exported) -> OnnxEngine:
    return OnnxEngine(exported[1], exported[0].config)


@pytest.fixture(scope="module")
def graphs(exported) -> tuple:
    """Return the two graphs as functions of arrays."""
    import onnxruntime

    encoder, decoder = (
        onnxruntime.InferenceSession(exported[1] / f"{name}.onnx")
        for name in ("encoder", "decoder")
    )

    def decode(tgt: np.ndarray, memory: np.ndarray, src: np.ndarray) -> np.ndarray:
        return decoder.run(None, {"tgt": tgt, "memory": memory, "src": src})[0]

    return lambda src: encoder.run(None, {"src": src})[0], decode


# --- the graphs -----------------------------------------------------------------------------------


def test_an_export_is_two_graphs_and_a_config(exported) -> None:
    model, folder = exported
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "decoder.onnx", "encoder.onnx"]
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert about["vocab_size"] == model.config.vocab_size
    assert about["weights"]


@pytest.mark.parametrize(("b", "k", "t"), [(1, 1, 1), (1, 5, 1), (3, 1, 9), (4, 24, 2), (2, 3, 24)])
def test_the_graphs_compute_the_same_logits_at_every_size(model, graphs, b, k, t) -> None:
    encode, decode = graphs
    src = torch.randint(3, SIZE, (b, k))
    tgt = torch.randint(3, SIZE, (b, t))
    src[0, 2:] = PAD
    tgt[0, 3:] = PAD
    memory = encode(src.numpy())
    np.testing.assert_allclose(memory, model.encode(src), atol=1e-4)
    np.testing.assert_allclose(decode(tgt.numpy(), memory, src.numpy()), model(src, tgt), atol=1e-4)


def test_rows_that_are_all_padding_give_the_models_finite_numbers(model, graphs) -> None:
    """Their queries may attend to nothing, and the kernel's export gives them other numbers."""
    encode, decode = graphs
    src = torch.randint(3, SIZE, (4, 6))
    tgt = torch.randint(3, SIZE, (4, 5))
    src[1] = PAD
    tgt[2] = PAD
    src[3] = PAD
    tgt[3] = PAD
    memory = encode(src.numpy())
    logits = decode(tgt.numpy(), memory, src.numpy())
    assert np.isfinite(memory).all()
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(memory, model.encode(src), atol=1e-4)
    np.testing.assert_allclose(logits, model(src, tgt), atol=1e-4)


def test_a_greedy_loop_over_the_graphs_finds_the_same_tokens(model, graphs) -> None:
    encode, decode = graphs
    want = greedy_search(model, pad(ROWS), 20)
    src = pad(ROWS).numpy()
    tgt = np.full((len(src), 1), BOS)
    memory = encode(src)
    done = np.zeros(len(src), bool)
    for _ in range(20):
        logits = decode(tgt, memory, src)[:, -1]
        logits[:, [PAD, BOS]] = -np.inf
        ids = np.where(done, PAD, logits.argmax(-1))
        tgt = np.concatenate([tgt, ids[:, None]], axis=1)
        done = done | (ids == EOS)
        if done.all():
            break
    assert tgt[:, 1:].tolist() == want.tolist()
    assert len(set((want != PAD).sum(1).tolist())) > 2


def test_the_graphs_refuse_more_tokens_than_max_len(graphs) -> None:
    with pytest.raises(Exception, match="Add"):
        graphs[0](np.full((1, 25), 5))


def test_the_model_that_is_traced_is_a_copy() -> None:
    model = optimize_for_cpu(lively()).bfloat16().train()
    src = pad(ROWS)

    def state() -> list[tuple]:
        return [
            (module.training, type(module), getattr(module, "attention_fn", None))
            for module in model.modules()
        ]

    before = state()
    random = torch.get_rng_state()
    copy = exportable(model)
    assert torch.get_rng_state().equal(random)
    assert state() == before
    assert model.bias.dtype == torch.bfloat16
    assert copy.bias.dtype == torch.float32
    assert not any(module.training for module in copy.modules())
    assert type(copy) is Transformer
    torch.testing.assert_close(copy(src, src), model.float().eval()(src, src), atol=1e-4, rtol=1e-4)


# --- the engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize("beam_size", [1, 5])
@pytest.mark.parametrize(("penalty", "max_len"), [(1.0, 20), (0.0, 9), (0.6, 40)])
def test_the_engine_finds_the_tokens_of_the_search(
    model, engine, beam_size: int, penalty: float, max_len: int
) -> None:
    assert len({len(row) for row in ROWS}) > 9, "the group is padded"
    want = found(model, ROWS, beam_size, penalty, max_len)
    assert search(engine, ROWS, beam_size, penalty, max_len) == want
    assert len({len(row) for row in want}) > 1


def test_the_engine_searches_groups_in_order_and_greedily_with_a_beam_of_one(model, engine) -> None:
    groups = [(ROWS, 5), (ROWS[::-1], 12), (ROWS[:1], 20)]
    results = search_groups(engine, groups, 1)
    assert results == [without_padding(greedy_search(model, pad(rows), n)) for rows, n in groups]


def test_the_engine_leaves_the_random_numbers_alone(exported) -> None:
    state = torch.get_rng_state()
    search(OnnxEngine(exported[1], exported[0].config), ROWS[:2], max_len=3)
    assert torch.get_rng_state().equal(state)


def test_a_folder_that_is_missing_damaged_or_of_another_model_is_refused(
    exported, tmp_path
) -> None:
    model, whole = exported
    folder = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="there is no ONNX model in"):
        OnnxEngine(folder, model.config)
    shutil.copytree(whole, folder)
    with pytest.raises(ValueError, match="belongs to another model"):
        OnnxEngine(folder, small_model().config)
    graph = folder / "decoder.onnx"
    graph.write_bytes(graph.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"ONNX Runtime cannot load .*decoder\.onnx"):
        OnnxEngine(folder, model.config)
    for damaged in ("{", "[]", "{}"):
        (folder / "config.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"config\.json is damaged"):
            OnnxEngine(folder, model.config)


def test_it_is_exported_again_when_the_weights_have_changed(tmp_path, monkeypatch) -> None:
    model = lively()
    out = tmp_path / "out"
    written = []

    def write_graph(graph, inputs, output: str, path: Path) -> None:
        written.append(output)
        path.write_text(output)

    monkeypatch.setattr("transformer.engines.onnx.write_graph", write_graph)
    for times in (1, 1, 2, 2):
        if times == 2:
            model.encoder.layers[0].feed_forward.w_1.weight[0, 0] = 1
        assert current_onnx(model, out) == out
        assert written == ["memory", "logits"] * times
