"""No public function of the library changes its arguments or what the process shares.

Every public function and class is called between two snapshots of what the caller holds and of the
global state of PyTorch and Python (`public_calls.py`). Public are the names without an underscore
that a chapter, `files`, `metrics` or `translator` defines, and those that a package lists in
`__all__`. A new one fails until it is called there, or is exempt here for a reason.
"""

import contextlib
import importlib
import os
import random
import re
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from public_calls import CASES, Case, World, make_world
from snapshots import changes, everything
from test_layout import CHAPTERS
from test_zoo import RIGHT
from torch import nn

from transformer import checks, data, recipes, training
from transformer.fast_training import chunked_loss, optimize_for_cpu
from transformer.model import Config, Transformer
from transformer.multi_head import head_weights

MODULES = [*CHAPTERS, "alignment", "files", "reader", "sampling", "texts", "translator"]
PACKAGES = [
    "corpora",
    "engines",
    "metrics",
    "recipes",
    "checks",
    "course",
    "zoo",
    "example",
    "explorer",
]
EXEMPT = {
    "checks.CheckError": "an exception",
    "course.use_folder": "it is there to change the search path (tests/test_course_folder.py)",
    "course.translate_with": "it calls use_folder",
    "distributed.DistributedLoss": "needs several processes (tests/test_distributed.py)",
    "engines.Engine": "a protocol, without code",
    "engines.Hypothesis": "a tuple",
    "engines.Search": "a frozen dataclass of numbers",
    "translator.Translation": "a tuple",
    "reader.refuse": "raises an exception",
    "texts.BytesStream": "a protocol, without code",
    "fast_decoding.PackedStep": "a part of PackedDecoder, and run with it",
    "fast_decoding.AbsorbedCrossAttention": "a part of PackedDecoder, and run with it",
    "fast_decoding.PackedSource": "a part of PackedDecoder, and run with it",
    "fast_decoding.StaticCache": "a part of StaticDecoder, and run with it",
    "metrics.Difference": "a tuple",
    "recipes.fine_tune": "needs the extra pretrained (tests/test_fine_tuning.py)",
    "pretrained.load_pretrained": "needs the extra pretrained (tests/test_pretrained.py)",
    "translator.PublishedTranslator": "needs the extra pretrained (tests/test_pretrained.py)",
    "recipes.trained_translator": "tried below, with a corpus that takes a second",
}


def public_names() -> set[str]:
    """Return the public functions and classes of the library, such as `inference.sample`."""
    found = set()
    for module in MODULES:
        loaded = importlib.import_module(f"transformer.{module}")
        listed = set(getattr(loaded, "__all__", ()))
        for name, thing in vars(loaded).items():
            mine = is_defined(thing) and thing.__module__ == loaded.__name__
            if name in listed or (mine and not name.startswith("_")):
                found.add(f"{module}.{name}")
    for package in PACKAGES:
        loaded = importlib.import_module(f"transformer.{package}")
        listed = [name for name in loaded.__all__ if is_defined(getattr(loaded, name))]
        found |= {f"{package}.{name}" for name in listed}
    return found


def is_defined(thing: object) -> bool:
    """Return whether something is a function or a class, and no alias such as `tuple[int, int]`."""
    kept = isinstance(thing, types.FunctionType | type) or hasattr(thing, "__wrapped__")
    return kept and not isinstance(thing, types.GenericAlias)


def test_every_public_name_is_called_or_exempt() -> None:
    called = {name for case in CASES.values() for name in case.names}
    called |= {f"checks.{name}" for name in RIGHT}
    assert public_names() - called - set(EXEMPT) == set()
    assert (called | set(EXEMPT)) - public_names() == set(), "these names are gone"
    assert called & set(EXEMPT) == set(), "no exception is needed for these"


def test_a_new_function_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def new() -> None: ...

    new.__module__ = "transformer.data"
    monkeypatch.setattr(data, "new", new, raising=False)
    monkeypatch.setattr(data, "_hidden", new, raising=False)
    monkeypatch.setattr(data, "imported", training.Trainer, raising=False)
    assert "data.new" in public_names()
    assert not {"data._hidden", "data.imported"} & public_names()


# --- every call -----------------------------------------------------------------------------------


@pytest.fixture
def nothing(types_are_checked: bool) -> str:
    """What may change in spite of all: beartype draws which item of a list it checks."""
    return r"global\.random\.python" if types_are_checked else "nothing"


@pytest.fixture
def mode() -> str:
    return "training"


@pytest.fixture
def world(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("TRANSFORMER_CACHE", str(tmp_path / "cache"))
    return make_world(tmp_path, mode)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Set PyTorch's number of threads, and set it back."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def unexpected(found: list[str], may_change: str, draws: bool) -> list[str]:
    """Return the changes that a call has no leave to make."""
    allowed = re.compile(may_change)
    kept = [path for path in found if not allowed.fullmatch(path)]
    return [path for path in kept if path != "global.random.torch" or not draws]


EACH = [
    pytest.param(case, mode, id=f"{name}-{mode}", marks=case.marks)
    for name, case in CASES.items()
    for mode in case.modes
]


@pytest.mark.parametrize(("case", "mode"), EACH)
def test_a_call_changes_nothing(case: Case, mode: str, world: World, nothing: str) -> None:
    pytest.importorskip(case.needs)  # before the snapshot: what an import sets is not ours
    with threads(case.threads):
        before = world.snapshot()
        case.run(world)
        found = changes(before, world.snapshot())
    assert unexpected(found, f"{case.may_change}|{nothing}", mode in case.draws) == []


@pytest.mark.parametrize("name", RIGHT)
def test_a_check_changes_nothing(name: str, nothing: str) -> None:
    implementation = RIGHT[name]
    before = everything(implementation=implementation)
    getattr(checks, name)(implementation)
    found = changes(before, everything(implementation=implementation))
    assert unexpected(found, nothing, draws=False) == []


def test_training_the_courses_translator_changes_nothing(
    world: World, nothing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = importlib.import_module("transformer.recipes.course")
    monkeypatch.setattr(course, "english_italian", lambda: world.corpus)
    monkeypatch.setattr(course, "ENGLISH_ITALIAN", world.preset)
    before = world.snapshot()
    recipes.trained_translator("toy")
    assert unexpected(changes(before, world.snapshot()), nothing, draws=False) == []


# --- what would be seen ---------------------------------------------------------------------------


def set_environment(w: World) -> None:
    os.environ["TRANSFORMER_CACHE"] = "elsewhere"


def replace_a_module(w: World) -> None:
    w.model.dropout = nn.Dropout(0.2).train(w.model.training)


def patch_a_method(w: World) -> None:
    w.model.target_mask = lambda tgt: None


def leave_a_hook(w: World) -> None:
    w.model.encoder.register_forward_hook(lambda *given: None)


def add_a_token(w: World) -> None:
    w.tokenizer.add_tokens(["new"])


def move_a_weight(w: World) -> None:
    with torch.no_grad():
        w.model.decoder.layers[1].self_attention.w_q.weight[0, 0] += 1e-6


def move_a_buffer(w: World) -> None:
    w.model.positions.table[3, 2] += 1e-6


def freeze(w: World) -> None:
    w.model.bias.requires_grad_(False)


def replace_equal_weights(w: World) -> None:
    w.model.bias = nn.Parameter(w.model.bias.detach().clone())


HARMS = {
    "model.training": lambda w: setattr(w.model, "training", not w.model.training),
    "model.encoder.layers.0.training": lambda w: w.model.encoder.layers[0].train(),
    "model.decoder.layers.1.self_attention.attention_fn": lambda w: setattr(
        w.model.decoder.layers[1].self_attention, "attention_fn", print
    ),
    "model.target_mask": patch_a_method,
    "model.dropout": replace_a_module,
    "model.encoder._forward_hooks.keys": leave_a_hook,
    "model.decoder.layers.1.self_attention.w_q.weight.data": move_a_weight,
    "model.positions.table.data": move_a_buffer,
    "model.bias.requires_grad": freeze,
    "model.bias.data": replace_equal_weights,
    "model.bias.grad": lambda w: w.model.bias.sum().backward(),
    "tokenizer": add_a_token,
    "src.data": lambda w: w.batch.src.fill_(3),
    "texts.keys": lambda w: w.texts.append("more"),
    "corpus.train.keys": lambda w: w.corpus.train.pop(),
    "id_pairs.0.0.0": lambda w: w.id_pairs[0][0].__setitem__(0, 9),
    "preset.sizes.keys": lambda w: w.preset.sizes.popitem(),
    "trainer.steps": lambda w: setattr(w.trainer, "steps", 9),
    "trainer.ema_model.bias.data": lambda w: w.trainer.ema_model.bias.add_(1),
    "global.torch.get_default_dtype": lambda w: torch.set_default_dtype(torch.float64),
    "global.torch.get_num_threads": lambda w: torch.set_num_threads(5),
    "global.torch.is_grad_enabled": lambda w: torch.set_grad_enabled(False),
    "global.torch.get_default_device": lambda w: torch.set_default_device("meta"),
    "global.torch.backends.mkldnn.enabled": lambda w: torch.backends.mkldnn.set_flags(False),
    "global.random.torch": lambda w: torch.rand(1),
    "global.random.python": lambda w: random.random(),
    "global.environment": set_environment,
    "global.folder": lambda w: os.chdir(w.folder),
    "global.warnings": lambda w: warnings.simplefilter("ignore"),
}


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the harms below do to the process."""
    monkeypatch.chdir(os.getcwd())
    state = random.getstate()
    with torch.backends.mkldnn.flags(True), warnings.catch_warnings(), threads(1):
        yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    random.setstate(state)


@pytest.mark.parametrize("path", HARMS)
def test_a_change_is_seen(path: str, world: World, restored: None) -> None:
    before = world.snapshot()
    HARMS[path](world)
    found = changes(before, world.snapshot())
    torch.set_default_device(None)
    assert path in found
    assert path in unexpected(found, "nothing", draws=False)


def test_what_is_allowed_is_allowed_alone() -> None:
    found = ["global.random.torch", "model.bias.data", "model.config"]
    assert unexpected(found, r"model\..*\.data", draws=True) == ["model.config"]
    assert unexpected(found[:1], "nothing", draws=False) == found[:1]


# --- what once went wrong -------------------------------------------------------------------------


def small(mode: str, **changes) -> Transformer:
    sizes = dict(d_model=16, n_heads=2, n_layers=2, d_ff=24, max_len=48, dropout=0.3) | changes
    return Transformer(Config(19, **sizes)).train(mode == "training")


def make_fast_trainer(model: Transformer) -> tuple[Transformer, training.Trainer]:
    fast = optimize_for_cpu(model)
    return fast, training.Trainer(fast, training.TrainingConfig(), chunked_loss)


def make_recipes_trainer(model: Transformer) -> tuple[Transformer, training.Trainer]:
    trainer = recipes.fast_trainer(model, training.TrainingConfig())
    return trainer.model, trainer


@pytest.mark.parametrize("make", [make_fast_trainer, make_recipes_trainer])
@pytest.mark.parametrize("t", [5, 40], ids=["short", "long"])
def test_a_causal_map_shows_no_future_after_a_trainer_was_made(make: Callable, t: int) -> None:
    model = small("eval")
    fast, trainer = make(model)
    tgt = torch.randint(3, 19, (2, t))
    for each in (model, fast, trainer.ema_model):
        x = each.embed(tgt)
        for layer in each.decoder.layers:
            weights = head_weights(layer.self_attention, x, x, each.target_mask(tgt))
            assert weights.triu(1).count_nonzero() == 0
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, t))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("t", [5, 40], ids=["short", "long"])
def test_the_optimized_model_computes_the_same_in_eval_mode(norm: str, t: int) -> None:
    model = small("eval", norm=norm)
    src = torch.randint(3, 19, (3, t + 2))
    tgt = torch.randint(3, 19, (3, t))
    src[0, 3:] = 0
    tgt[1, 4:] = 0
    fast = optimize_for_cpu(model)
    torch.testing.assert_close(fast(src, tgt), model(src, tgt), atol=1e-5, rtol=1e-5)
    assert not any(module.training for module in fast.modules()), "dropout stays off"


@pytest.mark.parametrize("mode", ["training", "eval"])
def test_the_optimized_model_keeps_flags_and_shares_parameters(mode: str) -> None:
    model = small(mode)
    model.decoder.layers[1].train(mode == "eval")  # one layer in the other mode
    fast = optimize_for_cpu(model)
    flags = {name: module.training for name, module in model.named_modules()}
    assert {name: module.training for name, module in fast.named_modules()} == flags
    for kind in ("named_parameters", "named_buffers"):
        mine = dict(getattr(model, kind)())
        shared = dict(getattr(fast, kind)())
        assert mine.keys() == shared.keys()
        assert all(mine[name] is shared[name] for name in mine)
