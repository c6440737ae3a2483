"""Test what greedy search, sampling and beam search find (chapter 12)."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transformer.checks.fixtures import (
    LIVELY,
    TREES,
    best_of_all,
    decoding_model,
    greedy_by_hand,
    log_probs_of,
    small_model,
    sources,
)
from transformer.inference import (
    IncrementalDecoder,
    RecomputingDecoder,
    beam_search,
    greedy_search,
    inference_context,
    mask_special_tokens,
    sample,
)
from transformer.model import Transformer

few = settings(max_examples=6, deadline=None, derandomize=True)


@pytest.fixture(params=LIVELY, ids=lambda seed: f"model {seed}")
def model(request) -> Transformer:
    return decoding_model("cpu", seed=request.param)


@pytest.fixture
def src(model) -> Tensor:
    return sources(9, "cpu")


def beam(model: Transformer, src: Tensor, max_len: int = 64, **options) -> Tensor:
    """Return the translations of a beam of three, without their scores."""
    return beam_search(model, src, 3, max_len=max_len, **options)[0]


def seeded_sample(model: Transformer, src: Tensor, max_len: int = 64, **options) -> Tensor:
    """Return translations drawn with the same random numbers each time."""
    generator = torch.Generator().manual_seed(3)
    return sample(model, src, max_len=max_len, generator=generator, **options)


SEARCHES = {"greedy": greedy_search, "beam": beam, "sample": seeded_sample}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
each_decoder = pytest.mark.parametrize("decoder", [IncrementalDecoder, RecomputingDecoder])


# --- decoding step by step ------------------------------------------------------------------------


@each_decoder
def test_decoding_token_by_token_gives_the_logits_of_the_whole_model(model, src, decoder) -> None:
    tgt = torch.randint(3, 9, (4, 7))
    with torch.no_grad():
        steps = decoder(model, src)
        one_by_one = torch.stack([steps.step(tgt[:, t]) for t in range(7)], dim=1)
        torch.testing.assert_close(one_by_one, model(src, tgt), atol=1e-5, rtol=1e-5)


@each_decoder
def test_padding_changes_no_logit(model, src, decoder) -> None:
    longer = torch.cat([src, torch.zeros(4, 5, dtype=torch.int64)], dim=1)
    start = torch.ones(4, dtype=torch.int64)
    with torch.no_grad():
        plain, padded = (decoder(model, ids).step(start) for ids in (src, longer))
    torch.testing.assert_close(plain, padded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("search", [greedy_search, beam], ids=["greedy", "beam"])
def test_padding_and_other_sentences_do_not_change_a_translation(model, src, search) -> None:
    together = search(model, torch.cat([src, torch.zeros(4, 3, dtype=torch.int64)], dim=1), 9)
    for row, ids in zip(together.tolist(), src, strict=True):
        alone = search(model, ids[ids != 0].unsqueeze(0), 9)[0].tolist()
        assert [i for i in row if i] == [i for i in alone if i]


@each_search
def test_ids_of_32_bits_are_translated_alike(model, src, search) -> None:
    want = search(model, src, 9)
    got = search(model, src.int(), 9)
    assert got.dtype == torch.int64
    assert got.equal(want)


# --- greedy search and beam search ----------------------------------------------------------------


def test_greedy_search_takes_the_most_probable_token_each_time(model, src) -> None:
    assert greedy_search(model, src, 10).equal(greedy_by_hand(model, src, 10))


def test_a_beam_of_one_is_greedy(model, src) -> None:
    assert beam_search(model, src, 1, max_len=10)[0].equal(greedy_search(model, src, 10))


@pytest.mark.parametrize("width", [2, 3, 7, 20])
def test_a_beams_scores_are_the_log_probabilities(model, src, width: int) -> None:
    ids, log_probs = beam_search(model, src, width, max_len=8)
    torch.testing.assert_close(log_probs, log_probs_of(model, src, ids)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_beam_as_wide_as_the_tree_finds_the_best(penalty: float) -> None:
    model = decoding_model("cpu", vocab_size=5, seed=TREES[0])
    src = sources(5, "cpu")
    ids, _ = beam_search(model, src, 32, penalty, 4)
    assert [[i for i in row if i] for row in ids.tolist()] == best_of_all(model, src, 4, penalty)


@pytest.mark.parametrize("beam_size", [0, -1])
def test_a_beam_without_hypotheses_is_refused(model, src, beam_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"^beam_size={beam_size} and max_len=64 must be at least 1$"
    ):
        beam_search(model, src, beam_size)


def test_a_translation_without_tokens_is_refused_or_empty(model, src) -> None:
    with pytest.raises(ValueError, match=r"^beam_size=5 and max_len=0 must be at least 1$"):
        beam_search(model, src, max_len=0)
    for search in (greedy_search, sample):
        assert search(model, src, max_len=0).shape == (len(src), 0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_batch_without_sentences_has_no_translations(model, dtype: torch.dtype) -> None:
    nothing = torch.zeros(0, 5, dtype=dtype)
    assert greedy_search(model, nothing).shape == sample(model, nothing).shape == (0, 0)
    ids, log_probs = beam_search(model, nothing)
    assert ids.shape == (0, 0) and log_probs.shape == (0,)


@few
@given(width=st.integers(1, 6), max_len=st.integers(1, 9))
def test_only_padding_follows_the_end_and_max_len_is_kept(width: int, max_len: int) -> None:
    model = decoding_model("cpu")
    src = sources(9, "cpu")
    found = [
        beam_search(model, src, width, 1.0, max_len)[0],
        greedy_search(model, src, max_len),
        sample(model, src, max_len=max_len),
    ]
    for ids in found:
        assert ids.shape[1] <= max_len
        for row in ids.tolist():
            text, _, rest = "".join(map(str, row)).partition("2")
            assert "0" not in text
            assert "1" not in text
            assert not rest.strip("0")


def never_ending(max_len: int) -> Transformer:
    """Return a model that never writes </s>."""
    model = small_model(max_len=max_len)
    with torch.no_grad():
        model.bias[model.config.eos_id] = -1e4
    return model


@pytest.mark.parametrize("search", [greedy_search, sample, lambda *args: beam_search(*args)[0]])
def test_a_translation_that_does_not_end_is_cut_off_after_64_tokens(search) -> None:
    assert search(never_ending(max_len=80), torch.tensor([[4, 5, 2]])).shape == (1, 64)


@each_search
def test_no_translation_is_longer_than_the_models_max_len(search) -> None:
    assert search(never_ending(max_len=16), torch.tensor([[4, 5, 2]]), 99).shape == (1, 16)


# --- sampling -------------------------------------------------------------------------------------


def test_sampling_is_seeded_and_leaves_the_global_random_numbers_alone(model, src) -> None:
    random = torch.get_rng_state()
    generators = (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    one, same, other = (sample(model, src, max_len=9, generator=g) for g in generators)
    assert one.equal(same)
    assert not one.equal(other)
    assert torch.get_rng_state().equal(random)


def test_without_a_generator_sampling_draws_from_the_global_one(model, src) -> None:
    torch.manual_seed(5)
    one = sample(model, src, max_len=9)
    two = sample(model, src, max_len=9)
    torch.manual_seed(5)
    assert sample(model, src, max_len=9).equal(one)
    assert not two.equal(one)


def test_sampling_from_the_best_alone_is_greedy(model, src) -> None:
    assert sample(model, src, top_k=1, max_len=10).equal(greedy_search(model, src, 10))


def test_sampling_at_a_low_temperature_is_greedy(model, src) -> None:
    assert sample(model, src, temperature=1e-4, max_len=6).equal(greedy_search(model, src, 6))


def test_top_k_excludes_all_other_tokens(model, src) -> None:
    drawn = sample(model, src, temperature=1e4, top_k=2, max_len=6)
    config = model.config
    before = torch.cat([torch.full_like(drawn[:, :1], config.bos_id), drawn[:, :-1]], dim=1)
    with torch.no_grad():
        logits = model.eval()(src, before)
    logits[..., [config.pad_id, config.bos_id]] = -math.inf
    best = logits.topk(2).indices
    end = (drawn == config.eos_id).long()
    real = end.cumsum(1) - end == 0
    assert (best == drawn.unsqueeze(-1)).any(-1)[real].all()
    assert not drawn.equal(greedy_search(model, src, max_len=6)), "but it is not greedy search"


def test_tokens_are_drawn_by_their_probability(model, src) -> None:
    many = src[:1].expand(4000, -1)
    with torch.no_grad():
        logits = model.eval()(src[:1], torch.tensor([[1]]))[0, -1]
    logits[[0, 1]] = -math.inf
    for temperature in (0.5, 1.0, 2.0):
        drawn = sample(model, many, temperature, max_len=1)[:, 0]
        frequencies = drawn.bincount(minlength=9) / 4000
        want = (logits / temperature).softmax(-1)
        torch.testing.assert_close(frequencies, want, atol=0.04, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_an_impossible_temperature_is_refused(model, src, temperature: float) -> None:
    with pytest.raises(ValueError, match=f"^temperature must be above 0, not {temperature}"):
        sample(model, src, temperature=temperature)


def test_padding_and_the_start_are_masked_in_place() -> None:
    config = small_model(pad_id=4, bos_id=6, eos_id=0).config
    scores = torch.randn(2, 3, 11)
    before = scores.clone()
    assert mask_special_tokens(scores, config) is scores
    assert (scores[..., [4, 6]] == -math.inf).all()
    others = [i for i in range(11) if i not in (4, 6)]
    assert scores[..., others].equal(before[..., others])


@each_search
def test_searches_obey_the_special_ids_of_the_config(search) -> None:
    model = decoding_model("cpu")
    order = [4, 6, 0, 3, 1, 5, 2, 7, 8]  # the same model, its vocabulary in another order
    renamed = small_model(vocab_size=9, max_len=24, pad_id=4, bos_id=6, eos_id=0)
    state = {name: x.clone() for name, x in model.state_dict().items()}
    for name in ("embedding.weight", "bias"):
        state[name][order] = model.state_dict()[name]
    renamed.load_state_dict(state)
    renamed.positions.table.copy_(model.positions.table)
    src = sources(9, "cpu")
    new_id = torch.tensor(order)
    want = new_id[greedy_search(model, src, 9)]
    assert greedy_search(renamed, new_id[src], 9).equal(want)
    ids = search(renamed, new_id[src], 9)
    assert not (ids == 6).any()
    ended = (ids == 0).int().cumsum(1) - (ids == 0).int() > 0
    assert (ids == 4).equal(ended)


# --- the model afterwards -------------------------------------------------------------------------


def modes(module: nn.Module) -> dict[str, bool]:
    """Return which modules are in training mode."""
    return {name: part.training for name, part in module.named_modules()}


def one_layer_apart(training: bool) -> Transformer:
    """Return a model with one layer, and one dropout, in the other mode."""
    model = decoding_model("cpu").train(training)
    model.decoder.layers[1].train(not training)
    model.dropout.train(not training)
    return model


@pytest.mark.parametrize("training", [True, False])
@each_search
def test_a_search_leaves_the_model_and_the_random_numbers_as_they_were(search, training) -> None:
    model = one_layer_apart(training)
    src = sources(9, "cpu")
    before = modes(model)
    random = torch.get_rng_state()
    search(model, src, 4)
    assert modes(model) == before
    assert torch.get_rng_state().equal(random)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("training", [True, False])
@each_search
def test_a_search_finds_the_same_in_every_mode(search, training) -> None:
    model = decoding_model("cpu").eval()
    src = sources(9, "cpu")
    assert search(one_layer_apart(training), src, 9).equal(search(model, src, 9))


@each_search
def test_the_model_is_restored_after_an_error_too(search) -> None:
    model = one_layer_apart(training=True)
    before = modes(model)
    with pytest.raises(ValueError, match="the vocabulary, whose ids end at 8"):
        search(model, torch.tensor([[9]]), 4)
    assert modes(model) == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("training", [True, False])
def test_inside_the_context_there_is_no_dropout_and_no_gradient(training: bool) -> None:
    model = one_layer_apart(training)
    before = modes(model)
    with inference_context(model):
        assert not any(modes(model).values())
        assert not model(torch.tensor([[3]]), torch.tensor([[1]])).requires_grad
    assert modes(model) == before
    assert model(torch.tensor([[3]]), torch.tensor([[1]])).requires_grad


def test_contexts_can_be_nested() -> None:
    model = one_layer_apart(training=True)
    before = modes(model)
    with inference_context(model):
        with inference_context(model):
            pass
        assert not any(modes(model).values())
    assert modes(model) == before


def raises_in_the_context(model: Transformer) -> None:
    with inference_context(model):
        raise RuntimeError("stopped")


def test_the_context_restores_every_module_after_an_error() -> None:
    model = one_layer_apart(training=True)
    before = modes(model)
    with pytest.raises(RuntimeError, match="stopped"):
        raises_in_the_context(model)
    assert modes(model) == before
    assert torch.is_grad_enabled()


# --- a decoder of one's own -----------------------------------------------------------------------


class Backwards(IncrementalDecoder):
    """A decoder that prefers the least probable tokens."""

    def argmax(self, logits: Tensor) -> Tensor:
        return logits.masked_fill(logits.isinf(), math.inf).argmin(-1)

    def best_extensions(
        self, log_probs: Tensor, scores: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        inverted = (-log_probs).masked_fill(log_probs.isinf(), -math.inf)
        return super().best_extensions(inverted, scores, k)


def test_a_decoder_may_bring_its_own_choice_of_tokens(model, src) -> None:
    worst = greedy_search(model, src, 6, Backwards)
    assert not worst.equal(greedy_search(model, src, 6))
    first = greedy_by_hand_worst(model, src)
    assert worst[:, 0].equal(first)
    assert beam_search(model, src, 1, max_len=6, decoder=Backwards)[0].equal(worst)


def greedy_by_hand_worst(model: Transformer, src: Tensor) -> Tensor:
    """Return the least probable first token of each sentence."""
    with torch.no_grad():
        logits = model.eval()(src, torch.ones(4, 1, dtype=torch.int64))[:, -1]
    logits[:, [0, 1]] = math.inf
    return logits.argmin(-1)


def test_sampling_uses_the_decoder_it_is_given(model, src) -> None:
    made: list[Callable] = []

    class Noted(IncrementalDecoder):
        def __init__(self, model: Transformer, src: Tensor):
            made.append(type(self))
            super().__init__(model, src)

    want = seeded_sample(model, src, 9)
    assert seeded_sample(model, src, 9, decoder=Noted).equal(want)
    assert made == [Noted]
