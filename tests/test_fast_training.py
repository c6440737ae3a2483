"""Training is faster with the same loss, the same gradients and the same parameters."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from transformer import fast_training
from transformer.attention import attention
from transformer.checks.fixtures import SRC, TGT, small_model
from transformer.cpu.linear import FastLinear
from transformer.data import Batch
from transformer.decoder import causal_mask
from transformer.fast_training import (
    CheapDropout,
    causal_attention,
    chunked_cross_entropy,
    chunked_loss,
    in_bfloat16,
    optimize_for_cpu,
    short_attention,
)
from transformer.model import Transformer
from transformer.multi_head import MultiHeadAttention
from transformer.training import Trainer, TrainingConfig, label_smoothed_loss, translation_loss

PAD = 3
TOKENS = 11
V = 9
SOME = (torch.tensor(SRC), torch.tensor(TGT))


# --- the loss in chunks --------------------------------------------------------------------------


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Return states, table and bias."""
    x = torch.randn(TOKENS, 6, requires_grad=True)
    weight = torch.randn(V, 6, requires_grad=True)
    bias = torch.randn(V, requires_grad=True)
    return x, weight, bias


@pytest.fixture
def labels() -> Tensor:
    """Return a label for each state; one of them is padding, and 0 and 1 occur twice."""
    return torch.arange(TOKENS) % V


def plain(inputs: tuple, labels: Tensor, smoothing: float) -> Tensor:
    return label_smoothed_loss(F.linear(*inputs), labels, PAD, smoothing)


def same(got: Tensor, want: Tensor, parameters: tuple | list, **tolerance) -> None:
    """Expect the same loss and the same gradients, of a multiple of it."""
    torch.testing.assert_close(got, want, **tolerance)
    wanted = torch.autograd.grad(3 * want, parameters)
    for a, b in zip(torch.autograd.grad(3 * got, parameters), wanted, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


class Calls(TorchDispatchMode):
    """Note which operators are called, and the tensors that they return."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []
        self.products: list[torch.dtype] = []
        self.largest = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        name = operator.overloadpacket.__name__
        self.names.append(name)
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
            if name in ("mm", "addmm", "bmm", "_linear_pointwise"):
                self.products.append(result.dtype)
        return result


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("chunk", [1, 4, 7, 512])
def test_the_loss_in_chunks_is_the_loss_and_has_its_gradients(
    inputs, labels, smoothing: float, chunk: int
) -> None:
    got = chunked_cross_entropy(*inputs, labels, PAD, smoothing, chunk)
    same(got, plain(inputs, labels, smoothing), inputs)
    with torch.no_grad():
        torch.testing.assert_close(
            chunked_cross_entropy(*inputs, labels, PAD, smoothing, chunk), got.detach()
        )


@pytest.mark.parametrize("grad", [True, False])
def test_a_label_of_minus_100_does_not_count(inputs, labels, grad: bool) -> None:
    ignored = labels.where(labels != PAD, -100)
    with torch.set_grad_enabled(grad):
        want = chunked_cross_entropy(*inputs, labels, PAD, 0.1)
        assert chunked_cross_entropy(*inputs, ignored, PAD, 0.1) == want


def test_without_smoothing_it_is_pytorchs_cross_entropy(inputs, labels) -> None:
    want = F.cross_entropy(F.linear(*inputs), labels, ignore_index=PAD)
    same(chunked_cross_entropy(*inputs, labels, PAD, 0.0), want, inputs)


def test_with_smoothing_it_is_pytorchs_cross_entropy_of_the_smoothed_labels(inputs, labels) -> None:
    share = torch.full((TOKENS, V), 0.1 / (V - 1)).index_fill(1, torch.tensor(PAD), 0.0)
    targets = share + 0.9 * F.one_hot(labels, V)
    real = labels != PAD
    want = F.cross_entropy(F.linear(*inputs)[real], targets[real])
    same(chunked_cross_entropy(*inputs, labels, PAD, 0.1), want, inputs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_padding_may_be_ruled_out_by_a_bias_of_minus_infinity(
    inputs, labels, smoothing: float
) -> None:
    inputs[2].data[PAD] = -math.inf
    got = chunked_cross_entropy(*inputs, labels, PAD, smoothing, chunk=4)
    assert got.isfinite()
    assert all(
        part.isfinite().all() for part in torch.autograd.grad(got, inputs, retain_graph=True)
    )
    same(got, plain(inputs, labels, smoothing), inputs)


@pytest.mark.parametrize("grad", [True, False])
def test_words_that_are_equally_likely_cost_the_logarithm_of_their_number(grad: bool) -> None:
    bias = torch.zeros(V).index_fill(0, torch.tensor(PAD), -math.inf)
    with torch.set_grad_enabled(grad):
        loss = chunked_cross_entropy(
            torch.randn(5, 6), torch.zeros(V, 6), bias, torch.tensor([4, 5, 0, 8, 4]), PAD, 0.1
        )
    assert loss.item() == pytest.approx(math.log(V - 1))


def test_without_smoothing_a_word_may_be_ruled_out_too(inputs) -> None:
    inputs[2].data[7] = -math.inf
    labels = torch.tensor([0, 1, 2, 4, 5, 6, 8, PAD, 0, 1, 2])
    got = chunked_cross_entropy(*inputs, labels, PAD, 0.0, chunk=4)
    assert got.isfinite()
    same(got, plain(inputs, labels, 0.0), inputs)


def test_with_smoothing_a_word_that_is_ruled_out_costs_everything(inputs, labels) -> None:
    inputs[2].data[7] = -math.inf
    assert plain(inputs, labels, 0.1) == math.inf
    assert chunked_cross_entropy(*inputs, labels, PAD, 0.1) == math.inf


def test_states_of_padding_count_for_nothing_even_if_they_are_not_numbers(inputs, labels) -> None:
    x, weight, bias = inputs
    want = chunked_cross_entropy(*inputs, labels, PAD)
    spoiled = x.detach().clone().requires_grad_()
    spoiled.data[labels == PAD] = math.nan
    same(chunked_cross_entropy(spoiled, weight, bias, labels, PAD), want, (weight, bias))
    chunked_cross_entropy(spoiled, weight, bias, labels, PAD).backward()
    assert spoiled.grad[labels == PAD].eq(0).all()


def test_weights_may_be_in_bfloat16(inputs, labels) -> None:
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in inputs]
    exact = [tensor.detach().float().requires_grad_() for tensor in half]
    got = chunked_cross_entropy(*half, labels, PAD, 0.1, chunk=4)
    want = plain(tuple(exact), labels, 0.1)
    torch.testing.assert_close(got, want, atol=0.03, rtol=0.03)
    wanted = torch.autograd.grad(want, exact)
    for mine, theirs in zip(torch.autograd.grad(got, half), wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), theirs, atol=0.02, rtol=0.05)


def test_large_logits_do_not_overflow(inputs, labels) -> None:
    x, weight, bias = inputs
    got = chunked_cross_entropy(100 * x, weight, bias, labels, PAD)
    want = plain((100 * x, weight, bias), labels, 0.1)
    same(got, want, inputs, atol=1e-4, rtol=1e-4)


def test_without_gradients_only_the_logits_are_computed(inputs, labels) -> None:
    chunks = math.ceil((TOKENS - 1) / 4)
    counts = {}
    for grad in (True, False):
        with torch.set_grad_enabled(grad), Calls() as calls:
            chunked_cross_entropy(*inputs, labels, PAD, 0.1, chunk=4)
        counts[grad] = len(calls.products)
    assert counts[False] == chunks
    assert counts[True] >= 3 * chunks


@pytest.mark.parametrize("grad", [True, False])
def test_the_logits_of_all_tokens_never_exist(grad: bool) -> None:
    x = torch.randn(300, 6, requires_grad=True)
    weight = torch.randn(50, 6, requires_grad=True)
    labels = torch.randint(4, 50, (300,))
    with torch.set_grad_enabled(grad), Calls() as calls:
        loss = chunked_cross_entropy(x, weight, torch.zeros(50), labels, PAD, 0.1, chunk=40)
        if grad:
            loss.backward()
    assert calls.largest <= 40 * 50


@pytest.mark.parametrize("grad", [True, False])
def test_under_autocast_products_are_in_bfloat16_and_gradients_in_float32(
    inputs, labels, grad: bool
) -> None:
    want = plain(inputs, labels, 0.1)
    wanted = torch.autograd.grad(want, inputs)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16), Calls() as calls:
        got = chunked_cross_entropy(*inputs, labels, PAD, 0.1, chunk=4)
        assert torch.is_autocast_enabled("cpu")
    assert got.dtype == torch.float32
    large = calls.products if not grad else calls.products[:-1]  # the last one is a mean row
    assert set(large) == {torch.bfloat16}
    torch.testing.assert_close(got, want, atol=0.03, rtol=0.03)
    if grad:
        for a, b in zip(torch.autograd.grad(got, inputs), wanted, strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b, atol=0.02, rtol=0.05)


@pytest.mark.parametrize("power", [1, 2])
def test_a_second_derivative_of_the_loss_raises(inputs, labels, power: int) -> None:
    loss = chunked_cross_entropy(*inputs, labels, PAD) ** power
    with pytest.raises(RuntimeError, match="no second derivative"):
        (slope,) = torch.autograd.grad(loss, inputs[0], create_graph=True)
        (loss + slope.square().sum()).backward()


def batch() -> Batch:
    return Batch(torch.tensor(SRC), torch.tensor(TGT))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunked_loss_is_the_loss_of_a_batch(smoothing: float) -> None:
    model = small_model()
    got, want = (loss(model, batch(), smoothing) for loss in (chunked_loss, translation_loss))
    same(got, want, list(model.parameters()), atol=1e-5, rtol=1e-4)


def test_chunked_loss_knows_the_models_own_padding() -> None:
    model = small_model(pad_id=PAD)
    got, want = (loss(model, batch(), 0.1) for loss in (chunked_loss, translation_loss))
    torch.testing.assert_close(got, want)


def test_a_trainer_takes_the_same_steps_with_it() -> None:
    config = TrainingConfig(peak_lr=1e-2, warmup=2, steps=3)
    losses = {}
    models = {}
    for loss in (translation_loss, chunked_loss):
        torch.manual_seed(0)
        models[loss] = small_model()
        trainer = Trainer(models[loss], config, loss=loss)
        losses[loss] = [trainer.step(batch(), batch()) for _ in range(3)]
    assert losses[chunked_loss] == pytest.approx(losses[translation_loss], rel=1e-4)
    assert losses[chunked_loss][2] < losses[chunked_loss][0]
    got, want = (models[loss].eval()(*SOME) for loss in (chunked_loss, translation_loss))
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("loss", [translation_loss, chunked_loss])
def test_a_loss_in_bfloat16_is_nearly_the_loss(loss: Callable) -> None:
    model = small_model()
    want = loss(model, batch(), 0.1)
    with Calls() as calls:
        got = in_bfloat16(loss)(model, batch(), 0.1)
    assert torch.bfloat16 in calls.products
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, atol=0.05, rtol=0.05)
    assert not torch.is_autocast_enabled("cpu")
    got.backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


# --- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_cheap_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    dropout = CheapDropout(p)
    x = torch.ones(300, 1001)
    out = dropout(x)
    assert abs((out == 0).float().mean().item() - p) < 0.005
    assert abs(out.mean().item() - 1) < 0.01
    assert len(out.unique()) == 2, "what is kept is scaled, all of it alike"
    assert not dropout(x).equal(out), "and it is drawn anew each time"


def test_cheap_dropout_does_nothing_in_eval_mode_and_at_zero() -> None:
    x = torch.randn(3, 5)
    assert CheapDropout(0.5).eval()(x).equal(x)
    assert CheapDropout(0.0)(x).equal(x)
    assert CheapDropout(0.5)(x.half()).dtype == torch.float16


def test_cheap_dropout_hands_the_gradient_to_what_was_kept() -> None:
    x = torch.ones(40, 25, requires_grad=True)
    out = CheapDropout(0.25)(x)
    out.sum().backward()
    assert x.grad.equal(out.detach())


def test_neighbours_are_dropped_independently() -> None:
    """Four features share one random word."""
    dropped = (CheapDropout(0.5)(torch.ones(4000, 4)) == 0).float()
    together = torch.corrcoef(dropped.mT) - torch.eye(4)
    assert together.abs().max() < 0.1


def test_cheap_dropout_follows_the_seed() -> None:
    dropout = CheapDropout(0.3)
    torch.manual_seed(5)
    first = dropout(torch.ones(7, 9))
    torch.manual_seed(5)
    assert dropout(torch.ones(7, 9)).equal(first)


# --- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [3, 15, 16, 17, 200])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_attention_is_attention_however_many_keys(keys, masked: bool, dtype) -> None:
    q, k, v = (torch.randn(2, 3, n, 8, dtype=dtype) for n in (6, keys, keys))
    mask = (torch.rand(2, 1, 6, keys) < 0.6) if masked else None
    if masked:
        mask[1, 0, 2] = False
    got = short_attention(q, k, v, mask)
    want = attention(q.float(), k.float(), v.float(), mask)
    assert got.dtype == dtype
    atol = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(got.float(), want, atol=atol, rtol=0.01)


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 3, 1, 5), (1, 1, 6, 1), (2, 1, 1, 5)], ids=str)
def test_a_mask_of_short_attention_may_be_of_any_shape_that_fits(shape: tuple[int, ...]) -> None:
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (6, 5, 5))
    mask = torch.arange(math.prod(shape)).reshape(shape) % 2 == 0
    got, want = (function(q, k, v, mask) for function in (short_attention, attention))
    same(got.square().sum(), want.square().sum(), (q, k, v), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("t", [1, 2, 32, 33, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_last_row_of_a_causal_mask_is_enough(t: int, dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, 3, t, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    real = torch.ones(2, 1, 1, t, dtype=torch.bool)
    real[0, ..., t // 2 + 1 :] = False
    real[1, ..., : t // 4] = False  # the first positions may attend to nothing
    mask = real & causal_mask(t)
    weights = torch.randn(q.shape, dtype=dtype)
    got, want = (function(q, k, v, mask) for function in (causal_attention, short_attention))
    assert got.dtype == dtype
    torch.testing.assert_close(got, want)
    wanted = torch.autograd.grad(want, (q, k, v), weights)
    for a, b in zip(torch.autograd.grad(got, (q, k, v), weights), wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("t", "long"), [(32, False), (33, True)])
def test_only_long_sentences_need_the_kernel(t: int, long: bool, monkeypatch) -> None:
    kernels = []
    monkeypatch.setattr(
        fast_training, "causal_flash_attention", lambda q, *rest: kernels.append(q) or q
    )
    q = torch.randn(2, 3, t, 8)
    causal_attention(q, q, q, causal_mask(t).expand(2, 1, t, t))
    assert len(kernels) == long


@pytest.mark.parametrize("function", [short_attention, causal_attention])
def test_under_autocast_attention_is_in_float32(function: Callable) -> None:
    q, k, v = (torch.randn(2, 3, 40, 8) for _ in range(3))
    mask = causal_mask(40).expand(2, 1, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        got = function(q, k, v, mask)
    torch.testing.assert_close(got, attention(q, k, v, mask))


# --- the faster model ----------------------------------------------------------------------------


def held_for_backward(model: Transformer, t: int) -> int:
    """Return the bytes of the different tensors that a step of training keeps."""
    sizes = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    src, tgt = torch.randint(3, 11, (2, 1, t))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        states = model.decoder_states(tgt, model.encode(src), src)
    assert states.requires_grad
    return sum(sizes.values())


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    plain_model = small_model(max_len=1024).train()
    fast = optimize_for_cpu(plain_model)
    growth = {
        model: held_for_backward(model, 1024) / held_for_backward(model, 512)
        for model in (plain_model, fast)
    }
    assert growth[fast] < 2.05
    assert growth[plain_model] > 2.5


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("t", [5, 20, 70])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "autocast"])
def test_the_fast_model_is_the_plain_one_at_every_length(t: int, half: bool, norm: str) -> None:
    model = small_model(max_len=100, norm=norm)
    src, tgt = torch.randint(3, 11, (2, 3, t))
    src[0, t // 2 :] = 0
    tgt[1, t // 3 :] = 0
    want = model(src, tgt)
    fast = optimize_for_cpu(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        got = fast(src, tgt)
    atol, rtol = (0.1, 0.1) if half else (1e-5, 1e-4)
    torch.testing.assert_close(got.float(), want, atol=atol, rtol=rtol)
    if not half:
        parameters = list(model.parameters())
        wanted = torch.autograd.grad(want.square().sum(), parameters)
        gradients = torch.autograd.grad(got.square().sum(), parameters)
        for a, b in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("t", [12, 40], ids=["short", "long"])
@pytest.mark.parametrize("fast", [False, True])
def test_future_tokens_do_not_leak(t: int, fast: bool) -> None:
    model = small_model(max_len=50)
    model = optimize_for_cpu(model) if fast else model
    src, tgt = torch.randint(3, 11, (2, 2, t))
    changed = tgt.clone()
    changed[:, t - 4 :] = 3 + (tgt[:, t - 4 :] - 2) % 8
    assert not changed[:, t - 4 :].eq(tgt[:, t - 4 :]).any()
    before, after = (model(src, ids) for ids in (tgt, changed))
    torch.testing.assert_close(before[:, : t - 4], after[:, : t - 4], atol=1e-5, rtol=1e-5)
    assert (before[:, t - 4] - after[:, t - 4]).abs().max() > 0.01


def description(model: Transformer) -> list[tuple]:
    """Return what optimizing a model could change in the model itself."""
    return [
        (name, type(module), module.training, getattr(module, "attention_fn", None), id(module))
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize("training", [True, False])
def test_the_argument_stays_as_it_is(training: bool) -> None:
    model = small_model(dropout=0.3).train(training)
    before = description(model)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    fast = optimize_for_cpu(model)
    fast.train(not training)
    assert description(model) == before
    assert all(model.state_dict()[name].equal(tensor) for name, tensor in tensors.items())
    assert torch.get_rng_state().equal(random_state)


@pytest.mark.parametrize("training", [True, False])
def test_the_result_has_the_mode_of_every_module(training: bool) -> None:
    model = small_model(dropout=0.3).train(training)
    model.encoder.train(not training)
    fast = dict(optimize_for_cpu(model).named_modules())
    for name, module in model.named_modules():
        assert fast[name].training == module.training, name


def test_the_parts_of_the_fast_model_are_faster_ones() -> None:
    fast = optimize_for_cpu(small_model(dropout=0.3))
    modules = list(fast.modules())
    assert not [module for module in modules if type(module) in (nn.Dropout, nn.Linear)]
    assert {module.p for module in modules if isinstance(module, CheapDropout)} == {0.3}
    assert any(isinstance(module, FastLinear) for module in modules)
    masked = [layer.self_attention for layer in fast.decoder.layers]
    for module in modules:
        if isinstance(module, MultiHeadAttention):
            want = causal_attention if module in masked else short_attention
            assert module.attention_fn is want


def test_parameters_and_buffers_are_shared() -> None:
    model = small_model()
    fast = optimize_for_cpu(model)
    for named in (Transformer.named_parameters, Transformer.named_buffers):
        mine, theirs = dict(named(fast)), dict(named(model))
        assert list(mine) == list(theirs)
        assert all(mine[name] is theirs[name] for name in mine)
    assert list(fast.state_dict()) == list(model.state_dict())
    assert fast.config == model.config


def test_training_the_fast_model_trains_the_plain_one() -> None:
    model = small_model()
    fast = optimize_for_cpu(model)
    trainer = Trainer(fast, TrainingConfig(peak_lr=1e-2, warmup=1), loss=chunked_loss)
    before = model(batch().src, batch().tgt)
    trainer.step(batch())
    after = model(batch().src, batch().tgt)
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(fast.eval()(batch().src, batch().tgt), after, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_of_one_fits_the_other() -> None:
    model = small_model()
    other = small_model()
    fast = optimize_for_cpu(model)
    fast.load_state_dict(other.state_dict())
    assert model(*SOME).equal(other(*SOME))
    other.load_state_dict(fast.state_dict())


def test_optimizing_changes_nothing_in_eval_mode() -> None:
    model = small_model(dropout=0.3)
    torch.testing.assert_close(optimize_for_cpu(model)(*SOME), model(*SOME))


def test_optimizing_twice_is_optimizing_once() -> None:
    fast = optimize_for_cpu(small_model(dropout=0.3))
    twice = optimize_for_cpu(fast)
    assert [type(module) for module in twice.modules()] == [type(m) for m in fast.modules()]
    assert twice(*SOME).equal(fast(*SOME))


def test_in_training_the_fast_model_drops_features() -> None:
    fast = optimize_for_cpu(small_model(dropout=0.3).train())
    assert not fast(*SOME).equal(fast(*SOME))


def test_a_deep_copy_of_the_fast_model_shares_nothing_with_it() -> None:
    fast = optimize_for_cpu(small_model())
    twin = copy.deepcopy(fast)
    before = fast(*SOME)
    assert twin(*SOME).equal(before)
    mine = {tensor.data_ptr() for tensor in (*fast.parameters(), *fast.buffers())}
    theirs = {tensor.data_ptr() for tensor in (*twin.parameters(), *twin.buffers())}
    assert not mine & theirs
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert fast(*SOME).equal(before)


def test_another_attention_stays_another_attention() -> None:
    def backwards(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return attention(-q, k, v, mask)

    model = small_model()
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.attention_fn = backwards
    torch.testing.assert_close(optimize_for_cpu(model)(*SOME), model(*SOME))


def test_frozen_parameters_stay_frozen() -> None:
    model = small_model()
    model.encoder.requires_grad_(False)
    optimize_for_cpu(model)(*SOME).sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, _ in model.named_parameters() if not n.startswith("encoder.")}
