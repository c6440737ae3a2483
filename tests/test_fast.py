"""What is faster computes the same."""

import copy
import sys

import pytest
import torch
import torch.nn.functional as F

from transformer import Config, Transformer, fast
from transformer.attention import attention
from transformer.checks import LIVELY, SRC, TGT, check_incremental, decoding_model, small_model, sources
from transformer.decoder import causal_mask
from transformer.fast import (
    CheapDropout,
    PackedDecoder,
    PackedLinear,
    PackedStep,
    Player,
    QuickLinear,
    causal_attention,
    chunked_loss,
    has_fast_bfloat16,
    linear,
    pieces,
    record,
    short_attention,
    speed_up,
    top_k,
)
from transformer.inference import (
    IncrementalDecoder,
    TorchEngine,
    beam_search,
    greedy_search,
    sample,
    shared_out,
    spread,
)
from transformer.training import label_smoothed_loss


def inputs(tokens: int = 11, v: int = 9) -> tuple[torch.Tensor, ...]:
    """Return states, table, bias and labels, some of them padding (3)."""
    x, weight, bias = torch.randn(tokens, 6), torch.randn(v, 6), torch.randn(v)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), torch.arange(tokens) % v


# Below and above the size from which oneDNN multiplies.
@pytest.mark.parametrize("sizes", [(3, 8, 5), (40, 512, 512), (1, 512, 513), (2, 30, 256, 512)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_are_the_same_whoever_makes_them(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    *rows, wide, out = sizes
    x, layer = torch.randn(*rows, wide, dtype=dtype), torch.nn.Linear(wide, out, dtype=dtype)
    atol, rtol = (0.05, 0.02) if dtype == torch.bfloat16 else (1e-5, 1e-4)
    with torch.no_grad():
        for got in (linear(x, layer.weight, layer.bias), PackedLinear(layer.weight, layer.bias)(x)):
            torch.testing.assert_close(got.to(dtype), layer(x), atol=atol, rtol=rtol)


@pytest.mark.skipif(not has_fast_bfloat16("cpu"), reason="this processor does not multiply bfloat16 quickly")
@pytest.mark.parametrize("reason", ["", "another engine", "out of reach"])
def test_few_rows_keep_their_digits_when_a_small_weight_is_in_bfloat16(reason, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "another engine":
        monkeypatch.setattr(torch.backends.quantized, "engine", "onednn")
    layer, x = torch.nn.Linear(64, 48).bfloat16(), torch.randn(3, 64)
    if reason == "out of reach":
        layer.weight.data[0, 0] = 1e5  # more than float16 can hold
    packed, want = (
        PackedLinear(layer.weight, layer.bias),
        torch.nn.functional.linear(x, *map(torch.Tensor.float, layer.parameters())),
    )
    assert (packed.halves is None) == bool(reason)
    torch.testing.assert_close(packed(x, few=True), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed(x, few=False).float(), want, atol=0.05, rtol=0.02)


def test_a_quick_linear_layer_may_have_no_bias() -> None:
    layer, x = torch.nn.Linear(512, 600, bias=False), torch.randn(20, 512)
    QuickLinear(layer)(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(600, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wide", [8, 512])
def test_a_quick_linear_layer_has_the_weights_and_gradients_of_the_plain_one(wide: int) -> None:
    layer, x = torch.nn.Linear(wide, 600), torch.randn(2, 20, wide, requires_grad=True)
    quick, weights = QuickLinear(layer), torch.randn(2, 20, 600)
    assert quick.weight is layer.weight and quick.bias is layer.bias
    assert quick.state_dict().keys() == layer.state_dict().keys()
    inputs = (x, layer.weight, layer.bias)
    torch.testing.assert_close(quick(x), layer(x), atol=1e-5, rtol=1e-4)
    wanted = torch.autograd.grad(layer(x), inputs, weights)
    for got, want in zip(torch.autograd.grad(quick(x), inputs, weights), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert quick(x).dtype == torch.bfloat16


@pytest.mark.parametrize("keys", [3, 15, 16, 17, 200])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_attention_is_attention_however_many_keys(keys: int, masked: bool, dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, 3, n, 8, dtype=dtype) for n in (6, keys, keys))
    mask = (torch.rand(2, 1, 6, keys) < 0.6) if masked else None
    if masked:
        mask[1, 0, 2] = False
    got, want = short_attention(q, k, v, mask), attention(q.float(), k.float(), v.float(), mask)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, atol=0.02 if dtype == torch.bfloat16 else 1e-5, rtol=0.01)


@pytest.mark.parametrize("t", [1, 2, 32, 33, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_under_a_mask_of_one_row_time_is_understood(t: int, dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, 3, t, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    real = torch.ones(2, 1, 1, t, dtype=torch.bool)
    real[0, ..., t // 2 + 1 :] = real[1, ..., : t // 4] = False  # padding behind, and before: rows that see nothing
    full, weights = real & causal_mask(t), torch.randn(q.shape, dtype=dtype)
    got, want = causal_attention(q, k, v, real), short_attention(q, k, v, full)
    assert got.dtype == dtype and causal_attention(q, k, v, full).equal(want), "a whole mask is taken as it is"
    torch.testing.assert_close(got, want)
    wanted = torch.autograd.grad(want, (q, k, v), weights)
    for a, b in zip(torch.autograd.grad(got, (q, k, v), weights), wanted, strict=True):
        torch.testing.assert_close(a, b)


def kept(model: torch.nn.Module, t: int) -> int:
    """Return the bytes of the different tensors that a step of training holds for its backward pass."""
    sizes = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    src, tgt = torch.randint(3, 11, (2, 1, t))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        held = model.states(tgt, model.encode(src), src)
    assert held.requires_grad
    return sum(sizes.values())


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    model = small_model(max_len=1024).train()
    slow = kept(model, 1024) / kept(model, 512)
    quick = kept(speed_up(model), 1024) / kept(model, 512)
    assert quick < 2.05 and slow > 2.5


@pytest.mark.parametrize("t", [20, 70])
@pytest.mark.parametrize("half", [False, True])
def test_a_quick_model_is_the_plain_one_at_every_length(t: int, half: bool) -> None:
    torch.manual_seed(0)
    model, (src, tgt) = small_model(max_len=100), torch.randint(3, 11, (2, 3, t))
    src[0, t // 2 :] = tgt[1, t // 3 :] = 0
    want, quick = model(src, tgt), speed_up(copy.deepcopy(model))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        got = quick(src, tgt)
    torch.testing.assert_close(got.float(), want, atol=0.1 if half else 1e-5, rtol=0.1 if half else 1e-4)
    if not half:
        ways = ((got, quick), (want, model))
        pairs = zip(*(torch.autograd.grad(out.square().sum(), net.parameters()) for out, net in ways), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def gradients(loss: torch.Tensor, parameters: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(3 * loss, parameters)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("chunk", [1, 4, 512])
def test_the_chunked_loss_is_the_loss_and_has_its_gradients(smoothing: float, chunk: int) -> None:
    x, weight, bias, labels = inputs()
    got = chunked_loss(x, weight, bias, labels, 3, smoothing, chunk)
    want = label_smoothed_loss(F.linear(x, weight, bias), labels, 3, smoothing)
    torch.testing.assert_close(got, want)
    for a, b in zip(gradients(got, (x, weight, bias)), gradients(want, (x, weight, bias)), strict=True):
        torch.testing.assert_close(a, b)


def test_without_smoothing_it_is_pytorchs_cross_entropy() -> None:
    x, weight, bias, labels = inputs()
    want = F.cross_entropy(F.linear(x, weight, bias), labels, ignore_index=3)
    torch.testing.assert_close(chunked_loss(x, weight, bias, labels, 3, 0.0), want)


def test_with_smoothing_it_is_pytorchs_cross_entropy_of_the_smoothed_labels() -> None:
    x, weight, bias, labels = inputs()
    targets = torch.full((11, 9), 0.1 / 8).index_fill(1, torch.tensor(3), 0.0) + 0.9 * F.one_hot(labels, 9)
    real = labels != 3
    want = F.cross_entropy(F.linear(x, weight, bias)[real], targets[real])
    torch.testing.assert_close(chunked_loss(x, weight, bias, labels, 3, 0.1), want)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_cheap_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    dropout, x = CheapDropout(p), torch.ones(300, 1001)
    out = dropout(x)
    assert abs((out == 0).float().mean().item() - p) < 0.005
    assert abs(out.mean().item() - 1) < 0.01
    assert len(out.unique()) == 2, "what is kept is scaled, alike"
    assert not dropout(x).equal(out), "and it is drawn anew each time"


def test_cheap_dropout_rests_in_eval_and_at_zero() -> None:
    x = torch.randn(3, 5)
    assert CheapDropout(0.5).eval()(x).equal(x)
    assert CheapDropout(0.0)(x).equal(x)
    assert CheapDropout(0.5)(x.half()).dtype == torch.float16


def test_cheap_dropout_hands_the_gradient_to_what_was_kept() -> None:
    x = torch.ones(40, 25, requires_grad=True)
    out = CheapDropout(0.25)(x)
    out.sum().backward()
    assert x.grad.equal(out.detach())


def test_speed_up_changes_nothing_in_eval_mode() -> None:
    model, src, tgt = small_model(dropout=0.3), torch.tensor(SRC), torch.tensor(TGT)
    before = model(src, tgt)
    names = list(model.state_dict())
    torch.testing.assert_close(speed_up(model).eval()(src, tgt), before)
    assert list(model.state_dict()) == names, "and a checkpoint fits as before"
    assert not any(isinstance(module, torch.nn.Dropout) for module in model.modules())


# --- decoding --------------------------------------------------------------------------------------------------------


def test_the_packed_decoder_passes_the_check_of_the_plain_one() -> None:
    check_incremental(lambda model, src: PackedDecoder(model)(model, src))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("seed", LIVELY)
@pytest.mark.parametrize("patience", [0, 10**9], ids=["recorded", "played"])
def test_searches_find_the_same_with_the_packed_decoder(norm: str, seed: int, patience: int) -> None:
    model, src = decoding_model("cpu", seed=seed, norm=norm), torch.cat([sources(9, "cpu")] * 3)
    packed = PackedDecoder(model, patience)
    assert greedy_search(model, src, 12, packed).equal(greedy_search(model, src, 12))
    for width in (1, 2, 5):
        ids, log_probs = beam_search(model, src, width, 1.0, 12, packed)
        want_ids, want = beam_search(model, src, width, 1.0, 12)
        assert ids.equal(want_ids)
        torch.testing.assert_close(log_probs, want)
    draw = [
        sample(model, src, max_len=9, generator=torch.Generator().manual_seed(0), decoder=d)
        for d in (packed, IncrementalDecoder)
    ]
    assert draw[0].equal(draw[1])
    assert bool(packed.player.recorded) == (patience == 0)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_a_recording_serves_any_number_of_rows_hypotheses_and_places(half: bool) -> None:
    model = Transformer(Config.tiny(50, max_len=80)).eval().to(torch.bfloat16 if half else torch.float32)
    packed, atol = PackedDecoder(model, patience=0), 0.3 if half else 1e-4
    for b, n, t in ((1, 1, 7), (3, 5, 20), (40, 1, 16), (7, 5, 33), (2, 1, 70), (4, 2, 1), (50, 1, 9)):
        src, ids = torch.randint(3, 50, (b, t)), torch.randint(3, 50, (b * n, 20))
        src[0, t // 2 + 1 :] = 0
        with torch.no_grad():
            decoder, want = packed(model, src), model(src.repeat_interleave(n, dim=0), ids)
            got = torch.stack([decoder.step(ids[:, i]) for i in range(20)], dim=1)
        torch.testing.assert_close(got, want.float(), atol=atol, rtol=0.1 if half else 1e-4)
    assert {kind[0] for kind in packed.player.recorded} == {"encode", "step"}
    assert len(packed.player.recorded) > 4, "few rows and many, folded and not"
    assert (type(packed.player.recorded["step", True, True]) is PackedStep) == (sys.version_info >= (3, 14))


def test_nothing_is_recorded_for_a_single_sentence() -> None:
    model, src = decoding_model("cpu"), sources(9, "cpu")[:1]
    packed = PackedDecoder(model)
    want = greedy_search(model, src, 9, packed)
    assert not packed.player.recorded
    for _ in range(40):
        assert greedy_search(model, src, 9, packed).equal(want)
    assert set(packed.player.recorded) == {("encode", True, True), ("step", True, True)}


def test_workers_that_begin_together_share_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    model, src, made = decoding_model("cpu"), sources(9, "cpu"), []
    packed = PackedDecoder(model, patience=0)
    monkeypatch.setattr(fast, "record", lambda *given: made.append(record(*given)) or made[-1])
    want = greedy_search(model, src, 9)
    found = list(spread(lambda _: greedy_search(model, src, 9, packed), range(12), 4))
    assert all(ids.equal(want) for ids in found)
    assert len(packed.player.recorded) == len(made) == 2


def test_the_packed_decoder_reads_without_dropout() -> None:
    model, src = small_model(dropout=0.5), sources(9, "cpu")
    with torch.no_grad():
        want = PackedDecoder(model)(model.eval(), src).step(src[:, 0])
        assert PackedDecoder(model)(model.train(), src).step(src[:, 0]).equal(want)


def test_there_is_room_for_more_positions_than_were_made_beforehand() -> None:
    model, src = small_model(max_len=80), sources(9, "cpu")
    tgt = torch.randint(3, 9, (len(src), 70))
    with torch.no_grad():
        decoder = PackedDecoder(model)(model, src)
        steps = torch.stack([decoder.step(tgt[:, t]) for t in range(70)], dim=1)
        torch.testing.assert_close(steps, model(src, tgt), atol=2e-5, rtol=1e-5)


def test_what_no_hypothesis_descends_from_is_forgotten() -> None:
    model, src = small_model(max_len=80), sources(9, "cpu")[:3]
    ids = torch.randint(3, 9, (70, len(src) * 5))
    with torch.no_grad():
        decoder, plain = PackedDecoder(model)(model, src), IncrementalDecoder(model, src)
        for t in range(70):
            torch.testing.assert_close(decoder.step(ids[t]), plain.step(ids[t]), atol=2e-5, rtol=1e-5)
            chosen = torch.randint(0, 5, (len(src), 5)) if t % 10 else torch.full((len(src), 5), t % 5)
            rows = (chosen + 5 * torch.arange(len(src)).unsqueeze(1)).flatten()
            decoder.select(rows)
            plain.select(rows)
    assert decoder.cache.own.shape[4] < 70 * 5 / 2, "of five hypotheses at each place, few have descendants"


@pytest.mark.parametrize("make", [PackedDecoder, lambda model: IncrementalDecoder])
def test_one_hypothesis_may_become_several(make) -> None:
    model, src = decoding_model("cpu"), sources(9, "cpu")
    first, then = torch.ones_like(src[:, 0]), torch.randint(3, 9, (len(src), 3))
    with torch.no_grad():
        decoder, want = (
            make(model)(model, src),
            model(src.repeat_interleave(3, dim=0), torch.stack([first.repeat_interleave(3), then.flatten()], dim=1)),
        )
        torch.testing.assert_close(decoder.step(first), want[::3, 0], atol=2e-5, rtol=1e-5)
        decoder.select(torch.arange(len(src)).repeat_interleave(3))
        torch.testing.assert_close(decoder.step(then.flatten()), want[:, 1], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [PackedDecoder, lambda model: IncrementalDecoder])
def test_sentences_that_leave_do_not_disturb_the_others(make) -> None:
    model, src = decoding_model("cpu"), sources(9, "cpu")
    ids = torch.randint(3, 9, (len(src), 2, 3))
    stay = torch.tensor([3, 1])
    with torch.no_grad():
        all_of_them, some = (make(model)(model, src) for _ in range(2))
        for decoder in (all_of_them, some):
            decoder.step(ids[..., 0].flatten())
            decoder.select(torch.arange(2 * len(src)).view(-1, 2).flip(1).flatten())
        some.keep(stay)
        want = all_of_them.step(ids[..., 1].flatten()).view(len(src), 2, -1)[stay]
        torch.testing.assert_close(some.step(ids[stay, :, 1].flatten()).view(2, 2, -1), want)


def test_packed_weights_serve_their_own_model_alone() -> None:
    with pytest.raises(ValueError, match="packed for another model"):
        greedy_search(small_model(), sources(9, "cpu"), decoder=PackedDecoder(small_model()))


@pytest.mark.parametrize("v", [600, 10_000, 997, 130])
@pytest.mark.parametrize("k", [1, 4, 10])
@pytest.mark.parametrize("rows", [1, 7])
def test_top_k_finds_the_largest(rows: int, k: int, v: int) -> None:
    x = torch.randn(rows, v)
    x[:, 5:9] = 4 + torch.randn(rows, 4)  # several in one piece
    found, want = top_k(x, k), x.topk(k)
    assert found.values.equal(want.values)
    assert found.indices.equal(want.indices)


@pytest.mark.parametrize("patience", [0, 10**9], ids=["recorded", "played"])
@pytest.mark.parametrize(
    "v, k, n", [(600, 4, 3), (10_000, 10, 5), (997, 4, 3), (400, 10, 5), (10_000, 2, 1), (600, 3, 1)]
)
def test_top_k_adds_what_a_row_already_has(
    v: int, k: int, n: int, patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "player", Player(patience))
    for b in (4, 1, 9):
        x, offsets = torch.randn(b * n, v), 3 * torch.randn(b, n)
        x[:, 5:9], x[0, 3] = 4 + torch.randn(b * n, 4), -torch.inf
        found, want = top_k(x, k, offsets), (x.view(b, n, v) + offsets.unsqueeze(-1)).view(b, -1).topk(k)
        assert found.values.equal(want.values)
        assert found.indices.equal(want.indices)


@pytest.mark.parametrize("patience", [0, 10**9], ids=["recorded", "played"])
def test_top_k_finds_the_largest_of_any_number_of_rows(patience: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "player", Player(patience))
    for rows, k, v in ((7, 2, 600), (50, 2, 600), (4, 2, 600), (9, 1, 600), (9, 2, 800), (3, 2, 600)):
        x = torch.randn(rows, v)
        assert torch.equal(top_k(x, k).indices, x.topk(k).indices)
    assert set(fast.player.recorded) == (set() if patience else {(600, 2, 1), (600, 1, 1), (800, 2, 1)})


def test_a_row_is_cut_into_pieces_of_about_two_hundred() -> None:
    assert [pieces(v) for v in (10_000, 600, 37_000, 997, 8, 1)] == [50, 3, 185, 1, 1, 1]


@pytest.mark.parametrize(
    "sizes, workers, pieces",
    [
        ([64, 36], 2, [[56, 8], [36]]),
        ([64], 2, [[32, 32]]),
        ([4, 32, 32, 32], 2, [[4], [32], [32], [24, 8]]),
        ([32, 32, 32, 32], 2, [[32], [32], [32], [32]]),
        ([16] * 5, 4, [[16]] * 4 + [[8, 8]]),
        ([40, 30], 4, [[20, 20], [20, 10]]),
        ([9], 4, [[9]]),
        ([5, 20], 1, [[5], [20]]),
        ([], 2, []),
    ],
)
def test_groups_are_cut_so_that_workers_end_together(sizes: list[int], workers: int, pieces: list[list[int]]) -> None:
    groups = [([[i, j] for j in range(size)], 7 + i) for i, size in enumerate(sizes)]
    shared = shared_out(groups, workers)
    assert [[len(rows) for rows, _ in group] for group in shared] == pieces
    assert [([row for rows, _ in group for row in rows], group[0][1]) for group in shared] == groups


@pytest.mark.parametrize("beam_size", [1, 3])
def test_the_engine_finds_the_same_with_any_number_of_workers(beam_size: int) -> None:
    engine, rows = TorchEngine(decoding_model("cpu")), sources(9, "cpu").tolist() * 12
    groups, threads, found = [(rows, 9), (rows[:20], 5), (rows[:3], 7)], torch.get_num_threads(), []
    try:
        for workers in (1, 2, 3):
            torch.set_num_threads(workers)
            found.append([[without_padding(ids) for ids in group] for group in engine.search_all(groups, beam_size)])
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]
    assert [len(group) for group in found[0]] == [len(rows), 20, 3]


def without_padding(ids: list[int]) -> list[int]:
    return [i for i in ids if i != 0]


@pytest.mark.parametrize("dtype, atol", [(torch.bfloat16, 0.1), (torch.float64, 1e-9)])
def test_packed_weights_in_other_precisions_read_what_the_model_reads(dtype: torch.dtype, atol: float) -> None:
    model, src = small_model(max_len=20).to(dtype), sources(9, "cpu")
    ids = torch.randint(3, 9, (len(src), 20))
    with torch.no_grad():
        decoder, want = PackedDecoder(model)(model, src), model(src, ids)
        got = torch.stack([decoder.step(ids[:, t]) for t in range(20)], dim=1)
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(got, want.to(got.dtype), atol=atol, rtol=0.1)


def test_work_that_is_spread_comes_back_in_order_and_leaves_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    assert list(spread(lambda i: (i, torch.get_num_threads()), range(9), 3)) == [(i, 1) for i in range(9)]
    assert list(spread(lambda i: i, range(3), 1)) == [0, 1, 2]
    assert list(spread(lambda i: i, [], 2)) == []
    with pytest.raises(ZeroDivisionError):
        list(spread(lambda i: 1 // i, [1, 0, 1], 2))
    assert torch.get_num_threads() == threads


def test_whether_bfloat16_pays_is_a_yes_or_a_no() -> None:
    assert has_fast_bfloat16("cpu") in (True, False)
