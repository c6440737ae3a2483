"""CTranslate2 finds the tokens that `beam_search` finds, and refuses what it would do otherwise."""

from pathlib import Path

import pytest
import torch
from lively_models import (
    ROWS,
    SIZE,
    TOKENIZER,
    found,
    lively,
    search,
    search_groups,
    without_padding,
)

from transformer.checks.fixtures import small_model
from transformer.data import BOS, EOS, PAD, pad
from transformer.engines.ctranslate2 import (
    HYPOTHESES,
    CTranslate2Engine,
    current_ctranslate2,
    export_ctranslate2,
)
from transformer.fast_training import optimize_for_cpu
from transformer.inference import greedy_search
from transformer.model import Config, Transformer

pytest.importorskip("ctranslate2")

both_norms = pytest.mark.parametrize("norm", ["post", "pre"])


def make_engine(model: Transformer, folder: Path, **options) -> CTranslate2Engine:
    return CTranslate2Engine(export_ctranslate2(model, TOKENIZER, folder), model.config, **options)


@both_norms
@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_same_tokens(norm: str, seed: int, tmp_path) -> None:
    model = lively(norm, seed)
    engine = make_engine(model, tmp_path / "out")
    settings = [
        (1, 1.0, 20),
        (2, 0.0, 20),
        (5, 1.0, 20),
        (5, 0.6, 9),
        (3, 2.0, 1),
        (8, 0.0, 40),
    ]
    seen = set()
    for beam_size, penalty, max_len in settings:
        want = found(model, ROWS, beam_size, penalty, max_len)
        got = search(engine, ROWS, beam_size, penalty, max_len)
        assert got == want, (beam_size, penalty, max_len)
        seen |= set(map(tuple, want))
    assert len({len(row) for row in seen}) > 3
    assert {row[-1] == EOS for row in seen} == {True, False}


def test_without_a_length_penalty_it_ends_by_the_same_rule(tmp_path) -> None:
    """Two hypotheses end, neither as the most probable of its step: by CTranslate2's own rule for a
    penalty of 0 it would go on."""
    model = lively("pre", 1, end=3.0)
    rows = [[25, 28, EOS]]
    engine = make_engine(model, tmp_path / "out")
    assert search(engine, rows, 2, 0.0, 20) == found(model, rows, 2, 0.0, 20)


def test_groups_keep_their_limits_and_their_order(tmp_path) -> None:
    model = lively()
    engine = make_engine(model, tmp_path / "out", threads=3)
    groups = [(ROWS, 5), ([], 9), (ROWS[::-1] * (HYPOTHESES // 2), 2), (ROWS[:1], 20)]
    for beam_size in (1, 4):
        results = search_groups(engine, groups, beam_size)
        assert results == [
            found(model, rows, beam_size, 1.0, n) if rows else [] for rows, n in groups
        ]
    assert list(engine.search_all([])) == []


def test_it_writes_neither_padding_nor_the_start(tmp_path) -> None:
    model = lively()
    model.bias[[PAD, BOS]] += 60
    engine = make_engine(model, tmp_path / "out")
    greedy = greedy_search(model, pad(ROWS), 20)
    assert search(engine, ROWS, 1, 1.0, 20) == without_padding(greedy)
    assert not {PAD, BOS} & {i for row in search(engine, ROWS, 5, 1.0, 20) for i in row}


def test_int8_finds_nearly_the_same(tmp_path) -> None:
    config = Config(SIZE, d_model=48, n_heads=3, n_layers=2, d_ff=96, max_len=24)
    model = Transformer(config).eval().requires_grad_(False)
    engine = make_engine(model, tmp_path / "out", precision="int8")
    want = found(model, ROWS, 1, 1.0, 20)
    got = search(engine, ROWS, 1, 1.0, 20)
    assert sum(map(list.__eq__, want, got)) >= len(ROWS) / 2
    assert len(set(map(tuple, want))) > 4


def test_it_leaves_pytorchs_threads_as_they_were(tmp_path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        engine = make_engine(lively(), tmp_path / "out")
        search(engine, ROWS)
        assert engine.threads == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_model_in_training_in_half_and_optimized_is_exported_and_left_as_it_is(tmp_path) -> None:
    model = optimize_for_cpu(lively()).bfloat16().train()
    engine = make_engine(model, tmp_path / "out")
    assert model.training
    assert model.bias.dtype == torch.bfloat16
    model = model.float().eval()
    assert search(engine, ROWS, 5, 1.0, 20) == found(model, ROWS, 5, 1.0, 20)


NO_FP16 = "no precision 'fp16' on cpu, only on cpu fp32, int8; on cuda fp32, int8, fp16, bf16"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(precision="fp16"), NO_FP16),
        (dict(device="meta"), "no precision 'fp32' on meta"),
        (dict(threads=0), "threads must be at least 1, not 0"),
    ],
)
def test_an_impossible_engine_is_refused(options: dict, words: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=words):
        make_engine(lively(), tmp_path / "out", **options)


TOO_WIDE = f"beam_size {SIZE // 2} is too wide for a vocabulary of {SIZE} tokens"


@pytest.mark.parametrize(
    ("rows", "beam_size", "words"),
    [
        ([[5, 2]], 0, "beam_size must be at least 1, not 0"),
        ([[5, 2]], SIZE // 2, TOO_WIDE),
        *(
            ([[5, 2], row], 1, "row 2 is not a sentence")
            for row in ([], [5], [2], [1, 5, 2], [5, 0, 2], [5, 2, 2])
        ),
    ],
)
def test_what_it_would_search_otherwise_is_refused(
    rows: list, beam_size: int, words: str, tmp_path
) -> None:
    with pytest.raises(ValueError, match=words):
        search(make_engine(lively(), tmp_path / "out"), rows, beam_size)


def test_a_sentence_as_long_as_max_len_is_searched_to_max_len(tmp_path) -> None:
    model = lively()
    rows = [[*[5, 6, 7] * 7, 5, 6, EOS]]
    model.bias[EOS] = -30
    got = search(make_engine(model, tmp_path / "out"), rows, 2, 1.0, 100)
    assert len(rows[0]) == len(got[0]) == 24
    assert got == found(model, rows, 2, 1.0, 100)


def test_an_engine_without_its_folder_or_with_another_models_is_refused(tmp_path) -> None:
    model = lively()
    folder = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="there is no CTranslate2 model in"):
        CTranslate2Engine(folder, model.config)
    export_ctranslate2(model, TOKENIZER, folder)
    with pytest.raises(ValueError, match="not a vocabulary of 11 tokens: it belongs to another"):
        CTranslate2Engine(folder, small_model().config)
    weights = folder / "model.bin"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ValueError, match="CTranslate2 cannot load"):
        CTranslate2Engine(folder, model.config)
    (folder / "shared_vocabulary.json").write_text("[")
    with pytest.raises(ValueError, match=r"shared_vocabulary\.json is damaged"):
        CTranslate2Engine(folder, model.config)


def test_a_tokenizer_of_another_model_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="they do not belong together"):
        export_ctranslate2(small_model(), TOKENIZER, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_it_is_exported_again_when_the_weights_have_changed_or_a_file_is_missing(tmp_path) -> None:
    model = lively()
    out = tmp_path / "out"

    def is_written_again() -> bool:
        path = out / "model.bin"
        before = path.stat().st_ino if path.exists() else None
        current = current_ctranslate2(model, TOKENIZER, out)
        return current.joinpath("model.bin").stat().st_ino != before

    assert [is_written_again() for _ in range(2)] == [True, False]
    model.decoder.layers[0].residuals[0].norm.gain[0] += 1e-3
    assert [is_written_again() for _ in range(2)] == [True, False]
    model.encoder.layers[0].feed_forward.w_1.weight[0, 0] += 1e-3
    assert [is_written_again() for _ in range(2)] == [True, False]
    (out / "shared_vocabulary.json").unlink()
    assert [is_written_again() for _ in range(2)] == [True, False]
    for damaged in ("{", "[]", "{}"):
        (out / "config.json").write_text(damaged)
        assert is_written_again()
