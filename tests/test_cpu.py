"""Private operators are used where they give the right numbers, and can all be missing."""

import copy
import multiprocessing
import os
import pickle
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.attention import attention
from transformer.checks.fixtures import small_model
from transformer.cpu import has_fast_bfloat16, linear, operators, packing, process, topk, tracing
from transformer.cpu.linear import FastLinear, OneDNNLinear, fast_linear, is_for_onednn
from transformer.cpu.operators import (
    BFLOAT16_SUPPORT,
    FLASH_ATTENTION,
    FP16_LINEAR,
    FREEZE,
    LINEAR,
    PRIVATE,
    PROBES,
    REORDER,
    TRACE,
    has_onednn,
    private,
    works,
)
from transformer.cpu.packing import PackedLinear, pack
from transformer.cpu.topk import blockwise_topk, num_blocks
from transformer.cpu.tracing import MAX_TRACES, TraceCache, can_trace
from transformer.cpu.workers import parallel_map, worker_pool
from transformer.data import Batch
from transformer.decoder import causal_mask
from transformer.fast_decoding import PackedDecoder
from transformer.fast_training import causal_attention, chunked_loss, optimize_for_cpu
from transformer.inference import IncrementalDecoder, beam_search, greedy_search
from transformer.model import Transformer
from transformer.training import translation_loss

ROOT = Path(__file__).resolve().parent.parent


def forget_probes() -> None:
    works.cache_clear()
    can_trace.cache_clear()


@pytest.fixture(autouse=True)
def fresh_probes():
    """Probe anew in every test, and again after it."""
    forget_probes()
    yield
    forget_probes()


# --- what a release of PyTorch may change --------------------------------------------------------


class WrongTrace:
    """A trace that gives other numbers than its function."""

    def __init__(self, traced: Callable):
        self.traced = traced

    def eval(self) -> "WrongTrace":
        return self

    def __call__(self, *inputs: Tensor) -> Tensor | tuple:
        found = self.traced(*inputs)
        return found + 1 if isinstance(found, Tensor) else tuple(part + 1 for part in found)


def raising(error: Exception) -> Callable:
    def run(*given, **named):
        raise error

    return run


def wrong(path: str) -> Callable:
    """Return an operator that gives other numbers than the real one."""
    real = private(path)
    if path in (TRACE, FREEZE):
        return lambda *given, **named: WrongTrace(real(*given, **named))
    if path == BFLOAT16_SUPPORT:
        return lambda: not real()
    return lambda first, *rest, **named: real(2 * first, *rest, **named)


def replace(monkeypatch: pytest.MonkeyPatch, changed: dict[str, Callable | None]) -> None:
    """Replace private operators, or remove those for which None is given."""

    def private_now(path: str) -> object:
        found = changed[path] if path in changed else private(path)
        if found is None:
            raise AttributeError(f"this release has no torch.{path}")
        return found

    monkeypatch.setattr(operators, "private", private_now)
    monkeypatch.setattr(tracing, "private", private_now)
    if LINEAR in changed:  # TorchScript reads this function's source, and so it names the operator
        escaped = AssertionError("packed_product was called, whose operator is not there")
        monkeypatch.setattr(packing, "packed_product", raising(escaped))
    forget_probes()


CHANGES: dict[str, Callable[[str], Callable | None]] = {
    "removed": lambda path: None,
    "wrong": wrong,
    "not supported": lambda path: raising(RuntimeError("not supported")),
    "another signature": lambda path: raising(TypeError("missing 1 required argument")),
}
each_change = pytest.mark.parametrize("change", CHANGES)
each_path = pytest.mark.parametrize(
    "paths",
    [*((path,) for path in PRIVATE), PRIVATE],
    ids=[*(path.rpartition(".")[2] for path in PRIVATE), "all"],
)


@pytest.fixture
def changed(paths: tuple[str, ...], change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, {path: CHANGES[change](path) for path in paths})
    monkeypatch.setattr(topk, "_traces", TraceCache(0))


@pytest.fixture(autouse=True)
def small_products_are_for_onednn(monkeypatch) -> None:
    """Multiply small products as on a processor with AVX-512, whatever this one is."""
    monkeypatch.setattr(linear, "HAS_AVX512", True)


def large_model() -> Transformer:
    """Return a model that is large enough for oneDNN, and sentences long enough for the kernel."""
    sizes = dict(vocab_size=600, d_model=64, n_heads=4, n_layers=1, d_ff=256, max_len=80)
    return small_model(**sizes)


def long_batch() -> Batch:
    src = torch.randint(3, 600, (2, 70))
    tgt = torch.randint(3, 600, (2, 71))
    src[0, 50:] = 0
    tgt[1, 40:] = 0
    return Batch(src, tgt)


def agrees_in_training() -> None:
    """Expect the loss and gradients of the fast model to be those of the plain one."""
    model = large_model()
    batch = long_batch()
    losses = (
        translation_loss(model, batch, 0.1),
        chunked_loss(optimize_for_cpu(model), batch, 0.1),
    )
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-5)
    want, got = (torch.autograd.grad(loss, model.parameters()) for loss in losses)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def agrees_in_attention() -> None:
    """Expect the attention of long sentences to be causal, in values and gradients."""
    q, k, v = (torch.randn(2, 3, 40, 8, requires_grad=True) for _ in range(3))
    mask = (torch.arange(40) < torch.tensor([40, 33])[:, None, None, None]) & causal_mask(40)
    outputs = (attention(q, k, v, mask), causal_attention(q, k, v, mask))
    torch.testing.assert_close(outputs[1], outputs[0])
    want, got = (torch.autograd.grad(out.square().sum(), (q, k, v)) for out in outputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def agrees_in_products(dtype: torch.dtype) -> None:
    """Expect a packed layer to multiply few rows and many."""
    layer = nn.Linear(64, 48, dtype=dtype)
    packed = PackedLinear(layer.weight, layer.bias)
    atol = 0.05 if dtype == torch.bfloat16 else 1e-5
    for rows in (3, 500):
        x = torch.randn(rows, 64)
        want = F.linear(x, *(parameter.float() for parameter in layer.parameters()))
        torch.testing.assert_close(packed(x).float(), want, atol=atol, rtol=0.02)


def agrees_in_decoding() -> None:
    """Expect greedy and beam search, and the logits of a step, to be those of the plain decoder."""
    model = large_model().eval()
    packed = PackedDecoder(model, warmup_calls=0)
    for src in (torch.randint(3, 600, (6, 9)), torch.randint(3, 600, (2, 70))):
        src[0, 5:] = 0
        assert greedy_search(model, src, 6, packed).equal(greedy_search(model, src, 6))
        got, want = (
            beam_search(model, src, 3, 1.0, 6, way) for way in (packed, IncrementalDecoder)
        )
        assert got[0].equal(want[0])
        torch.testing.assert_close(got[1], want[1], atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            got, want = (way(model, src).step(src[:, 0]) for way in (packed, IncrementalDecoder))
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@each_change
@each_path
def test_training_is_the_same_whatever_a_release_changes(changed) -> None:
    agrees_in_training()
    agrees_in_attention()


@each_change
@each_path
def test_decoding_is_the_same_whatever_a_release_changes(changed) -> None:
    agrees_in_decoding()


@each_change
@each_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_packed_products_are_the_same_whatever_a_release_changes(changed, dtype) -> None:
    agrees_in_products(dtype)


@each_change
@pytest.mark.parametrize("name", PROBES)
def test_an_operator_that_changed_is_not_used(name: str, change: str, monkeypatch) -> None:
    there = works(name)
    paths = [LINEAR, REORDER] if name.startswith("onednn") else [FP16_LINEAR]
    paths = [FLASH_ATTENTION] if name == "causal_flash_attention" else paths
    for path in paths:
        with monkeypatch.context() as patched:
            replace(patched, {path: CHANGES[change](path)})
            assert not works(name)
    forget_probes()
    assert works(name) == there


def test_an_operator_of_float32_that_computes_in_bfloat16_is_not_used(monkeypatch) -> None:
    def in_bfloat16(path: str) -> Callable:
        real = private(path)
        return lambda first, *rest, **named: real(first.bfloat16().float(), *rest, **named)

    replace(monkeypatch, {path: in_bfloat16(path) for path in (LINEAR, FLASH_ATTENTION)})
    assert not works("onednn_float32")
    assert not works("causal_flash_attention")


@each_change
@pytest.mark.parametrize("path", [TRACE, FREEZE])
def test_without_traces_functions_run_as_they_are(path: str, change: str, monkeypatch) -> None:
    replace(monkeypatch, {path: CHANGES[change](path)})
    layer = nn.Linear(3, 5)
    x = torch.randn(2, 3)
    assert tracing.trace(layer, (x,))(x).equal(layer(x))


def test_training_and_decoding_use_the_operators_that_work(monkeypatch) -> None:
    """Otherwise the tests above would compare public operators with themselves."""
    want = {REORDER, LINEAR} if has_onednn("cpu") else set()
    want |= {FLASH_ATTENTION} if works("causal_flash_attention") else set()
    want |= {TRACE, FREEZE} if can_trace() else set()
    used = set()

    def noted(path: str) -> object:
        used.add(path)
        return private(path)

    monkeypatch.setattr(operators, "private", noted)
    monkeypatch.setattr(tracing, "private", noted)
    agrees_in_training()
    agrees_in_decoding()
    assert used == want


def test_every_private_operator_is_listed() -> None:
    source = "".join(path.read_text() for path in (ROOT / "transformer" / "cpu").glob("*.py"))
    named = set(re.findall(r"torch\.((?:ops|jit)(?:\.\w+)+)", source))
    assert {LINEAR} <= named <= set(PRIVATE)
    for path in PRIVATE:
        assert callable(private(path)), "removed in this release: say in the docstring since when"


NO_JIT = """
import torch
for name in {names}:
    delattr(torch.jit, name)
from transformer.checks.fixtures import decoding_model, sources
from transformer.fast_decoding import PackedDecoder
from transformer.inference import beam_search
model = decoding_model("cpu")
src = sources(9, "cpu")
want, _ = beam_search(model, src, 3, 1.0, 9)
for decoder in (PackedDecoder(model), PackedDecoder(model, warmup_calls=0)):
    assert beam_search(model, src, 3, 1.0, 9, decoder)[0].equal(want)
print("translated")
"""


@pytest.mark.parametrize(
    "names",
    [["script_if_tracing"], ["trace", "freeze", "script", "script_if_tracing"]],
    ids=["one", "all"],
)
def test_a_release_without_torchscript_still_imports_and_translates(names: list[str]) -> None:
    command = [sys.executable, "-c", NO_JIT.format(names=names)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "translated\n", done.stderr


def test_whether_bfloat16_is_fast_is_a_yes_or_a_no() -> None:
    assert has_fast_bfloat16("cpu") in (True, False)
    assert has_fast_bfloat16("meta") is False


@pytest.mark.parametrize(
    ("capability", "supported", "want"),
    [("AVX512", True, True), ("AVX512", False, False), ("AVX2", True, False)],
)
def test_bfloat16_is_fast_where_vectors_are_long_and_have_instructions_for_it(
    capability: str, supported: bool, want: bool, monkeypatch
) -> None:
    replace(monkeypatch, {BFLOAT16_SUPPORT: lambda: supported})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert has_fast_bfloat16("cpu") is want


def test_there_is_no_onednn_elsewhere_or_for_other_precisions(monkeypatch) -> None:
    assert not has_onednn("meta")
    assert not has_onednn("cpu", torch.float64)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_onednn("cpu")


# --- a linear layer for training -----------------------------------------------------------------


# Below and above the size from which oneDNN multiplies.
@pytest.mark.parametrize("sizes", [(3, 8, 5), (40, 512, 512), (1, 512, 513), (2, 30, 256, 512)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_are_the_same_whichever_library_makes_them(sizes, dtype: torch.dtype) -> None:
    *rows, d, d_out = sizes
    x = torch.randn(*rows, d, dtype=dtype)
    layer = nn.Linear(d, d_out, dtype=dtype)
    atol, rtol = (0.05, 0.02) if dtype == torch.bfloat16 else (1e-5, 1e-4)
    packed = PackedLinear(layer.weight, layer.bias)
    with torch.no_grad():
        for got in (fast_linear(x, layer.weight, layer.bias), packed(x)):
            torch.testing.assert_close(got.to(dtype), layer(x), atol=atol, rtol=rtol)


@pytest.mark.parametrize(
    ("rows", "d_out", "d", "wide", "large"),
    [
        (128, 128, 128, True, True),  # 2²¹ multiplications
        (128, 128, 128, False, False),
        (127, 128, 128, True, False),
        (1, 512, 512, True, True),  # a weight of 2¹⁸ numbers
        (1, 512, 512, False, True),
        (1, 511, 512, True, False),
    ],
)
def test_large_products_are_for_onednn(
    monkeypatch, rows: int, d_out: int, d: int, wide: bool, large: bool
) -> None:
    monkeypatch.setattr(linear, "HAS_AVX512", wide)
    x = torch.randn(rows, d)
    weight = torch.randn(d_out, d)
    assert is_for_onednn(x, weight) == (large and has_onednn("cpu"))
    assert not is_for_onednn(x.double(), weight.double())
    assert not is_for_onednn(x.to("meta"), weight.to("meta"))


def test_the_compiler_is_given_the_public_operator(monkeypatch) -> None:
    x = torch.randn(1, 512)
    weight = torch.randn(512, 512)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(linear, "onednn_linear", raising(AssertionError("a private operator")))
    assert fast_linear(x, weight).equal(F.linear(x, weight))


def test_a_fast_linear_layer_may_have_no_bias() -> None:
    layer = nn.Linear(512, 600, bias=False)
    x = torch.randn(20, 512)
    FastLinear(layer)(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(600, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [(2, 20), (20,), (), (0,)], ids=str)
@pytest.mark.parametrize("d", [8, 512])
def test_a_fast_linear_layer_has_the_weights_and_gradients_of_the_plain_one(d, rows) -> None:
    layer = nn.Linear(d, 600)
    fast = FastLinear(layer)
    x = torch.randn(*rows, d, requires_grad=True)
    weights = torch.randn(*rows, 600)
    assert fast.weight is layer.weight
    assert fast.bias is layer.bias
    assert fast.state_dict().keys() == layer.state_dict().keys()
    torch.testing.assert_close(fast(x), layer(x), atol=1e-5, rtol=1e-4)
    parameters = (x, layer.weight, layer.bias)
    wanted = torch.autograd.grad(layer(x), parameters, weights)
    for got, want in zip(torch.autograd.grad(fast(x), parameters, weights), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    layer = nn.Linear(512, 600)
    x = torch.randn(20, 512, requires_grad=True)
    parts = {"x": x, "weight": layer.weight, "bias": layer.bias}
    parts[frozen].requires_grad_(False)
    FastLinear(layer)(x).square().sum().backward()
    assert [name for name, part in parts.items() if part.grad is None] == [frozen]


def test_a_fast_linear_layer_keeps_the_mode_of_the_plain_one() -> None:
    assert FastLinear(nn.Linear(3, 5)).training
    assert not FastLinear(nn.Linear(3, 5).eval()).training


def penalized(output: Tensor, x: Tensor) -> Tensor:
    """Return a loss with a penalty on the size of its gradient, which needs a second derivative."""
    (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    return output.sum() + slope.square().sum()


@pytest.mark.parametrize("power", [1, 2])
def test_a_second_derivative_of_onednns_product_raises(power: int) -> None:
    x = torch.randn(4, 6, requires_grad=True)
    weight = torch.randn(5, 6, requires_grad=True)
    output = OneDNNLinear.apply(x, weight, torch.randn(5))
    with pytest.raises(RuntimeError, match="no second derivative"):
        penalized(output**power, x).backward()


# --- a linear layer for inference ----------------------------------------------------------------


def pretend(x: Tensor, weight: Tensor, bias: Tensor | None, *given) -> Tensor:
    """Multiply as oneDNN does, with a weight that is not in a layout of its own."""
    bias = bias if bias is None else bias.to(x.dtype)
    return F.linear(x, weight.to(x.dtype), bias)


@pytest.fixture(params=["real", "pretended"])
def fast_bfloat16(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on a processor that multiplies bfloat16 quickly, or take slow products for fast ones."""
    if request.param == "real":
        if not has_fast_bfloat16("cpu"):
            pytest.skip("this processor does not multiply bfloat16 quickly")
        return
    replace(monkeypatch, {LINEAR: pretend, REORDER: lambda weight: weight})
    monkeypatch.setattr(packing, "packed_product", pretend)
    monkeypatch.setattr(operators, "has_fast_bfloat16", lambda device: True)
    assert works("onednn_bfloat16")


@pytest.mark.parametrize("reason", ["", "another engine", "out of range"])
def test_few_rows_keep_their_digits_when_a_small_weight_is_in_bfloat16(
    fast_bfloat16, reason: str, monkeypatch
) -> None:
    if reason == "another engine":
        monkeypatch.setattr(torch.backends.quantized, "engine", "onednn")
    layer = nn.Linear(64, 48).bfloat16()
    x = torch.randn(3, 64)
    if reason == "out of range":
        layer.weight.data[0, 0] = 1e5  # more than float16 can hold
    packed = PackedLinear(layer.weight, layer.bias)
    want = F.linear(x, *(parameter.float() for parameter in layer.parameters()))
    there = not reason and operators.has_fp16_linear()
    assert (packed.fp16_weight is not None) == there
    torch.testing.assert_close(packed(x, few_rows=True), want, atol=1e-5, rtol=1e-5)
    got = packed(x, few_rows=False)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, atol=0.05, rtol=0.02)


def test_a_large_weight_in_bfloat16_is_not_kept_in_float16_too(fast_bfloat16) -> None:
    layer = nn.Linear(512, 513).bfloat16()
    packed = PackedLinear(layer.weight, layer.bias)
    assert packed.fp16_weight is None
    assert packed.weight is None
    assert packed(torch.randn(1, 512), few_rows=True).dtype == torch.bfloat16


def test_packed_weights_are_copies() -> None:
    layer = nn.Linear(64, 48)
    packed = PackedLinear(layer.weight, layer.bias)
    x = torch.randn(3, 64)
    few, many = (packed(x, few_rows=choice) for choice in (True, False))
    with torch.no_grad():
        layer.weight.add_(1)
    if has_onednn("cpu"):
        assert packed(x, few_rows=True).equal(few)
        assert packed(x, few_rows=False).equal(many)
    assert not any(buffer.requires_grad for buffer in packed.buffers())
    assert not list(packed.parameters())


def test_several_layers_are_packed_side_by_side() -> None:
    layers = [nn.Linear(12, width) for width in (5, 7, 3)]
    x = torch.randn(4, 12)
    want = torch.cat([layer(x) for layer in layers], dim=1)
    for few_rows in (True, False, None):
        torch.testing.assert_close(pack(*layers)(x, few_rows), want)


def test_the_number_of_rows_chooses_the_product(monkeypatch) -> None:
    if not has_onednn("cpu"):
        pytest.skip("there is no choice without oneDNN")
    packed = pack(nn.Linear(64, 128))
    rows = packing.FEW_PRODUCTS // (64 * 128)
    made = []
    monkeypatch.setattr(packing, "packed_product", lambda x, *rest: made.append(len(x)) or x)
    packed(torch.randn(rows - 1, 64))
    packed(torch.randn(rows, 64))
    packed(torch.randn(3, 64), few_rows=False)
    packed(torch.randn(2 * rows, 64), few_rows=True)
    assert made == [rows, 3]


@pytest.mark.skipif(not has_onednn("cpu") or not can_trace(), reason="needs oneDNN and traces")
def test_a_trace_multiplies_by_onednn_too() -> None:
    packed = nn.Sequential(pack(nn.Linear(512, 513)))  # large enough for few rows as well
    traced = tracing.trace(packed, (torch.randn(3, 512),))
    assert "mkldnn::_linear_pointwise" in str(traced.inlined_graph)
    for rows in (3, 5):
        x = torch.randn(rows, 512)
        torch.testing.assert_close(traced(x), packed(x))


# --- traces --------------------------------------------------------------------------------------


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_a_function_is_traced_after_some_calls_and_once_for_each_key(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(tracing, "trace", lambda *given: made.append(given) or double)
    cache = TraceCache(warmup_calls=2)
    x = torch.arange(3.0)
    for call in range(6):
        key = "even" if call % 2 == 0 else "odd"
        assert cache.run(key, double, x).equal(2 * x)
        assert list(cache.traces) == [[], [], ["even"], ["even", "odd"]][min(call, 3)]
    assert len(made) == 2


def test_functions_run_as_they_are_until_they_are_traced() -> None:
    seen = []
    cache = TraceCache(warmup_calls=3)
    for _ in range(9):
        cache.run("key", lambda x: seen.append(type(x)) or x + 1, torch.zeros(2))
    assert len(seen) == (4 if can_trace() else 9), "three calls, and one to make the trace"


def test_a_trace_serves_any_number_of_rows() -> None:
    cache = TraceCache(warmup_calls=0)
    for rows in (3, 1, 5):
        x = torch.randn(rows, 4)
        assert cache.run("key", lambda x: x.flip(0) @ x.mT, x).equal(x.flip(0) @ x.mT)
    assert len(cache.traces) == 1


def test_traces_are_bounded() -> None:
    cache = TraceCache(warmup_calls=0)
    for key in range(MAX_TRACES + 5):
        assert cache.run(key, double, torch.ones(2)).tolist() == [2.0, 2.0]
    assert list(cache.traces) == list(range(MAX_TRACES))


def test_workers_that_begin_together_keep_to_the_bound(monkeypatch) -> None:
    both = threading.Barrier(4)

    def late(function: Callable, inputs: tuple) -> Callable:
        time.sleep(0.01)
        return function

    monkeypatch.setattr(tracing, "trace", late)
    monkeypatch.setattr(tracing, "MAX_TRACES", 2)
    cache = TraceCache(warmup_calls=0)

    def run(key: int) -> Tensor:
        both.wait(timeout=9)
        return cache.run(key, double, torch.ones(2))

    list(parallel_map(run, range(4), 4))
    assert len(cache.traces) == 2


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))]
)
def test_a_copy_of_a_cache_begins_without_traces(duplicate: Callable) -> None:
    cache = TraceCache(warmup_calls=1)
    for _ in range(3):
        cache.run("key", lambda x: x + 1, torch.ones(2))
    twin = duplicate(cache)
    assert twin.warmup_calls == 1
    assert twin.calls == 0
    assert not twin.traces
    assert list(cache.traces) == ["key"], "the cache itself keeps its own"
    twin.run("key", double, torch.ones(2))
    assert not twin.traces
    assert twin.run("key", double, torch.ones(2)).tolist() == [2.0, 2.0]
    assert list(twin.traces) == ["key"]


def test_a_trace_of_the_cpu_is_not_run_on_another_device() -> None:
    cache = TraceCache(warmup_calls=0)

    def count(x: Tensor) -> Tensor:
        return x + torch.arange(len(x), device=x.device)

    assert cache.run("key", count, torch.ones(3)).tolist() == [1.0, 2.0, 3.0]
    assert cache.run("key", count, torch.ones(3, device="meta")).shape == (3,)


def test_nothing_is_traced_on_another_device_or_by_a_newer_python(monkeypatch) -> None:
    assert tracing.trace(double, (torch.ones(2, device="meta"),)) is double
    monkeypatch.setattr(tracing, "sys", SimpleNamespace(version_info=(3, 14)))
    assert not can_trace()
    assert tracing.trace(double, (torch.ones(2),)) is double


def test_a_function_that_cannot_be_traced_runs_as_it_is() -> None:
    def run(x: Tensor) -> object:
        return SimpleNamespace(x=x)

    assert tracing.trace(run, (torch.ones(2),)) is run


# --- the largest of many -------------------------------------------------------------------------


@pytest.fixture(params=[0, 10**9], ids=["traced", "as it is"])
def topk_traces(request, monkeypatch: pytest.MonkeyPatch) -> TraceCache:
    """Begin without traces of `blockwise_topk`, and trace at once or never."""
    traces = TraceCache(request.param)
    monkeypatch.setattr(topk, "_traces", traces)
    return traces


def with_several_in_one_block(rows: int, v: int) -> Tensor:
    x = torch.randn(rows, v)
    x[:, 5:9] = 4 + torch.randn(rows, 4)
    return x


@pytest.mark.parametrize("v", [600, 10_000, 997, 130])
@pytest.mark.parametrize("k", [1, 4, 10])
@pytest.mark.parametrize("rows", [1, 7])
def test_blockwise_topk_finds_the_largest(topk_traces, rows: int, k: int, v: int) -> None:
    x = with_several_in_one_block(rows, v)
    values, indices = blockwise_topk(x, k)
    want = x.topk(k)
    assert values.equal(want.values)
    assert indices.equal(want.indices)


@pytest.mark.parametrize(
    ("v", "k", "n"),
    [(600, 4, 3), (10_000, 10, 5), (997, 4, 3), (400, 10, 5), (10_000, 2, 1), (600, 3, 1)],
)
def test_blockwise_topk_adds_what_a_row_already_has(topk_traces, v: int, k: int, n: int) -> None:
    for b in (4, 1, 9):
        x = with_several_in_one_block(b * n, v)
        x[0, 3] = -torch.inf
        offsets = 3 * torch.randn(b, n)
        values, indices = blockwise_topk(x, k, offsets)
        want = (x.view(b, n, v) + offsets.unsqueeze(-1)).view(b, -1).topk(k)
        assert values.equal(want.values)
        assert indices.equal(want.indices)


def test_blockwise_topk_passes_over_hypotheses_that_have_ended(topk_traces) -> None:
    x = torch.randn(6, 600)
    offsets = torch.tensor([[0.0, -torch.inf, -1.0], [-torch.inf, -2.0, -torch.inf]])
    values, indices = blockwise_topk(x, 4, offsets)
    want = (x.view(2, 3, 600) + offsets.unsqueeze(-1)).view(2, -1).topk(4)
    assert values.equal(want.values)
    assert indices.equal(want.indices)


def test_a_trace_finds_the_largest_of_any_number_of_rows(topk_traces) -> None:
    for rows, k, v in ((7, 2, 600), (50, 2, 600), (4, 2, 600), (9, 1, 600), (9, 2, 800)):
        x = torch.randn(rows, v)
        assert blockwise_topk(x, k)[1].equal(x.topk(k).indices)
    keys = set() if topk_traces.warmup_calls else {(600, 2, 1), (600, 1, 1), (800, 2, 1)}
    assert set(topk_traces.traces) == keys


def test_a_row_is_cut_into_blocks_of_about_two_hundred() -> None:
    sizes = (10_000, 600, 37_000, 997, 8, 1)
    assert [num_blocks(v) for v in sizes] == [50, 3, 185, 1, 1, 1]


# --- workers -------------------------------------------------------------------------------------


@pytest.fixture
def threads():
    """Give PyTorch three threads, and restore its own number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_results_come_back_in_order_and_the_threads_are_restored(threads: int) -> None:
    def work(i: int) -> tuple[int, int]:
        time.sleep(0.002 * (9 - i))
        return i, torch.get_num_threads()

    assert list(parallel_map(work, range(9))) == [(i, 1) for i in range(9)]
    assert list(parallel_map(work, range(9), 2)) == [(i, 1) for i in range(9)]
    assert list(parallel_map(work, [], 2)) == []
    assert torch.get_num_threads() == threads


def test_a_single_item_or_worker_needs_no_pool_and_keeps_the_threads(threads: int) -> None:
    def work(i: int) -> tuple[int, int, threading.Thread]:
        return i, torch.get_num_threads(), threading.current_thread()

    here = threading.current_thread()
    assert list(parallel_map(work, range(3), 1)) == [(i, threads, here) for i in range(3)]
    assert list(parallel_map(work, [7])) == [(7, threads, here)]


def test_as_many_workers_as_threads_work_at_the_same_time(threads: int) -> None:
    together = threading.Barrier(threads)
    assert list(parallel_map(lambda i: together.wait(timeout=9) >= 0, range(threads))) == [True] * 3


class Work:
    """Take some time for each item, and count what was begun and what was done."""

    def __init__(self):
        self.begun = 0
        self.done = 0

    def __call__(self, i: int) -> float:
        self.begun += 1
        try:
            return 1 / i
        finally:
            time.sleep(0.01)
            self.done += 1


def test_an_exception_cancels_the_rest_and_restores_the_threads(threads: int) -> None:
    work = Work()
    with pytest.raises(ZeroDivisionError):
        list(parallel_map(work, [1, 0, *range(1, 50)], 2))
    assert work.begun < 20
    assert work.done == work.begun, "nothing goes on behind the caller's back"
    assert torch.get_num_threads() == threads


def test_leaving_early_cancels_the_rest_and_restores_the_threads(threads: int) -> None:
    work = Work()
    results = parallel_map(work, range(1, 50), 2)
    assert next(results) == 1
    assert torch.get_num_threads() == 1
    results.close()
    assert work.begun < 20
    assert work.done == work.begun
    assert torch.get_num_threads() == threads


NESTED = """
from transformer.cpu.workers import parallel_map
found = parallel_map(lambda i: list(parallel_map(lambda j: 10 * i + j, range(3), 2)), range(4), 2)
print(list(found))
"""


def test_a_worker_may_share_out_work_of_its_own() -> None:
    command = [sys.executable, "-c", NESTED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert done.stdout == f"{[[10 * i + j for j in range(3)] for i in range(4)]}\n", done.stderr


def test_a_worker_does_not_share_out_what_the_caller_shares_already(threads: int) -> None:
    def work(i: int) -> list[bool]:
        here = threading.current_thread()
        return [
            thread is here for thread in parallel_map(lambda _: threading.current_thread(), "ab")
        ]

    assert list(parallel_map(work, range(4))) == [[True, True]] * 4
    assert torch.get_num_threads() == threads


def workers_of(items: Iterable[int]) -> set[int]:
    """Return the ids of the threads that work on some items, two at a time."""
    return set(parallel_map(lambda _: time.sleep(0.002) or threading.get_ident(), items, 2))


def test_workers_are_kept_between_calls() -> None:
    first = workers_of(range(8))
    assert len(first) <= 2
    assert threading.get_ident() not in first
    assert len(first | workers_of(range(8))) <= 2


def in_a_child(pipe) -> None:
    pipe.send(list(parallel_map(abs, [-1, -2, -3], 2)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own() -> None:
    workers_of(range(4))  # the parent's, which do not run in the child
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=in_a_child, args=(there,))
    child.start()
    try:
        assert here.poll(timeout=20), "the child waits for workers that it does not have"
        assert here.recv() == [1, 2, 3]
    finally:
        child.kill()
        child.join()


def test_pools_are_told_apart_by_process_and_size() -> None:
    assert worker_pool(2, 1) is worker_pool(2, 1)
    assert len({id(worker_pool(workers, pid)) for workers, pid in ((2, 1), (3, 1), (2, 5))}) == 3


# --- settings of the process ---------------------------------------------------------------------


@pytest.mark.parametrize("accepted", [1, 0])
def test_glibc_is_told_to_keep_freed_memory(accepted: int, monkeypatch) -> None:
    told = {}

    def mallopt(name: int, value: int) -> int:
        told[name] = value
        return accepted

    library = SimpleNamespace(mallopt=mallopt)
    monkeypatch.setattr(process, "ctypes", SimpleNamespace(CDLL=lambda name: library))
    monkeypatch.setattr(process, "sys", SimpleNamespace(platform="linux"))
    assert process.tune_allocator() is bool(accepted)
    if accepted:
        assert told == {-4: 0, -1: 2**31 - 1, -2: 2**28}


@pytest.mark.parametrize("system", ["darwin", "win32", "musl", "no mallopt"])
def test_where_there_is_no_glibc_nothing_is_told(system: str, monkeypatch) -> None:
    libraries = {"musl": raising(OSError("libc.so.6")), "no mallopt": lambda name: object()}
    refuse = raising(AssertionError("no library is opened there"))
    monkeypatch.setattr(process, "ctypes", SimpleNamespace(CDLL=libraries.get(system, refuse)))
    name = "linux" if system in libraries else system
    monkeypatch.setattr(process, "sys", SimpleNamespace(platform=name))
    assert process.tune_allocator() is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system has another C library")
def test_glibc_accepts_the_settings() -> None:
    path = ROOT / "transformer" / "cpu" / "process.py"
    code = f"import runpy; print(runpy.run_path({str(path)!r})['tune_allocator']())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
