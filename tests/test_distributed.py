"""Test the shards and the loss of several processes (chapter 14)."""

from collections.abc import Callable

import pytest
import torch
from several import in_processes, needs_fork
from test_training import make_pairs

from transformer.checks.fixtures import small_model
from transformer.data import Batch, collate
from transformer.distributed import DistributedLoss, Shard, my_share, shard, shards
from transformer.fast_training import chunked_loss
from transformer.ranks import joined
from transformer.training import Trainer, TrainingConfig, training_batches, translation_loss

BATCH = collate(make_pairs(7))
CONFIG = TrainingConfig(
    steps=100, max_tokens=30, accumulate=2, peak_lr=1e-2, warmup=10, max_grad_norm=0.5
)


@pytest.mark.parametrize("world", [1, 2, 3, 7, 9])
def test_every_row_goes_to_one_process(world: int) -> None:
    rows = [row for rank in range(min(world, 7)) for row in my_share(7, rank, world)]
    assert sorted(rows) == list(range(7))
    sizes = [len(my_share(7, rank, world)) for rank in range(world)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_shares_are_those_of_the_labels_and_sum_to_1(world: int) -> None:
    found = [shard(BATCH, rank, world) for rank in range(world)]
    assert sum(each.share for each in found) == pytest.approx(1)
    assert {each.n_tokens for each in found} == {BATCH.n_tokens}
    for each in found[:7]:
        labels = Batch(each.src, each.tgt).n_tokens
        assert each.share == labels / BATCH.n_tokens
    assert [each.share for each in found[7:]] == [0.0] * max(0, world - 7)
    assert all(len(each.src) == 1 for each in found[7:]), "a spare process has a row to compute"


def test_a_shard_keeps_its_kind_on_another_device() -> None:
    moved = shard(BATCH, 1, 2, is_last=False).to("cpu")
    assert isinstance(moved, Shard)
    assert (moved.n_tokens, moved.is_last) == (BATCH.n_tokens, False)


def test_the_last_batch_of_a_step_is_marked() -> None:
    steps = list(shards([(BATCH, BATCH), (BATCH,)], 0, 2))
    assert [[each.is_last for each in step] for step in steps] == [[False, True], [True]]


def curve(loss: Callable, count: int, one_row: bool = False) -> list[float]:
    """Return the losses of some steps, and at the end the sum of the weights' squares."""
    with joined() as ranks:
        torch.manual_seed(0)
        model = small_model(dropout=0.0)
        if ranks.world > 1:
            loss = DistributedLoss(model, loss)
        trainer = Trainer(model, CONFIG, loss)
        steps = training_batches(make_pairs(1 if one_row else 40), CONFIG)
        if ranks.world > 1:
            steps = shards(steps, ranks.rank, ranks.world)
        losses = [trainer.step(*next(steps)) for _ in range(count)]
        val = [(collate(make_pairs(9, 1)),), (collate(make_pairs(2, 2)),)]
        if ranks.world > 1:
            val = shards(val, ranks.rank, ranks.world)
        losses.append(trainer.validate([batch for (batch,) in val]))
        return [*losses, sum(p.double().square().sum().item() for p in model.parameters())]


@needs_fork
@pytest.mark.parametrize(
    ("loss", "world", "count"), [(translation_loss, 2, 100), (chunked_loss, 3, 20)]
)
def test_several_processes_have_the_learning_curve_of_one(loss, world: int, count: int) -> None:
    alone = curve(loss, count)
    for found in in_processes(world, lambda: curve(loss, count)):
        assert found[:-1] == pytest.approx(alone[:-1], abs=1e-4)
    assert alone[0] > alone[count - 1] + 0.05, "it learns"


@needs_fork
def test_weights_are_the_same_in_all_processes_bit_for_bit() -> None:
    first, second = in_processes(2, lambda: curve(translation_loss, 5))
    assert first == second


@needs_fork
def test_a_process_without_a_row_does_not_count() -> None:
    alone = curve(translation_loss, 3, one_row=True)
    for found in in_processes(2, lambda: curve(translation_loss, 3, one_row=True)):
        assert found == pytest.approx(alone, abs=1e-5)


@needs_fork
def test_the_mean_of_means_would_be_another_loss() -> None:
    def work() -> list[float]:
        with joined() as ranks:
            mine = shard(BATCH, ranks.rank, ranks.world)
            loss = DistributedLoss(model := small_model(dropout=0.0), translation_loss)
            own = translation_loss(model, mine, 0.0).item()
            return [loss(model, mine, 0.0).item(), sum(ranks.from_all(own)) / 2]

    (ours, means), _ = in_processes(2, work)
    whole = translation_loss(small_model(dropout=0.0), BATCH, 0.0).item()
    assert ours == pytest.approx(whole, abs=1e-5)
    assert abs(means - whole) > 1e-3


@needs_fork
def test_all_processes_stop_at_a_loss_that_is_not_finite_in_one() -> None:
    def broken(model, batch, smoothing):
        bad = 5 in batch.src[:, 0]
        return translation_loss(model, batch, smoothing) * (float("nan") if bad else 1.0)

    def work() -> str:
        with joined() as ranks:
            trainer = Trainer(model := small_model(), CONFIG, DistributedLoss(model, broken))
            rows = Batch(torch.tensor([[4, 2], [5, 2]]), torch.tensor([[1, 6, 2], [1, 7, 2]]))
            try:
                trainer.step(shard(rows, ranks.rank, ranks.world))
            except FloatingPointError as error:
                return str(error)
            return "went on"

    assert in_processes(2, work) == ["loss of step 1 is nan, on a batch of 1 pairs"] * 2


@needs_fork
def test_a_whole_batch_is_refused() -> None:
    def work() -> str:
        with joined():
            loss = DistributedLoss(model := small_model(), translation_loss)
            with pytest.raises(TypeError, match="takes shards of batches, not whole batches"):
                loss(model, BATCH, 0.0)
        return "refused"

    assert in_processes(2, work) == ["refused"] * 2
