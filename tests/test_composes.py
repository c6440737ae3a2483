"""The model works with the rest of PyTorch: export, compile, vmap, pickles, second derivatives."""

import copy
import pickle
import shutil
from collections.abc import Callable

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.export import Dim
from torch.func import functional_call, stack_module_state, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from transformer import Config, Transformer
from transformer.cpu.linear import LARGE_WEIGHT, FastLinear
from transformer.data import Batch, train_tokenizer
from transformer.fast_training import (
    SHORT,
    chunked_cross_entropy,
    chunked_loss,
    in_bfloat16,
    optimize_for_cpu,
)
from transformer.training import Trainer, TrainingConfig, translation_loss
from transformer.translator import Translator

V = 19
# What vmap says about PyTorch's fused attention, which it runs in a loop.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")
both_norms = pytest.mark.parametrize("norm", ["post", "pre"])
takes_seconds = pytest.mark.translator


def small(seed: int = 0, **changes) -> Transformer:
    """Return a small model in eval mode; in training mode it would have dropout."""
    torch.manual_seed(seed)
    sizes = dict(d_model=8, n_heads=2, n_layers=2, d_ff=16, max_len=32, dropout=0.3) | changes
    return Transformer(Config(V, **sizes)).eval()


def ids(*shape: int, padded: int = 0) -> Tensor:
    """Return random token ids; the first sentence ends in padding."""
    found = torch.randint(3, V, shape)
    found[0, ..., found.shape[-1] - padded :] = 0
    return found


# --- torch.export and torch.compile ---------------------------------------------------------------


@pytest.fixture
def traceable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off what checks signatures in the tests, because it cannot be traced."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch.compiler.reset()


@takes_seconds
@both_norms
def test_it_exports_with_any_batch_and_any_lengths(norm: str, traceable: None) -> None:
    model = small(norm=norm)
    b, k, t = Dim("b", min=2, max=64), Dim("k", min=2, max=32), Dim("t", min=2, max=32)
    shapes = {"src": {0: b, 1: k}, "tgt": {0: b, 1: t}}
    program = torch.export.export(model, (ids(2, 7), ids(2, 5)), dynamic_shapes=shapes)
    exported = program.module()
    for sizes in ((2, 7, 5), (3, 4, 9), (17, 32, 2), (5, 6, 6)):
        src = ids(sizes[0], sizes[1], padded=1)
        tgt = ids(sizes[0], sizes[2], padded=1)
        torch.testing.assert_close(exported(src, tgt), model(src, tgt))


@takes_seconds
@both_norms
def test_it_compiles_into_one_graph(norm: str, traceable: None) -> None:
    model = small(norm=norm, n_layers=1)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for sizes in ((2, 7, 5), (3, 4, 9)):
        src = ids(sizes[0], sizes[1])
        tgt = ids(sizes[0], sizes[2])
        torch.testing.assert_close(compiled(src, tgt), model(src, tgt))


@takes_seconds
def test_a_compiled_model_learns_as_the_plain_one(traceable: None) -> None:
    model = small(dropout=0.0, n_layers=1).train()
    src = ids(2, 7, padded=2)
    tgt = ids(2, 5, padded=1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    parameters = tuple(model.parameters())
    want = torch.autograd.grad(model(src, tgt).square().mean(), parameters)
    found = torch.autograd.grad(compiled(src, tgt).square().mean(), parameters)
    torch.testing.assert_close(found, want)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler")
def test_inductor_computes_the_same(traceable: None) -> None:
    model = small()
    src = ids(2, 7, padded=2)
    tgt = ids(2, 5, padded=1)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(src, tgt), model(src, tgt))


# --- torch.func -----------------------------------------------------------------------------------


@both_norms
def test_vmap_over_batches_is_a_loop_over_them(norm: str) -> None:
    model = small(norm=norm)
    src = ids(3, 2, 7, padded=2)
    tgt = ids(3, 2, 5, padded=1)
    want = torch.stack([model(s, t) for s, t in zip(src, tgt)])
    torch.testing.assert_close(vmap(model)(src, tgt), want)


def test_one_call_runs_several_models() -> None:
    models = [small(seed) for seed in range(3)]
    src = ids(2, 7, padded=2)
    tgt = ids(2, 5, padded=1)
    parameters, buffers = stack_module_state(models)
    plain = copy.deepcopy(models[0]).to("meta")

    def run(weights: dict[str, Tensor], others: dict[str, Tensor]) -> Tensor:
        return functional_call(plain, (weights, others), (src, tgt))

    want = torch.stack([model(src, tgt) for model in models])
    torch.testing.assert_close(vmap(run)(parameters, buffers), want)
    assert not want[0].allclose(want[1])


def test_gradients_of_each_sentence_are_had_at_once() -> None:
    model = small(dropout=0.0)
    weights = dict(model.named_parameters())
    src = ids(3, 7, padded=2)
    tgt = ids(3, 5, padded=1)

    def loss(weights: dict[str, Tensor], source: Tensor, target: Tensor) -> Tensor:
        return functional_call(model, weights, (source[None], target[None])).square().mean()

    found = vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, src, tgt)
    for i in range(3):
        want = torch.autograd.grad(loss(weights, src[i], tgt[i]), tuple(weights.values()))
        got = tuple(gradient[i] for gradient in found.values())
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


# --- copies and pickles ---------------------------------------------------------------------------


def pickled(thing: object) -> object:
    return pickle.loads(pickle.dumps(thing))


each_copy = pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])


@each_copy
def test_a_copy_of_the_model_computes_the_same_on_weights_of_its_own(duplicate: Callable) -> None:
    model = small()
    src = ids(2, 7)
    tgt = ids(2, 5)
    want = model(src, tgt)
    twin = duplicate(model)
    torch.testing.assert_close(twin(src, tgt), want, atol=0, rtol=0)
    with torch.no_grad():
        model.bias.add_(1)
    torch.testing.assert_close(twin(src, tgt), want, atol=0, rtol=0)
    assert twin.config == model.config
    assert twin.train().training and not model.training


@each_copy
def test_a_copy_of_the_optimized_model_computes_the_same(duplicate: Callable) -> None:
    model = optimize_for_cpu(small())
    src = ids(2, 7)
    tgt = ids(2, 5)
    torch.testing.assert_close(duplicate(model)(src, tgt), model(src, tgt), atol=0, rtol=0)


@each_copy
def test_a_copy_of_a_translator_translates_the_same(duplicate: Callable) -> None:
    texts = ["the cat is on the mat", "a dog", "il gatto è sul tappeto </s>"]
    tokenizer = train_tokenizer(texts * 3, 40)
    model = Transformer(Config.tiny(tokenizer.get_vocab_size(), n_layers=1, max_len=32)).eval()
    translator = Translator(model, tokenizer)
    want = translator.translate(texts, beam_size=3)
    twin = duplicate(translator)
    assert twin.translate(texts, beam_size=3) == want
    assert twin.model is not model
    assert twin.tokenizer.encode(texts[-1]).ids == tokenizer.encode(texts[-1]).ids


# --- no numbers are read in forward ---------------------------------------------------------------


class NothingIsRead(TorchDispatchMode):
    """Raise where a tensor's numbers would travel to Python: on a GPU each of these waits."""

    READERS = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in self.READERS or name.startswith("unique") or by_mask:
            raise AssertionError(f"{func} reads numbers of a tensor")
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("optimize", [lambda model: model, optimize_for_cpu], ids=["plain", "fast"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("t", [5, 40], ids=["short", "long"])
def test_forward_and_backward_read_no_numbers(optimize: Callable, training: bool, t: int) -> None:
    assert 5 * 5 < SHORT < 40 * 40, "both ways of the fast attention are run"
    model = optimize(small(max_len=64).train(training))
    src = ids(2, t + 2, padded=2)
    tgt = ids(2, t, padded=1)
    model(src, tgt)  # probes are run here, once for a process
    with NothingIsRead():
        model(src, tgt).sum().backward()


def test_forward_needs_no_numbers_at_all() -> None:
    model = small().to("meta")
    assert model(ids(2, 7).to("meta"), ids(2, 5).to("meta")).shape == (2, 5, V)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: float(x.max()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.equal(x),
        lambda x: range(int(x[0])),
    ],
)
def test_reading_a_number_is_seen(read: Callable) -> None:
    x = torch.tensor([1, 0, 2])
    with NothingIsRead():
        x + x[:1]
        with pytest.raises(AssertionError, match="reads numbers"):
            read(x)


@pytest.mark.gpu
def test_forward_on_a_gpu_waits_for_nothing() -> None:
    model = small().cuda()
    src = ids(2, 7, padded=2).cuda()
    tgt = ids(2, 5, padded=1).cuda()
    model(src, tgt)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(src, tgt)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- second derivatives ---------------------------------------------------------------------------


def inputs_of_the_loss() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = torch.randn(6, 8, requires_grad=True)
    weight = torch.randn(V, 8, requires_grad=True)
    return x, weight, torch.randn(V, requires_grad=True), torch.randint(1, V, (6,))


def derive_twice(output: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of the squared gradient of x."""
    (gradient,) = torch.autograd.grad(output, x, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), (x, weight))


def penalize(output: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of the output plus the squared gradient of x (a gradient penalty)."""
    (gradient,) = torch.autograd.grad(output, x, create_graph=True)
    return torch.autograd.grad(output + gradient.square().sum(), (x, weight))


def penalize_backwards(output: Tensor, x: Tensor, weight: Tensor) -> None:
    """Put the same gradients into .grad."""
    (gradient,) = torch.autograd.grad(output, x, create_graph=True)
    (output + gradient.square().sum()).backward()


each_way = pytest.mark.parametrize("derive", [derive_twice, penalize, penalize_backwards])


@each_way
def test_a_second_derivative_of_the_chunked_loss_is_refused(derive: Callable) -> None:
    x, weight, bias, labels = inputs_of_the_loss()
    loss = chunked_cross_entropy(x, weight, bias, labels, 0)
    with pytest.raises(RuntimeError):
        derive(loss, x, weight)


@each_way
@pytest.mark.parametrize("power", [1, 2], ids=["sum", "squares"])
def test_a_second_derivative_of_onednns_product_is_refused(derive: Callable, power: int) -> None:
    linear = FastLinear(torch.nn.Linear(512, LARGE_WEIGHT // 512))
    x = torch.randn(3, 512, requires_grad=True)
    if "OneDNN" not in str(linear(x).grad_fn):
        pytest.skip("no oneDNN here")
    output = linear(x).pow(power).sum()
    with pytest.raises(RuntimeError):
        derive(output, x, linear.weight)


@each_way
def test_a_second_derivative_of_the_plain_forms_is_right(derive: Callable) -> None:
    x = torch.ones(2, requires_grad=True)
    weight = torch.full((2,), 3.0, requires_grad=True)
    found = derive((weight * x**2).sum(), x, weight)
    first = {derive_twice: 0, penalize: 6, penalize_backwards: 6}[derive]
    second = (x.grad if found is None else found[0]) - first
    torch.testing.assert_close(second, torch.full((2,), 72.0))  # (2wx)² has 8w²x


# --- validation makes no gradients ----------------------------------------------------------------


class Products(TorchDispatchMode):
    """Count the matrix products that have the vocabulary as one of their three sizes."""

    NAMES = ("mm", "addmm", "bmm", "baddbmm", "linear", "_linear_pointwise", "mv", "dot")

    def __init__(self, v: int):
        super().__init__()
        self.v = v
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if func.overloadpacket.__name__ in self.NAMES:
            shapes = [tuple(x.shape) for x in (*args, result) if isinstance(x, Tensor)]
            self.count += any(self.v in shape and len(shape) > 1 for shape in shapes)
        return result


def batch_of(count: int) -> Batch:
    return Batch(ids(count, 7, padded=2), ids(count, 6, padded=1))


def products_of(run: Callable) -> int:
    with Products(V) as products:
        run()
    return products.count


@pytest.mark.parametrize("chunk, chunks", [(2, 3), (4, 2), (100, 1)])
def test_without_gradients_there_is_one_product_a_chunk(chunk: int, chunks: int) -> None:
    x, weight, bias, labels = inputs_of_the_loss()

    def loss() -> Tensor:
        return chunked_cross_entropy(x, weight, bias, labels, 0, 0.1, chunk)

    with torch.no_grad():
        assert products_of(loss) == chunks
        value = loss()
    assert products_of(loss) >= 3 * chunks, "logits, and the gradients of both factors"
    torch.testing.assert_close(value, loss())


@pytest.mark.parametrize(
    "loss",
    [translation_loss, chunked_loss, in_bfloat16(chunked_loss)],
    ids=["plain", "chunked", "half"],
)
def test_validation_makes_no_gradients(loss: Callable) -> None:
    trainer = Trainer(small().train(), TrainingConfig(), loss)
    batch = batch_of(3)
    trainer.step(batch)
    models = (trainer.model, trainer.ema_model)
    before = [p.grad if p.grad is None else p.grad.clone() for m in models for p in m.parameters()]
    trainer.validate([batch])
    assert products_of(lambda: trainer.validate([batch])) == 1
    after = [p.grad for m in models for p in m.parameters()]
    assert after[-1] is None
    assert all(a is b is None or a.equal(b) for a, b in zip(after, before))
    assert products_of(lambda: trainer.step(batch)) >= 3, "a step has products that it does not"
