"""Test decoders, and searches in batches of many sentences (chapter 12)."""

import math
from collections.abc import Callable

import pytest
import torch
from einops import rearrange, repeat
from torch import Tensor

from transformer.checks.fixtures import (
    LIVELY,
    SRC,
    decoding_model,
    greedy_by_hand,
    small_model,
    sources,
)
from transformer.inference import (
    IncrementalDecoder,
    KVCache,
    RecomputingDecoder,
    TokenDecoder,
    beam_search,
    decode_position,
    greedy_search,
    sample,
)
from transformer.model import Transformer


@pytest.fixture(params=LIVELY, ids=lambda seed: f"model {seed}")
def model(request) -> Transformer:
    return decoding_model("cpu", seed=request.param).eval().requires_grad_(False)


@pytest.fixture
def varied() -> Transformer:
    """A model whose translations have many different lengths."""
    return decoding_model("cpu", seed=LIVELY[0]).eval().requires_grad_(False)


@pytest.fixture
def many() -> Tensor:
    """Twenty sources of different lengths, whose translations end at different times."""
    ids = torch.randint(3, 9, (20, 6))
    return ids.masked_fill(torch.arange(6) > torch.randint(6, (20, 1)), 0)


def counting(rows: list[int], base: type[TokenDecoder] = IncrementalDecoder) -> type[TokenDecoder]:
    """Return a decoder class that notes the number of rows of each step."""

    class Counting(base):
        def step(self, ids: Tensor) -> Tensor:
            rows.append(len(ids))
            return super().step(ids)

    return Counting


def without_padding(ids: Tensor) -> list[list[int]]:
    """Return rows of ids as lists, without their padding."""
    return [[i for i in row if i] for row in ids.tolist()]


# --- two decoders, the same logits ----------------------------------------------------------------


each_norm = pytest.mark.parametrize("norm", ["post", "pre"])
DECODERS = (IncrementalDecoder, RecomputingDecoder)


@each_norm
def test_with_and_without_a_cache_the_logits_are_the_same(norm: str) -> None:
    model = decoding_model("cpu", norm=norm).eval().requires_grad_(False)
    src = sources(9, "cpu")
    cached, plain = (decoder(model, src) for decoder in DECODERS)
    tokens = torch.randint(3, 9, (12, 12))
    moves = {
        2: [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]],  # three hypotheses for each sentence
        4: [[2, 0, 0], [5, 4, 3], [8, 8, 8], [10, 9, 11]],  # change places and multiply
        6: [[4, 3, 5], [9, 9, 11]],  # sentences 1 and 3 stay
        8: [[1], [4]],  # one hypothesis each
        10: [[1]],
    }
    rows = 4
    for t in range(12):
        ids = tokens[t, :rows]
        torch.testing.assert_close(cached.step(ids), plain.step(ids), atol=1e-5, rtol=1e-5)
        if t in moves:
            kept = torch.tensor(moves[t])
            cached.reorder(kept)
            plain.reorder(kept)
            rows = kept.numel()


@each_norm
@pytest.mark.parametrize("seed", LIVELY)
def test_with_and_without_a_cache_searches_find_the_same(norm: str, seed: int, many) -> None:
    model = decoding_model("cpu", norm=norm, seed=seed)
    generators = [torch.Generator().manual_seed(3) for _ in DECODERS]
    cached, plain = (
        {
            "greedy": greedy_search(model, many, 12, decoder),
            "sample": sample(model, many, max_len=12, generator=generator, decoder=decoder),
            **{n: beam_search(model, many, n, 1.0, 12, decoder)[0] for n in (1, 3, 5)},
        }
        for decoder, generator in zip(DECODERS, generators, strict=True)
    )
    for name, ids in cached.items():
        assert ids.equal(plain[name]), name


def test_with_and_without_a_cache_beams_have_the_same_scores(model, many) -> None:
    cached, plain = (beam_search(model, many, 4, 0.6, 9, decoder)[1] for decoder in DECODERS)
    torch.testing.assert_close(cached, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_hypothesis_continues_with_the_past_of_the_row_it_came_from(model, decoder) -> None:
    src = sources(9, "cpu")
    steps = decoder(model, src)
    steps.step(torch.ones(4, dtype=torch.int64))
    steps.reorder(torch.tensor([[0, 0], [1, 1], [3, 3]]))  # sentence 2 has ended
    second = torch.tensor([3, 4, 5, 6, 7, 8])
    steps.step(second)
    rows = torch.tensor([[1, 0], [2, 2], [5, 4]])
    steps.reorder(rows)
    third = torch.tensor([8, 3, 6, 5, 4, 7])
    written = torch.stack([torch.ones_like(second), second[rows.flatten()], third], dim=1)
    want = model(repeat(src[[0, 1, 3]], "b k -> (b n) k", n=2), written)[:, -1]
    torch.testing.assert_close(steps.step(third), want, atol=1e-5, rtol=1e-5)


# --- the choice of tokens -------------------------------------------------------------------------


def test_the_best_extensions_are_the_best_of_all() -> None:
    log_probs = torch.randn(6, 7).log_softmax(-1)  # 3 sentences with 2 hypotheses each
    scores = torch.randn(3, 2)
    best, rows, tokens = TokenDecoder().best_extensions(log_probs, scores, 4)
    for i in range(3):
        every = sorted(
            (
                (scores[i, j] + log_probs[2 * i + j, token]).item(),
                2 * i + j,
                token,
            )
            for j in range(2)
            for token in range(7)
        )[::-1]
        want = every[:4]
        assert best[i].tolist() == pytest.approx([score for score, _, _ in want])
        assert rows[i].tolist() == [row for _, row, _ in want]
        assert tokens[i].tolist() == [token for _, _, token in want]


def test_there_are_no_more_extensions_than_hypotheses_times_tokens() -> None:
    found = TokenDecoder().best_extensions(torch.randn(2, 3), torch.zeros(2, 1), 9)
    assert [x.shape for x in found] == [(2, 3)] * 3


def test_the_most_probable_token_is_chosen_row_by_row() -> None:
    logits = torch.tensor([[0.1, 3.0, 2.0], [5.0, -math.inf, 4.0]])
    assert TokenDecoder().argmax(logits).tolist() == [1, 0]


def test_a_decoder_must_define_how_it_steps_and_reorders() -> None:
    with pytest.raises(NotImplementedError):
        TokenDecoder().step(torch.tensor([1, 1]))
    with pytest.raises(NotImplementedError):
        TokenDecoder().reorder(torch.tensor([[0], [1]]))


# --- the cache ------------------------------------------------------------------------------------


@each_norm
def test_one_position_with_a_cache_is_the_last_row_of_the_whole_layer(norm: str) -> None:
    layer = small_model(norm=norm).decoder.layers[0]
    x = torch.randn(2, 5, 12)
    memory = torch.randn(2, 7, 12)
    src_mask = (torch.arange(7) < torch.tensor([[7], [4]])).reshape(2, 1, 1, 7)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    want = layer(x, memory, causal, src_mask)
    cache = KVCache(layer, memory)
    got = [decode_position(layer, x[:, t : t + 1], cache, src_mask) for t in range(5)]
    torch.testing.assert_close(torch.cat(got, dim=1), want, atol=1e-5, rtol=1e-5)


def shapes(tensors: tuple[Tensor, Tensor]) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in tensors]


def test_hypotheses_share_the_keys_and_values_of_their_source() -> None:
    model = small_model()
    decoder = IncrementalDecoder(model, torch.tensor(SRC))
    cache = decoder.caches[0]
    decoder.step(torch.tensor([1, 1]))
    assert shapes(cache.source) == [(2, 3, 6, 4)] * 2
    assert shapes(cache.target) == [(2, 3, 1, 4)] * 2
    decoder.reorder(torch.tensor([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]))
    decoder.step(torch.arange(1, 11))
    assert shapes(cache.source) == [(2, 3, 6, 4)] * 2
    assert shapes(cache.target) == [(10, 3, 2, 4)] * 2
    decoder.reorder(torch.tensor([[7, 6, 9]]))
    assert shapes(cache.source) == [(1, 3, 6, 4)] * 2
    assert shapes(cache.target) == [(3, 3, 2, 4)] * 2


def test_the_encoder_runs_once(model, many) -> None:
    calls = []
    model.encoder.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    for decoder in DECODERS:
        greedy_search(model, many, 9, decoder)
        beam_search(model, many, 3, max_len=9, decoder=decoder)
    assert calls == [20] * 4


# --- batches of many sentences --------------------------------------------------------------------


def beam_by_hand(
    model: Transformer, src: Tensor, n: int, penalty: float, max_len: int
) -> list[int]:
    """Return what beam search finds for one source: lists in place of tensors, and no cache."""
    bos = model.config.bos_id
    eos = model.config.eos_id
    alive = [(0.0, [bos])]
    finished = []
    for t in range(1, max_len + 1):
        tgt = torch.tensor([ids for _, ids in alive])
        log_probs = model(src.expand(len(alive), -1), tgt)[:, -1].log_softmax(-1).tolist()
        longer = [
            (score + log_prob, [*ids, i])
            for (score, ids), row in zip(alive, log_probs, strict=True)
            for i, log_prob in enumerate(row)
            if i not in (bos, model.config.pad_id)
        ]
        best = sorted(longer, reverse=True)[: 2 * n]
        ended = [(score, ids) for score, ids in best[:n] if ids[-1] == eos or t == max_len]
        finished += [(score / t**penalty, ids) for score, ids in ended]
        if len(finished) >= n:
            break
        alive = [(score, ids) for score, ids in best if ids[-1] != eos][:n]
    return max(finished)[1][1:]


@pytest.mark.parametrize(
    ("width", "penalty", "max_len"), [(1, 1.0, 12), (2, 0.0, 12), (3, 1.0, 12), (4, 2.0, 5)]
)
def test_every_sentence_of_a_batch_gets_the_beam_search_of_the_book(
    model, many, width: int, penalty: float, max_len: int
) -> None:
    ids, _ = beam_search(model, many, width, penalty, max_len)
    want = [
        beam_by_hand(model, src[src != 0].unsqueeze(0), width, penalty, max_len) for src in many
    ]
    assert without_padding(ids) == want
    short = [i for i, row in enumerate(want) if len(row) < max_len]
    longest = max(len(want[i]) for i in short)
    few = beam_search(model, many[short], width, penalty, max_len)[0]
    assert few.shape[1] == longest < max_len, "no wider than the longest"


def test_greedy_search_in_a_batch_of_many(model, many) -> None:
    ids = greedy_search(model, many, 23)
    assert ids.equal(greedy_by_hand(model, many, 23))
    lengths = (ids != 0).sum(1)
    short = greedy_search(model, many[lengths < 20], 23)
    assert short.equal(greedy_by_hand(model, many[lengths < 20], 23))
    assert len(short) > 8
    assert short.shape[1] < 20, "no wider than the longest"


def seeded_sample(model: Transformer, src: Tensor, max_len: int, decoder: Callable) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return sample(model, src, max_len=max_len, generator=generator, decoder=decoder)


def narrow_beam(model: Transformer, src: Tensor, max_len: int, decoder: Callable) -> Tensor:
    return beam_search(model, src, 1, 1.0, max_len, decoder)[0]


@pytest.mark.parametrize("base", DECODERS)
@pytest.mark.parametrize("search", [greedy_search, seeded_sample, narrow_beam])
def test_sentences_that_have_ended_leave_the_batch(varied, many, search, base) -> None:
    rows = []
    ids = search(varied, many, 12, counting(rows, base))
    lengths = (ids != 0).sum(1)
    assert len(lengths.unique()) > 3, "the translations end at different times"
    assert rows == [int((lengths > t).sum()) for t in range(ids.shape[1])]


def test_sentences_whose_beam_is_complete_leave_the_batch(varied, many) -> None:
    alone = []
    for src in many:
        rows = []
        beam_search(varied, src.unsqueeze(0), 3, 1.0, 12, counting(rows))
        assert rows == [1] + [3] * (len(rows) - 1), "a beam begins with <s> alone"
        alone.append(len(rows))
    assert len(set(alone)) > 3, "the beams are complete at different times"
    rows = []
    beam_search(varied, many, 3, 1.0, 12, counting(rows))
    going = [sum(steps > t for steps in alone) for t in range(max(alone))]
    assert rows == [20] + [3 * n for n in going[1:]]


def test_beam_search_has_five_hypotheses_ranked_by_the_mean_by_default(model, many) -> None:
    rows = []
    ids, log_probs = beam_search(model, many, decoder=counting(rows))
    assert rows[:2] == [20, 100]
    assert ids.equal(beam_search(model, many, 5, length_penalty=1.0)[0])
    for penalty in (0.0, 2.0):
        assert not log_probs.equal(beam_search(model, many, 5, penalty)[1])


def test_sampling_uses_the_models_own_probabilities_by_default(model, many) -> None:
    one = torch.Generator().manual_seed(0)
    two = torch.Generator().manual_seed(0)
    rows = []
    drawn = sample(model, many, max_len=9, generator=one, decoder=counting(rows))
    assert drawn.equal(sample(model, many, 1.0, top_k=None, max_len=9, generator=two))
    assert rows[0] == 20


def test_beams_wider_than_the_vocabulary_are_searched(model, many) -> None:
    ids, log_probs = beam_search(model, many, 40, 1.0, 3)
    assert log_probs.isfinite().all()
    want = [beam_by_hand(model, src[src != 0].unsqueeze(0), 40, 1.0, 3) for src in many]
    assert without_padding(ids) == want


def test_a_single_sentence_is_a_batch_too(model, many) -> None:
    for src in many[:5]:
        batch = rearrange(src, "k -> 1 k")
        assert greedy_search(model, batch, 12).equal(greedy_by_hand(model, batch, 12))
