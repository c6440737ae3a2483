"""Decoding is faster with the same logits at every step, and the same translations."""

import math
import sys
from collections.abc import Callable

import pytest
import torch
from einops import repeat
from torch import Tensor

from transformer.checks import check_incremental
from transformer.checks.fixtures import LIVELY, decoding_model, small_model, sources
from transformer.cpu import tracing
from transformer.cpu.tracing import MAX_TRACES
from transformer.cpu.workers import parallel_map
from transformer.decoder import Decoder
from transformer.fast_decoding import (
    FEW_SENTENCES,
    AbsorbedCrossAttention,
    PackedDecoder,
    PackedStep,
    StaticCache,
)
from transformer.inference import (
    IncrementalDecoder,
    TokenDecoder,
    beam_search,
    greedy_search,
    sample,
)
from transformer.model import Config, Transformer

each_way = pytest.mark.parametrize("warmup_calls", [0, 10**9], ids=["traced", "as it is"])
each_decoder = pytest.mark.parametrize("make", [PackedDecoder, lambda model: IncrementalDecoder])
each_number = pytest.mark.parametrize("b", [2, FEW_SENTENCES, FEW_SENTENCES + 1, 9])


def random_ids(*shape: int) -> Tensor:
    return torch.randint(3, 9, shape)


def logits_of(decoder: TokenDecoder, ids: Tensor) -> Tensor:
    """Return the logits after each column of ids."""
    return torch.stack([decoder.step(column) for column in ids.unbind(1)], dim=1)


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


# --- the same logits -----------------------------------------------------------------------------


def test_the_packed_decoder_passes_the_check_of_the_plain_one() -> None:
    check_incremental(lambda model, src: PackedDecoder(model)(model, src))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("seed", LIVELY)
@each_way
def test_searches_find_the_same_with_the_packed_decoder(norm, seed: int, warmup_calls) -> None:
    model = decoding_model("cpu", seed=seed, norm=norm)
    src = torch.cat([sources(9, "cpu")] * 3)
    packed = PackedDecoder(model, warmup_calls)
    assert greedy_search(model, src, 12, packed).equal(greedy_search(model, src, 12))
    for beam_size in (1, 2, 5):
        ids, log_probs = beam_search(model, src, beam_size, 1.0, 12, packed)
        want_ids, want = beam_search(model, src, beam_size, 1.0, 12)
        assert ids.equal(want_ids)
        torch.testing.assert_close(log_probs, want)
    drawn = [
        sample(model, src, max_len=9, generator=torch.Generator().manual_seed(0), decoder=decoder)
        for decoder in (packed, IncrementalDecoder)
    ]
    assert drawn[0].equal(drawn[1])
    assert bool(packed.traces.traces) == (warmup_calls == 0)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_a_trace_serves_any_number_of_rows_hypotheses_and_positions(half: bool) -> None:
    dtype = torch.bfloat16 if half else torch.float32
    model = Transformer(Config.tiny(50, n_layers=2, max_len=80)).eval().to(dtype)
    packed = PackedDecoder(model, warmup_calls=0)
    tolerance = dict(atol=0.3, rtol=0.1) if half else dict(atol=1e-4, rtol=1e-4)
    sizes = ((1, 1, 7), (3, 5, 20), (40, 1, 16), (7, 5, 33), (2, 1, 70), (4, 2, 1), (50, 1, 9))
    for b, n, t in sizes:
        src = torch.randint(3, 50, (b, t))
        ids = torch.randint(3, 50, (b * n, 20))
        src[0, t // 2 + 1 :] = 0
        got = logits_of(packed(model, src), ids)
        want = model(repeat(src, "b t -> (b n) t", n=n), ids)
        torch.testing.assert_close(got, want.float(), **tolerance)
    traces = packed.traces.traces
    assert {key[0] for key in traces} == {"encode", "step"}
    assert len(traces) > 4, "few rows and many, absorbed and not"
    untraced = sys.version_info >= (3, 14)
    assert (type(traces["step", True, True]) is PackedStep) == untraced


@pytest.mark.parametrize("b", [1, FEW_SENTENCES + 2], ids=["absorbed", "not absorbed"])
@pytest.mark.parametrize("max_len", [40, 41])
def test_sources_of_every_length_are_read(b: int, max_len: int) -> None:
    model = small_model(max_len=max_len)
    packed = PackedDecoder(model)
    for t in range(1, max_len + 1):
        src = random_ids(b, t)
        ids = random_ids(b, 3)
        close(logits_of(packed(model, src), ids), model(src, ids))


@each_number
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_row_of_nothing_but_padding_is_read_as_the_plain_decoder_reads_it(b: int, norm) -> None:
    model = small_model(norm=norm)
    src = random_ids(b, 7)
    src[1] = 0
    src[0, 4:] = 0
    ids = random_ids(b, 3)
    got = logits_of(PackedDecoder(model)(model, src), ids)
    assert got.isfinite().all()
    close(got, logits_of(IncrementalDecoder(model, src), ids))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 0.1), (torch.float64, 1e-9)])
def test_packed_weights_in_other_precisions_read_what_the_model_reads(dtype, atol: float) -> None:
    model = small_model(max_len=20).to(dtype)
    src = sources(9, "cpu")
    ids = random_ids(len(src), 20)
    got = logits_of(PackedDecoder(model)(model, src), ids)
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(got, model(src, ids).to(got.dtype), atol=atol, rtol=0.1)


def test_the_packed_decoder_reads_without_dropout() -> None:
    model = small_model(dropout=0.5)
    src = sources(9, "cpu")
    want = PackedDecoder(model)(model.eval(), src).step(src[:, 0])
    assert PackedDecoder(model)(model.train(), src).step(src[:, 0]).equal(want)


def test_packed_weights_are_copies_and_belong_to_one_model() -> None:
    model = small_model()
    packed = PackedDecoder(model)
    src = sources(9, "cpu")
    before = greedy_search(model, src, 6, packed)
    for layer in (*model.encoder.layers, *model.decoder.layers):
        for parameter in layer.parameters():
            parameter.mul_(-1)
    assert greedy_search(model, src, 6, packed).equal(before)
    with pytest.raises(ValueError, match="packed for another model"):
        greedy_search(small_model(), src, decoder=packed)


def test_packed_weights_have_no_gradient_and_say_so() -> None:
    model = small_model()
    packed = PackedDecoder(model)
    with torch.enable_grad(), pytest.raises(RuntimeError, match="no gradient"):
        packed(model, sources(9, "cpu"))


def test_the_same_packed_weights_serve_several_decoders_at_once() -> None:
    model = small_model()
    packed = PackedDecoder(model, warmup_calls=0)
    batches = [random_ids(3, 5), random_ids(3, 5)]
    decoders = [packed(model, src) for src in batches]
    ids = random_ids(3, 6)
    steps = [[decoder.step(column) for decoder in decoders] for column in ids.unbind(1)]
    for i, src in enumerate(batches):
        close(torch.stack([step[i] for step in steps], dim=1), model(src, ids))


def test_absorbed_cross_attention_is_cross_attention() -> None:
    decoder = Decoder(3, 12, 2, 20)
    x, memory = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    real = torch.arange(7) < torch.tensor([[7], [4]])
    for layer in decoder.layers:
        for parameter in layer.cross_attention.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    cross = [layer.cross_attention for layer in decoder.layers]
    k, v = (torch.stack(part) for part in zip(*(a.project_kv(memory) for a in cross), strict=True))
    mask = torch.zeros(2, 1, 1, 7).masked_fill(~real[:, None, None], -math.inf)
    absorbed = AbsorbedCrossAttention(decoder.layers)(k, v, mask)
    for attention, to_scores, to_output, bias in zip(cross, *absorbed, strict=True):
        weights = (x @ to_scores + bias).unflatten(-1, (2, 7)).softmax(-1).flatten(-2)
        close(weights @ to_output, attention(x, memory, real[:, None, None]))


# --- hypotheses that change places ---------------------------------------------------------------


def test_there_is_room_for_more_positions_than_were_made_beforehand() -> None:
    model = small_model(max_len=80)
    src = sources(9, "cpu")
    ids = random_ids(len(src), 70)
    close(logits_of(PackedDecoder(model)(model, src), ids), model(src, ids))


@each_number
def test_cells_that_no_hypothesis_descends_from_are_forgotten(b: int) -> None:
    model = small_model(max_len=80)
    src = random_ids(b, 6)
    src[0, 3:] = 0
    ids = random_ids(70, b * 5)
    packed = PackedDecoder(model)(model, src)
    plain = IncrementalDecoder(model, src)
    for t in range(70):
        close(packed.step(ids[t]), plain.step(ids[t]))
        chosen = torch.randint(0, 5, (b, 5)) if t % 10 else torch.full((b, 5), t % 5)
        rows = chosen + 5 * torch.arange(b).unsqueeze(1)
        packed.reorder(rows)
        plain.reorder(rows)
    message = "of five hypotheses at each position, few have descendants"
    assert packed.cache.kv.shape[4] < 70 * 5 / 2, message


@each_decoder
@each_number
def test_one_hypothesis_may_become_several(make: Callable, b: int) -> None:
    model = decoding_model("cpu").eval()
    src = random_ids(b, 5)
    first = torch.ones_like(src[:, 0])
    then = random_ids(b, 3)
    decoder = make(model)(model, src)
    written = torch.stack([repeat(first, "b -> (b n)", n=3), then.flatten()], dim=1)
    want = model(repeat(src, "b t -> (b n) t", n=3), written)
    close(decoder.step(first), want[::3, 0])
    decoder.reorder(repeat(torch.arange(b), "b -> b n", n=3))
    close(decoder.step(then.flatten()), want[:, 1])


@each_decoder
@each_number
def test_hypotheses_may_become_more_and_fewer_while_sentences_leave(make, b: int) -> None:
    """Follow each row's source and its tokens by hand."""
    model = small_model(max_len=40)
    src = random_ids(b, 6)
    src[0, 4:] = 0
    decoder = make(model)(model, src)
    written = torch.ones(b, 1, dtype=torch.long)
    sentences = torch.arange(b)
    n = 1
    for wanted, leaves in ((5, False), (5, False), (5, True), (2, False), (1, False), (3, b > 2)):
        close(decoder.step(written[:, -1]), model(src[sentences], written)[:, -1])
        stay = torch.arange(len(written) // n)[int(leaves) :]
        rows = n * stay.unsqueeze(1) + torch.randint(n, (len(stay), wanted))
        decoder.reorder(rows)
        sentences = sentences[rows.flatten()]
        written = torch.cat([written[rows.flatten()], random_ids(rows.numel(), 1)], dim=1)
        n = wanted
    close(decoder.step(written[:, -1]), model(src[sentences], written)[:, -1])


@each_decoder
def test_sentences_that_leave_do_not_disturb_the_others(make: Callable) -> None:
    model = decoding_model("cpu").eval()
    src = sources(9, "cpu")
    ids = torch.randint(3, 9, (len(src), 2, 3))
    flipped = torch.arange(2 * len(src)).view(-1, 2).flip(1)
    stay = torch.tensor([3, 1])
    everyone, some = (make(model)(model, src) for _ in range(2))
    for decoder, rows in ((everyone, flipped), (some, flipped[stay])):
        decoder.step(ids[..., 0].flatten())
        decoder.reorder(rows)
    want = everyone.step(ids[..., 1].flatten()).view(len(src), 2, -1)[stay]
    torch.testing.assert_close(some.step(ids[stay, :, 1].flatten()).view(2, 2, -1), want)


@each_decoder
@each_number
def test_sentences_may_change_places(make: Callable, b: int) -> None:
    model = small_model()
    src = random_ids(b, 6)
    src[0, 4:] = 0
    decoder = make(model)(model, src)
    ids = random_ids(b, 2)
    decoder.step(ids[:, 0])
    order = torch.arange(b).roll(1)
    decoder.reorder(order.unsqueeze(1))
    close(decoder.step(ids[order, 1]), model(src[order], ids[order])[:, -1])


def test_a_cache_shows_each_hypothesis_its_own_past_and_nothing_else() -> None:
    cache = StaticCache(torch.zeros(1, 2, 1, 1, 16, 3), n=2)
    cells, kv, mask = cache.next_cells()
    assert cells.data_ptr() == kv.data_ptr(), "what is written into the cells is in the cache"
    assert cells.shape[4] == 2
    assert mask[0, :, :3].tolist() == [[0, -math.inf, -math.inf], [-math.inf, 0, -math.inf]]
    cache.reorder(torch.tensor([[1, 1]]))
    cells, _, mask = cache.next_cells()
    assert cells.storage_offset() == 2 * 3
    assert mask[0].isfinite()[:, :4].int().tolist() == [[0, 1, 1, 0], [0, 1, 0, 1]]
    assert not mask[0].isfinite()[:, 4:].any()


# --- traces --------------------------------------------------------------------------------------


def test_nothing_is_traced_for_a_single_sentence() -> None:
    model = decoding_model("cpu")
    src = sources(9, "cpu")[:1]
    packed = PackedDecoder(model)
    want = greedy_search(model, src, 9, packed)
    assert not packed.traces.traces
    for _ in range(40):
        assert greedy_search(model, src, 9, packed).equal(want)
    assert set(packed.traces.traces) == {("encode", True, True), ("step", True, True)}


def test_workers_that_begin_together_share_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoding_model("cpu")
    src = sources(9, "cpu")
    made = []
    real = tracing.trace
    monkeypatch.setattr(tracing, "trace", lambda *given: made.append(real(*given)) or made[-1])
    packed = PackedDecoder(model, warmup_calls=0)
    want = greedy_search(model, src, 9)

    def search(_: int) -> Tensor:
        return greedy_search(model, src, 9, packed)

    assert all(ids.equal(want) for ids in parallel_map(search, range(12), 4))
    assert len(packed.traces.traces) == 2
    assert len([trace for trace in made if trace in packed.traces.traces.values()]) == 2


def test_there_are_few_shapes_however_many_lengths_are_read(monkeypatch) -> None:
    """Each new shape costs oneDNN time and memory."""
    model = small_model(max_len=32)
    packed = PackedDecoder(model, warmup_calls=0)
    seen = []
    run = packed.run

    def noted(name: str, rows: int, absorbed: bool, *inputs: Tensor) -> Tensor | tuple:
        seen.append((name, rows, *(x.shape for x in inputs)))
        return run(name, rows, absorbed, *inputs)

    monkeypatch.setattr(packed, "run", noted)
    for call in range(60):
        packed(model, random_ids(2, 1 + call % 30))
    assert len(seen) == 60
    assert len(set(seen)) <= 8
    assert len(packed.traces.traces) <= 4 <= MAX_TRACES


# --- searching -----------------------------------------------------------------------------------


@pytest.mark.parametrize("v", [11, 600])
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_the_most_probable_token_is_found(rows: int, v: int) -> None:
    model = small_model(vocab_size=v)
    decoder = PackedDecoder(model)(model, random_ids(rows, 4))
    logits = torch.randn(rows, v)
    logits[:, [0, 1]] = -math.inf
    assert decoder.argmax(logits).equal(logits.argmax(-1))


@pytest.mark.parametrize("v", [11, 600])
@pytest.mark.parametrize(("b", "n", "k"), [(2, 3, 4), (1, 5, 10), (4, 1, 2), (2, 1, 40)])
def test_the_best_extensions_are_those_of_the_plain_decoder(v, b: int, n: int, k: int) -> None:
    model = small_model(vocab_size=v)
    src = random_ids(b, 4)
    log_probs = torch.randn(b * n, v).log_softmax(-1)
    log_probs[:, [0, 1]] = -math.inf
    scores = -3 * torch.rand(b, n)
    decoders = (PackedDecoder(model)(model, src), IncrementalDecoder(model, src))
    found, want = (decoder.best_extensions(log_probs, scores, k) for decoder in decoders)
    finite = want[0].isfinite()
    assert found[0].equal(want[0])
    for got, expected in zip(found[1:], want[1:], strict=True):
        assert got[finite].equal(expected[finite])
