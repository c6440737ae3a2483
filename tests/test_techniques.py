"""Test the techniques for little data: each does what its paper says, and nothing when off."""

import math
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.checks.fixtures import small_model
from transformer.corpora.tokenised import TokenisedPairs
from transformer.data import BOS, EOS, PAD, UNK, collate, encode_pairs, train_tokenizer
from transformer.distributed import shard
from transformer.fast_training import chunked_loss, in_bfloat16, optimize_for_cpu
from transformer.model import Transformer
from transformer.ranks import Ranks
from transformer.recipes.averaging import CheckpointMean
from transformer.recipes.consistency import (
    Weights,
    consistency_loss,
    embed_and_cut,
    loss_of_two,
    r_drop_loss,
    simcut_loss,
    two_passes,
)
from transformer.recipes.cooldown import Cooldown
from transformer.recipes.presets import Preset
from transformer.recipes.streams import BPEDropout, Stream, reverse, stream_of
from transformer.recipes.techniques import Techniques
from transformer.recipes.word_dropout import drop_words, partly_unknown, with_word_dropout
from transformer.training import (
    Trainer,
    TrainingConfig,
    label_smoothed_loss,
    training_batches,
    translation_loss,
)

PAIRS = [
    ([3, 4, 5, 2], [1, 5, 4, 3, 2]),
    ([5, 2], [1, 5, 2]),
    ([6, 7, 8, 6, 2], [1, 8, 7, 2]),
]


@pytest.fixture
def batch():
    return collate(PAIRS)


def gradients(model: Transformer, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tuple(model.parameters()), allow_unused=True))


def assert_same(model: Transformer, one: Tensor, other: Tensor) -> None:
    """Assert that two losses and their gradients are equal."""
    torch.testing.assert_close(one, other)
    for a, b in zip(gradients(model, one), gradients(model, other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# --- which techniques -----------------------------------------------------------------------------


def test_every_technique_is_off_by_default() -> None:
    plain = Techniques()
    assert not any(value for name, value in asdict(plain).items() if name != "simcut_p")
    assert plain.loss() is chunked_loss
    assert plain.trainer() is Trainer


def test_a_cooldown_ends_at_zero_and_changes_nothing_before() -> None:
    for progress, left in ((0.0, 1), (0.75, 1), (0.8, 0.8), (0.875, 0.5), (1.0, 0), (1.1, 0)):
        for share, wanted in ((0.25, left), (0.0, 1)):
            optimizer = torch.optim.SGD([torch.zeros(1)], lr=3.0)
            optimizer.register_step_pre_hook(Cooldown(share, progress))
            optimizer.step()
            assert optimizer.param_groups[0]["lr"] == pytest.approx(3 * wanted)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (dict(simcut=-1.0), "simcut must be at least 0, not -1.0"),
        (dict(r_drop=math.nan), "r_drop must be at least 0, not nan"),
        (dict(bpe_dropout=1.0), "bpe_dropout must be below 1, not 1.0"),
        (dict(word_dropout=1.0), "word_dropout must be below 1, not 1.0"),
        (dict(cooldown=1.0), "cooldown must be below 1, not 1.0"),
        (dict(simcut_p=1.5), "simcut_p must be below 1, not 1.5"),
        (dict(patience=-1), "patience must be at least 0, not -1"),
        (dict(simcut=1.0, r_drop=1.0), "one must be 0"),
        (dict(min_count=1, both_directions=9), "min_count must be 0: .* the whole output layer"),
    ],
)
def test_techniques_that_make_no_sense_are_refused(values: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Techniques(**values)


# --- SimCut and R-Drop ----------------------------------------------------------------------------


def test_without_dropout_or_cuts_simcut_is_the_plain_loss_and_r_drop_twice_it(batch) -> None:
    model = small_model(dropout=0.0).train()
    for loss, times in ((simcut_loss(3.0, 0.0), 1), (r_drop_loss(5.0), 2)):
        plain = times * translation_loss(model, batch, 0.1)
        assert_same(model, loss(model, batch, 0.1), plain)


@pytest.mark.parametrize(
    ("with_divergence", "without", "p"),
    [
        (simcut_loss(3.0, 0.5), simcut_loss(0.0, 0.5), 0.0),
        (r_drop_loss(5.0), r_drop_loss(0.0), 0.2),
    ],
)
def test_two_passes_that_differ_are_pulled_together(batch, with_divergence, without, p) -> None:
    model = small_model(dropout=p).train()
    torch.manual_seed(0)
    found = with_divergence(model, batch, 0.1)
    torch.manual_seed(0)
    assert found > without(model, batch, 0.1) + 1e-4


@pytest.mark.parametrize("loss", [simcut_loss(), r_drop_loss()])
def test_validation_has_the_plain_loss(batch, loss) -> None:
    model = small_model(dropout=0.2).eval()
    assert loss(model, batch, 0.1) == chunked_loss(model, batch, 0.1)


def plain_loss_of_two(a: Tensor, b: Tensor, labels: Tensor, smoothing: float, weights: Weights):
    """Return the same as `loss_of_two` by PyTorch's own KL divergence and chapter 11's loss."""
    p_a = a.softmax(-1)
    p_b = b.softmax(-1)
    ce_a, ce_b = (label_smoothed_loss(x, labels, PAD, smoothing) * len(labels) for x in (a, b))
    a_to_b = F.kl_div(b.log_softmax(-1), p_a, reduction="sum")
    b_to_a = F.kl_div(a.log_softmax(-1), p_b, reduction="sum")
    terms = (ce_a, ce_b, a_to_b, b_to_a)
    return sum(weight * term for weight, term in zip(weights, terms))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "weights",
    [(1.0, 0.0, 3.0, 0.0), (1.0, 1.0, 2.5, 2.5), (0.0, 0.0, 0.0, 1.0), (0.3, 0.7, 0.2, 1.1)],
)
def test_the_loss_of_two_passes_is_that_of_autograd(smoothing: float, weights: tuple) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 7, dtype=torch.float64)
    labels = torch.tensor([1, 2, 6, 3, 3])
    share = torch.full((7,), smoothing / 6, dtype=torch.float64)
    share[PAD] = 0.0
    loss, grads = loss_of_two(a, b, labels, share, smoothing, Weights(*weights))
    a.requires_grad_()
    b.requires_grad_()
    wanted = plain_loss_of_two(a, b, labels, smoothing, Weights(*weights))
    # chapter 11's loss is in float32
    torch.testing.assert_close(loss, wanted.double(), rtol=1e-6, atol=1e-6)
    for grad, want in zip(grads, torch.autograd.grad(wanted, (a, b))):
        torch.testing.assert_close(grad, want, rtol=1e-5, atol=1e-6)


def test_the_divergences_of_r_drop_are_symmetric() -> None:
    a, b = torch.randn(2, 5, 7)
    labels = torch.tensor([1, 2, 6, 3, 3])
    share = torch.zeros(7)
    weights = Weights(1.0, 1.0, 2.5, 2.5)
    one, (in_a, in_b) = loss_of_two(a, b, labels, share, 0.0, weights)
    other, (again_b, again_a) = loss_of_two(b, a, labels, share, 0.0, weights)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(in_a, again_a)
    torch.testing.assert_close(in_b, again_b)
    simcut, _ = loss_of_two(a, b, labels, share, 0.0, Weights(0.0, 0.0, 1.0, 0.0))
    turned, _ = loss_of_two(b, a, labels, share, 0.0, Weights(0.0, 0.0, 1.0, 0.0))
    assert not torch.allclose(simcut, turned), "and that of SimCut is not"


def test_gradients_of_the_whole_model_are_those_of_the_plain_formula(batch, monkeypatch) -> None:
    monkeypatch.setattr("transformer.recipes.consistency.CHUNK", 3)
    model = small_model(dropout=0.2).train()
    weights = Weights(1.0, 0.5, 2.0, 0.25)
    torch.manual_seed(7)
    found = consistency_loss(weights, 0.3)(model, batch, 0.1)
    found_grads = gradients(model, found)
    torch.manual_seed(7)
    real = batch.labels != PAD
    a, b = (model.logits(states[real]) for states in two_passes(model, batch, 0.3))
    wanted = plain_loss_of_two(a, b, batch.labels[real], 0.1, weights) / int(real.sum())
    torch.testing.assert_close(found, wanted)
    for grad, want in zip(found_grads, gradients(model, wanted), strict=True):
        torch.testing.assert_close(grad, want, rtol=1e-4, atol=1e-6)


def test_a_consistency_loss_works_in_bfloat16(batch) -> None:
    model = small_model(dropout=0.0).train()
    loss = simcut_loss(3.0, 0.0)
    exact = loss(model, batch, 0.1)
    half = in_bfloat16(loss)(optimize_for_cpu(model), batch, 0.1)
    torch.testing.assert_close(half, exact, rtol=2e-2, atol=1e-3)
    assert all(grad.isfinite().all() for grad in gradients(model, half))


def test_cut_tokens_are_read_as_zeros_at_their_place(batch) -> None:
    model = small_model(dropout=0.0)
    torch.manual_seed(0)
    first, second = embed_and_cut(model, batch.src.repeat(2, 1), 0.5).chunk(2)
    assert first.equal(model.embed(batch.src))
    nothing = model.positions(torch.zeros_like(first))
    cut = (second == nothing).all(-1)
    same = (second == first).all(-1)
    assert (cut ^ same).all()
    assert cut.any() and not cut[batch.src < 3].any(), "special tokens are never cut"


def test_about_the_share_that_is_asked_is_cut() -> None:
    model = small_model(dropout=0.0)
    ids = torch.full((200, 10), 5)
    first, second = embed_and_cut(model, ids.repeat(2, 1), 0.05).chunk(2)
    share = (first != second).any(-1).float().mean()
    assert 0.03 < share < 0.07


# --- word dropout ---------------------------------------------------------------------------------


def test_about_the_share_that_is_asked_is_read_as_unknown_and_no_special_token() -> None:
    ids = torch.tensor([[BOS, 5, 6, 7, EOS, PAD]]).expand(2000, 6)
    found = partly_unknown(ids, 0.1)
    changed = found != ids
    assert (found[changed] == UNK).all()
    assert not changed[:, [0, 4, 5]].any()
    assert 0.08 < changed[:, 1:4].float().mean() < 0.12


def test_unknown_tokens_are_read_and_the_labels_stay(batch) -> None:
    model = small_model(dropout=0.0).train()
    torch.manual_seed(0)
    found = with_word_dropout(translation_loss, 0.5)(model, batch, 0.1)
    torch.manual_seed(0)
    read = partly_unknown(batch.decoder_input, 0.5)
    src = partly_unknown(batch.src, 0.5)
    assert not read.equal(batch.decoder_input) and not src.equal(batch.src)
    logits = model(src, read)
    assert_same(model, found, label_smoothed_loss(logits, batch.labels, PAD, 0.1))


@pytest.mark.parametrize(
    "technique",
    [Techniques(word_dropout=0.5), Techniques(word_dropout=0.5, simcut=1.0)],
)
def test_words_are_dropped_in_training_only_and_from_every_loss(batch, technique) -> None:
    model = small_model(dropout=0.0).eval()
    assert technique.loss()(model, batch, 0.1) == chunked_loss(model, batch, 0.1)
    torch.manual_seed(0)
    found = technique.loss()(model.train(), batch, 0.1)
    torch.manual_seed(0)
    without = replace(technique, word_dropout=0.0)
    assert found != without.loss()(model, batch, 0.1)


def test_both_passes_of_a_consistency_loss_have_the_same_words_dropped(batch) -> None:
    model = small_model(dropout=0.0).train()
    torch.manual_seed(0)
    found = Techniques(word_dropout=0.5, r_drop=4.0).loss()(model, batch, 0.1)
    torch.manual_seed(0)
    dropped = drop_words(batch, 0.5)
    assert not dropped.src.equal(batch.src)
    assert_same(model, found, 2 * chunked_loss(model, dropped, 0.1))


# --- averaging ------------------------------------------------------------------------------------


def weights_of(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_the_averaged_model_is_the_mean_of_the_last_checkpoints(batch) -> None:
    config = TrainingConfig(validate_every=2, peak_lr=0.1, warmup=1)
    trainer = CheckpointMean(3, small_model(), config)
    at_validation = []
    for step in range(1, 11):
        trainer.step(batch)
        if step == 1:
            torch.testing.assert_close(
                weights_of(trainer.ema_model), weights_of(trainer.model), rtol=0, atol=0
            )
        if step % 2 == 0:
            at_validation.append(weights_of(trainer.model))
        if step >= 2:
            wanted = [torch.stack(same).mean(0) for same in zip(*at_validation[-3:])]
            torch.testing.assert_close(weights_of(trainer.ema_model), wanted)
    assert list(trainer.snapshots) == [6, 8, 10]
    assert not at_validation[-1][0].equal(at_validation[-2][0])


def test_a_trainer_goes_on_from_snapshots(batch) -> None:
    config = TrainingConfig(validate_every=2)
    trainer = CheckpointMean(2, small_model(), config)
    for _ in range(4):
        trainer.step(batch)
    other = CheckpointMean(2, small_model(), config)
    other.restore(trainer.snapshots)
    assert list(other.snapshots) == [2, 4]


# --- both directions ------------------------------------------------------------------------------


def test_a_pair_turned_around_is_again_a_pair() -> None:
    src, tgt = PAIRS[0]
    assert reverse((src, tgt)) == ([5, 4, 3, 2], [1, 3, 4, 5, 2])
    assert reverse(reverse((src, tgt))) == (src, tgt)


def rows(batches) -> list[tuple]:
    return [(b.src.tolist(), b.tgt.tolist()) for group in batches for b in group]


def take(stream, n: int) -> list[tuple]:
    return rows([next(stream) for _ in range(n)])


def test_both_directions_come_first_and_then_one() -> None:
    config = TrainingConfig(max_tokens=5, accumulate=1)
    both = [*PAIRS, *map(reverse, PAIRS)]
    found = take(Stream(PAIRS, config, 4).steps(), 9)
    assert found[:4] == take(training_batches(both, config), 4)
    assert found[4:] == take(training_batches(PAIRS, config), 5)


@pytest.mark.parametrize("start", range(8))
def test_a_stream_is_resumed_at_any_step(start: int) -> None:
    config = TrainingConfig(max_tokens=5, accumulate=2)
    whole = take(Stream(PAIRS, config, 4).steps(), 9)
    assert take(Stream(PAIRS, config, 4).steps(start), 9 - start) == whole[2 * start :]


def test_epochs_are_counted_over_both_kinds_of_steps() -> None:
    config = TrainingConfig(max_tokens=5)  # a pair a batch: 3 or 6 batches an epoch
    plain = [Stream(PAIRS, config).epoch_of(step) for step in range(1, 8)]
    assert plain == [0, 0, 0, 1, 1, 1, 2]
    both = [Stream(PAIRS, config, 7).epoch_of(step) for step in range(1, 12)]
    assert both == [0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 3]


# --- BPE-dropout ----------------------------------------------------------------------------------

TEXTS = ["the cat sleeps on the mat", "a dog sleeps", "il gatto dorme sul tappeto", "un cane dorme"]


@pytest.fixture
def tokenizer():
    return train_tokenizer(TEXTS * 4, 90)


@pytest.fixture
def sentences(tokenizer):
    return collate(encode_pairs(tokenizer, list(zip(TEXTS[:2], TEXTS[2:]))))


def test_without_dropout_a_batch_is_split_as_it_was(tokenizer, sentences) -> None:
    found = BPEDropout(tokenizer, 0.0, 64)(sentences)
    assert found.src.equal(sentences.src) and found.tgt.equal(sentences.tgt)


def test_with_dropout_the_same_text_has_other_tokens(tokenizer, sentences) -> None:
    split = BPEDropout(tokenizer, 0.5, 64)
    found = [split(sentences) for _ in range(5)]
    for batch in found:
        for ids, plain in ((batch.src, sentences.src), (batch.tgt, sentences.tgt)):
            texts = [tokenizer.decode([i for i in row if i != PAD]) for row in ids.tolist()]
            assert texts == [tokenizer.decode(row) for row in plain.tolist()]
        assert (batch.tgt[:, 0] == BOS).all() and ((batch.src == EOS).sum(1) == 1).all()
    assert max(batch.n_tokens for batch in found) > sentences.n_tokens
    assert len({str(batch.src.tolist()) for batch in found}) > 1
    assert tokenizer.model.dropout is None, "the tokenizer of the caller is as it was"


def test_a_row_that_would_be_too_long_or_is_partly_unknown_stays(tokenizer) -> None:
    known, unknown = encode_pairs(tokenizer, [(TEXTS[0], TEXTS[2]), ("the 猫 cat", "un cane")])
    batch = collate([unknown])
    assert BPEDropout(tokenizer, 0.9, 64)(batch).src.equal(batch.src)
    batch = collate([known])
    short = BPEDropout(tokenizer, 0.9, len(known[0]))(batch)
    assert short.src.equal(batch.src)


def test_batches_are_those_of_chapter_11_when_nothing_is_asked(tokenizer) -> None:
    config = TrainingConfig(max_tokens=5)
    preset = Preset(60, config, {}, 1.0)
    found = stream_of(PAIRS, preset, tokenizer, 64).steps(1)
    assert take(found, 6) == take(training_batches(PAIRS, config, 1), 6)
    preset = replace(preset, techniques=Techniques(bpe_dropout=0.3))
    dropped = stream_of(PAIRS, preset, tokenizer, 64).steps()
    assert len(take(dropped, 2)) == 2


def test_one_of_several_processes_splits_its_own_rows(tokenizer, sentences) -> None:
    split = BPEDropout(tokenizer, 0.5, 64)
    for rank in (0, 1):
        mine = shard(sentences, rank, 2)
        found = split(mine)
        rows = [[i for i in row if i != PAD] for row in found.src.tolist()]
        assert [tokenizer.decode(row) for row in rows] == [TEXTS[rank]]
        assert (found.share, found.n_tokens) == (mine.share, mine.n_tokens)


def test_bpe_dropout_works_in_several_processes(tokenizer) -> None:
    pairs = encode_pairs(tokenizer, list(zip(TEXTS[:2], TEXTS[2:])))
    split = BPEDropout(tokenizer, 0.3, 64)
    parts = [
        Stream(pairs, TrainingConfig(), split=split, ranks=Ranks(rank, 2)).steps()
        for rank in (0, 1)
    ]
    for _ in range(3):
        (first,), (second,) = (next(part) for part in parts)
        assert first.share + second.share == 1
        texts = [tokenizer.decode_batch(each.src.tolist())[0] for each in (first, second)]
        assert sorted(texts) == sorted(TEXTS[:2])


class NothingMapped(TokenisedPairs):
    """No pairs, of the kind that stays on the disk."""

    def __init__(self):
        pass

    def __len__(self) -> int:
        return 0


def test_both_directions_of_mapped_pairs_are_refused(tokenizer) -> None:
    preset = Preset(60, TrainingConfig(), {}, 1.0, Techniques(both_directions=4))
    with pytest.raises(ValueError, match="fit into memory"):
        stream_of(NothingMapped(), preset, tokenizer, 64)


@pytest.mark.parametrize("both", [0, 2])
def test_the_parts_of_two_processes_are_the_batches_of_one(both: int) -> None:
    config = TrainingConfig(max_tokens=12)
    whole = Stream(PAIRS, config, both).steps()
    parts = [Stream(PAIRS, config, both, ranks=Ranks(r, 2)).steps() for r in (0, 1)]
    sizes = []
    for _ in range(5):
        (batch,), *shares = next(whole), *map(next, parts)
        taken = [part for (part,) in shares if part.share]  # one without rows has a share of 0
        found = [row for part in taken for row in without_padding(part.tgt)]
        assert sorted(found) == sorted(without_padding(batch.tgt))
        sizes.append(len(batch.tgt))
    assert max(sizes) > 1  # there was something to share


def without_padding(ids: Tensor) -> list[list[int]]:
    return [[i for i in row if i != PAD] for row in ids.tolist()]
