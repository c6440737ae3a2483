"""Test Muon: its steps are PyTorch's, only the layers' matrices take them, and a run can resume."""

import copy
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from several import in_processes, needs_fork
from test_recipes import equal_files, make_corpus, preset, stop_after
from torch import Tensor, nn

from transformer.checks.fixtures import small_model
from transformer.ranks import joined
from transformer.recipes import Preset, Techniques, checkpoints, fit
from transformer.recipes.muon import Muon, all_orthogonalized, orthogonalized


def adam_of(parameters, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.98), eps=1e-9, fused=True)


def set_gradients(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)


def with_muon(settings: Preset, factor: float = 1.0) -> Preset:
    return replace(settings, techniques=Techniques(muon=factor))


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_all_directions_become_about_equally_long_and_stay_where_they_were(shape) -> None:
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    sizes = torch.logspace(0, -2, min(shape))  # the largest is a hundred times the smallest
    result = u.T @ orthogonalized(5 * u * sizes @ vh) @ vh.T
    found = result.diagonal()
    assert found.min() > 0.6
    assert found.max() < 1.3
    torch.testing.assert_close(result, torch.diag(found), atol=1e-4, rtol=0)


def test_what_is_left_is_the_matrix_without_its_singular_values() -> None:
    torch.manual_seed(0)
    for shape in [(128, 128), (256, 128), (128, 256)]:
        matrix = torch.randn(shape)
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        assert torch.cosine_similarity(orthogonalized(matrix).ravel(), (u @ vh).ravel(), 0) > 0.95


def test_a_matrix_of_zeros_stays() -> None:
    torch.testing.assert_close(orthogonalized(torch.zeros(4, 4)), torch.zeros(4, 4))


def five_rounds(matrix: Tensor) -> Tensor:
    """The matrix as `torch.optim.Muon` orthogonalizes it: five rounds of the same polynomial."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / x.norm()
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
    return x.mT if tall else x


def test_the_step_is_that_of_pytorchs_muon(monkeypatch) -> None:
    monkeypatch.setattr("transformer.recipes.muon.orthogonalized", five_rounds)
    start = small_model()
    ours, theirs = copy.deepcopy(start), copy.deepcopy(start)
    adam = adam_of(ours.parameters())
    adam.register_step_pre_hook(Muon(ours, 0.5))
    layers = [*theirs.encoder.layers.parameters(), *theirs.decoder.layers.parameters()]
    matrices = [weight for weight in layers if weight.ndim == 2]
    muon = torch.optim.Muon(
        matrices, lr=0.05, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(3):
        for model in (ours, theirs):
            set_gradients(model, seed)
        adam.step()
        muon.step()
    for name, weight in theirs.named_parameters():
        if any(weight is matrix for matrix in matrices):
            before = start.get_parameter(name)
            moved, wanted = ours.get_parameter(name) - before, weight - before
            error = (moved - wanted).norm() / wanted.norm()
            assert error < 0.02, f"{name}: theirs is computed in bfloat16"


@needs_fork
def test_each_of_several_processes_orthogonalizes_its_share_and_gets_all() -> None:
    def work() -> list:
        torch.manual_seed(0)
        matrices = [torch.randn(shape) for shape in [(8, 8), (8, 12), (12, 8), (8, 8), (8, 8)]]
        wanted = [orthogonalized(matrix) for matrix in matrices]
        mine = []

        def counted(matrix: Tensor) -> Tensor:
            mine.append(matrix.shape)
            return orthogonalized(matrix)

        with joined() as ranks, patch("transformer.recipes.muon.orthogonalized", counted):
            found = all_orthogonalized(matrices, ranks)
        equal = [torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)]
        return [all(equal), len(mine)]

    assert in_processes(2, work) == [[True, 3], [True, 2]]


def test_adam_does_the_rest_as_before() -> None:
    plain = small_model()
    with_muon = copy.deepcopy(plain)
    rest = [name for name, weight in plain.named_parameters() if not is_matrix(name, weight)]
    assert "embedding.weight" in rest
    optimizers = [adam_of(model.parameters()) for model in (with_muon, plain)]
    optimizers[0].register_step_pre_hook(Muon(with_muon, 1.0))
    for seed in range(3):
        for model, optimizer in zip((with_muon, plain), optimizers, strict=True):
            set_gradients(model, seed)
            optimizer.step()
    for name in rest:
        torch.testing.assert_close(with_muon.get_parameter(name), plain.get_parameter(name))


def is_matrix(name: str, weight: Tensor) -> bool:
    return ".layers." in name and weight.ndim == 2


def test_a_run_stopped_and_resumed_ends_bit_for_bit_like_a_straight_one(tmp_path) -> None:
    settings = with_muon(preset(steps=6, validate_every=2))
    fit(make_corpus(), tmp_path / "straight", settings)
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path / "parts", settings, should_stop=stop_after(3))
    fit(make_corpus(), tmp_path / "parts", settings, resume=checkpoints(tmp_path / "parts")[-1])
    assert equal_files(*(checkpoints(tmp_path / name)[-1] for name in ("straight", "parts")))


@pytest.mark.parametrize(("first", "then"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_resumed_run_may_turn_it_on_or_off(tmp_path, first, then) -> None:
    settings = preset(steps=20, validate_every=10)
    early = fit(make_corpus(), tmp_path, with_muon(settings, first))
    longer = replace(settings, training=replace(settings.training, steps=40))
    last = checkpoints(tmp_path)[-1]
    history = fit(make_corpus(), tmp_path, with_muon(longer, then), resume=last)
    assert history[-1]["val_loss"] < early[-1]["val_loss"]
