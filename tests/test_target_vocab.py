"""Test the output layer over targets' tokens: its loss, and that the others are never written."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_recipes import equal_files, make_corpus, preset, stop_after
from torch import Tensor

from transformer.checks.fixtures import small_model
from transformer.data import BOS, EOS, PAD, Batch, collate, load_tokenizer
from transformer.fast_training import chunked_loss
from transformer.model import Transformer, load_model
from transformer.recipes import Techniques, checkpoints, fit
from transformer.recipes.consistency import (
    Weights,
    consistency_loss,
    r_drop_loss,
    simcut_loss,
    two_passes,
)
from transformer.recipes.target_vocab import LOW_BIAS, keep_targets, target_loss
from transformer.recipes.word_dropout import PartlyUnknown
from transformer.training import label_smoothed_loss

PAIRS = [([4, 5, EOS], [BOS, 8, 9, EOS]), ([6, EOS], [BOS, 8, 10, 8, EOS])]
KEPT = [PAD, EOS, 8, 9, 10]


@pytest.fixture
def model() -> Transformer:
    return small_model(vocab_size=12, dropout=0.0)


def over(kept: list[int], model: Transformer, batch: Batch) -> Tensor:
    """The loss by the definition: of the kept logits alone, in the order of `kept`."""
    logits = model(batch.src, batch.decoder_input)[..., kept]
    new = {old: kept.index(old) for old in kept}
    labels = batch.labels.clone().apply_(lambda old: new.get(old, new[PAD]))
    return label_smoothed_loss(logits, labels, pad_id=0, smoothing=0.1)


def assert_same(model: Transformer, ours: Tensor, plain: Tensor) -> None:
    """Assert that two losses and their gradients are equal."""
    torch.testing.assert_close(ours, plain)
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in (ours, plain)]
    for mine, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-6)


def test_tokens_that_no_target_has_get_a_low_bias(model) -> None:
    before = model.bias.detach().clone()
    keep_targets(model, PAIRS, 1)
    lowered = [token for token in range(12) if model.bias[token] == LOW_BIAS]
    assert lowered == [token for token in range(12) if token not in KEPT]
    assert torch.equal(model.bias[[EOS, 8, 9, 10]], before[[EOS, 8, 9, 10]])


@pytest.mark.parametrize(("min_count", "kept"), [(1, KEPT), (2, [PAD, EOS, 8]), (3, [PAD, 8])])
def test_the_loss_is_that_of_the_kept_logits_with_its_gradients(model, min_count, kept) -> None:
    keep_targets(model, PAIRS, min_count)
    batch = collate(PAIRS)
    assert_same(model, target_loss(model, batch, 0.1), over(kept, model, batch))


def test_in_eval_mode_it_is_the_same_number(model) -> None:
    keep_targets(model.eval(), PAIRS, 1)
    batch = collate(PAIRS)
    with torch.no_grad():
        torch.testing.assert_close(target_loss(model, batch, 0.1), over(KEPT, model, batch))


def test_if_every_token_is_kept_it_is_the_plain_loss(model) -> None:
    everything = [([EOS], [BOS, *range(12)])]
    keep_targets(model, everything, 1)
    batch = collate(PAIRS)
    torch.testing.assert_close(target_loss(model, batch, 0.1), chunked_loss(model, batch, 0.1))


def test_a_label_of_minus_100_does_not_count(model) -> None:
    keep_targets(model, PAIRS, 1)
    batch = collate(PAIRS)
    ignored = batch.tgt.masked_fill(batch.tgt == PAD, -100)
    marked = PartlyUnknown(batch.src, ignored, read=batch.decoder_input)
    torch.testing.assert_close(target_loss(model, marked, 0.1), target_loss(model, batch, 0.1))


@pytest.mark.parametrize(("min_count", "kept"), [(1, KEPT), (2, [PAD, EOS, 8])])
@pytest.mark.parametrize(("loss", "times"), [(simcut_loss(3.0, 0.0), 1), (r_drop_loss(5.0), 2)])
def test_a_loss_of_two_equal_passes_leaves_them_out_too(
    model, min_count, kept, loss, times
) -> None:
    keep_targets(model.train(), PAIRS, min_count)
    batch = collate(PAIRS)
    assert_same(model, loss(model, batch, 0.1), times * over(kept, model, batch))


def test_the_divergence_is_that_of_the_kept_logits(model) -> None:
    keep_targets(model.train(), PAIRS, 1)
    batch = collate(PAIRS)
    only_divergence = Weights(a=0.0, b=0.0, a_to_b=1.0, b_to_a=0.0)
    torch.manual_seed(0)
    found = consistency_loss(only_divergence, 0.5)(model, batch, 0.1)
    torch.manual_seed(0)
    real = batch.labels != PAD
    states = two_passes(model, batch, 0.5)
    a, b = (model.logits(x[real])[:, KEPT].log_softmax(-1) for x in states)
    wanted = F.kl_div(b, a, reduction="batchmean", log_target=True)
    assert found > 1e-3
    torch.testing.assert_close(found, wanted)


def test_after_training_the_other_tokens_are_where_they_were_and_never_likely(tmp_path) -> None:
    settings = preset(steps=20, validate_every=10)
    settings = replace(settings, techniques=Techniques(min_count=1, muon=1.0))
    history = fit(make_corpus(), tmp_path, settings)
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    model = load_model(tmp_path).eval()
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    written = {i for _, text in make_corpus().train for i in tokenizer.encode(text).ids}
    rare = [token for token in range(len(model.bias)) if token not in {*written, PAD, EOS}]
    assert len(rare) > 10
    assert (model.bias[rare] == LOW_BIAS).all()
    src = torch.tensor([tokenizer.encode(make_corpus().val[0][0]).ids])
    with torch.no_grad():
        likely = model(src, torch.tensor([[BOS]])).softmax(-1)
    assert likely[..., rare].sum() < 1e-5


def test_a_resumed_run_ends_bit_for_bit_like_a_straight_one(tmp_path) -> None:
    settings = preset(steps=6, validate_every=2)
    settings = replace(settings, techniques=Techniques(min_count=1, lexicon=0.7))
    fit(make_corpus(), tmp_path / "straight", settings)
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path / "parts", settings, should_stop=stop_after(3))
    fit(make_corpus(), tmp_path / "parts", settings, resume=checkpoints(tmp_path / "parts")[-1])
    assert equal_files(*(checkpoints(tmp_path / name)[-1] for name in ("straight", "parts")))
