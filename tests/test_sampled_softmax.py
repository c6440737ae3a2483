"""Test the sampled softmax: what is in it, that its sum is right on average, and that it trains."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from test_recipes import equal_files, make_corpus, preset, stop_after
from torch import Tensor

from transformer.checks.fixtures import small_model
from transformer.data import BOS, EOS, PAD, Batch, collate
from transformer.fast_training import chunked_cross_entropy
from transformer.model import Transformer
from transformer.recipes import Techniques, checkpoints, fit
from transformer.recipes.consistency import r_drop_loss
from transformer.recipes.sampled_softmax import sampled_loss, sampled_outputs
from transformer.recipes.target_vocab import (
    Outputs,
    keep_targets,
    kept_outputs,
    states_of,
    target_loss,
)
from transformer.recipes.word_dropout import PartlyUnknown

PAIRS = [([4, 5, EOS], [BOS, 8, 9, EOS]), ([6, EOS], [BOS, 8, 10, 8, EOS])]
LABELS = [PAD, EOS, 8, 9, 10]
SIZE = 40


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    model = small_model(vocab_size=SIZE, dropout=0.0).train()
    with torch.no_grad():
        model.bias.normal_()
    return model


@pytest.fixture
def batch() -> Batch:
    return collate(PAIRS)


def rows_of(model: Transformer, outputs: Outputs) -> list[int]:
    """The tokens that are in a part of the output layer, found by their embeddings."""
    equal = (outputs.weight[:, None] == model.embedding.weight).all(-1)
    assert (equal.sum(-1) == 1).all()
    return equal.nonzero()[:, 1].tolist()


def test_the_labels_and_so_many_others_are_there(model, batch) -> None:
    outputs = sampled_outputs(model, batch, 7)
    rows = rows_of(model, outputs)
    assert set(LABELS) <= set(rows)
    assert len(rows) == len(LABELS) + 7
    assert [rows[label] for label in outputs.labels] == batch.labels.flatten().tolist()
    assert rows[outputs.pad_id] == PAD


def test_a_sampled_token_stands_for_others_and_a_label_for_itself(model, batch) -> None:
    outputs = sampled_outputs(model, batch, 7)
    for row, bias in zip(rows_of(model, outputs), outputs.bias, strict=True):
        counted = 1 if row in LABELS else (SIZE - len(LABELS)) / 7
        torch.testing.assert_close(bias, model.bias[row] + math.log(counted))


def test_each_draw_is_another(model, batch) -> None:
    first, second = (rows_of(model, sampled_outputs(model, batch, 7)) for _ in range(2))
    assert first != second


def test_its_sum_is_that_of_all_tokens_on_average(model, batch) -> None:
    x = torch.randn(model.config.d_model)

    def total(outputs: Outputs) -> Tensor:
        return (outputs.weight @ x + outputs.bias).exp().sum()

    with torch.no_grad():
        sums = torch.stack([total(sampled_outputs(model, batch, 20)) for _ in range(2000)])
        wanted = total(kept_outputs(model, batch))
    assert sums.std() > 0.02 * wanted, "a draw is an estimate"
    torch.testing.assert_close(sums.mean(), wanted, rtol=0.01, atol=0.0)


def test_its_gradient_is_nearly_that_of_the_whole_softmax_on_average(model, batch) -> None:
    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, model.embedding.weight)[0]

    wanted = gradient(target_loss(model, batch, 0.0))
    draws = [gradient(sampled_loss(model, batch, 0.0, 20)) for _ in range(200)]
    off = torch.stack([(draw - wanted).norm() for draw in draws]).mean()
    assert off > 0.05 * wanted.norm(), "a draw is an estimate"
    assert (torch.stack(draws).mean(0) - wanted).norm() < 0.2 * off


@pytest.mark.parametrize("n_sampled", [SIZE - len(LABELS), 1000])
def test_if_all_others_are_drawn_it_is_the_whole_softmax(model, batch, n_sampled) -> None:
    found = sampled_loss(model, batch, 0.1, n_sampled)
    torch.testing.assert_close(found, target_loss(model, batch, 0.1))


def test_in_eval_mode_it_is_the_whole_softmax(model, batch) -> None:
    model.eval()
    assert sampled_loss(model, batch, 0.1, 3) == target_loss(model, batch, 0.1)


def test_tokens_that_are_not_to_be_written_are_not_drawn(model, batch) -> None:
    keep_targets(model, [([4], [BOS, *range(2, 20)])], 1)
    rows = rows_of(model, sampled_outputs(model, batch, 6))
    assert len(rows) == len(LABELS) + 6
    assert max(rows) < 20


def test_a_label_of_minus_100_does_not_count(model, batch) -> None:
    ignored = batch.tgt.masked_fill(batch.tgt == PAD, -100)
    marked = PartlyUnknown(batch.src, ignored, read=batch.decoder_input)
    losses = []
    for each in (marked, batch):
        torch.manual_seed(1)
        losses.append(sampled_loss(model, each, 0.1, 9))
    torch.testing.assert_close(*losses)


def test_label_smoothing_is_over_all_tokens(model, batch) -> None:
    """The loss is linear in the smoothing, so its slope is the mean label less the mean logit."""
    losses = []
    for smoothing in (0.0, 1.0):
        torch.manual_seed(1)
        losses.append(sampled_loss(model, batch, smoothing, 9))
    real = batch.labels != PAD
    logits = model(batch.src, batch.decoder_input)[real]
    of_labels = logits.gather(-1, batch.labels[real][:, None]).mean()
    torch.testing.assert_close(losses[1] - losses[0], of_labels - logits[:, PAD + 1 :].mean())


def test_both_passes_of_r_drop_have_the_same_draw(model, batch) -> None:
    sampled = partial(sampled_outputs, n_sampled=9)
    torch.manual_seed(1)
    both = r_drop_loss(5.0, outputs=sampled)(model, batch, 0.1)
    torch.manual_seed(1)
    once = chunked_cross_entropy(states_of(model, batch), *sampled(model, batch), 0.1)
    torch.testing.assert_close(both, 2 * once)


def test_a_model_trained_with_it_learns_the_whole_softmax(tmp_path) -> None:
    lowest = []
    for n_sampled in (0, 20):
        techniques = Techniques(sampled_softmax=n_sampled)
        settings = replace(preset(steps=60, validate_every=20), techniques=techniques)
        history = fit(make_corpus(), tmp_path / str(n_sampled), settings)
        lowest.append(history[-1]["val_loss"])
    assert lowest[1] != lowest[0], "tokens are left out"
    assert lowest[1] < 1.05 * lowest[0]


def test_a_resumed_run_ends_bit_for_bit_like_a_straight_one(tmp_path) -> None:
    settings = preset(steps=6, validate_every=2)
    settings = replace(settings, techniques=Techniques(sampled_softmax=9, min_count=1, r_drop=1.0))
    fit(make_corpus(), tmp_path / "straight", settings)
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path / "parts", settings, should_stop=stop_after(3))
    fit(make_corpus(), tmp_path / "parts", settings, resume=checkpoints(tmp_path / "parts")[-1])
    assert equal_files(*(checkpoints(tmp_path / name)[-1] for name in ("straight", "parts")))
