"""Test the whole model, its config and its files (chapter 9)."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from transformer.checks.fixtures import SRC, TGT, small_model
from transformer.checks.twins import torch_logits
from transformer.files import read_tensors
from transformer.model import NORMS, Config, Transformer, load_model, read_config, save_model

few = settings(max_examples=8, deadline=None, derandomize=True)
src = torch.tensor(SRC)
tgt = torch.tensor(TGT)


def assert_close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


# --- what it computes -----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_it_equals_torch_nn_transformer_with_the_same_weights(norm: str) -> None:
    model = small_model(norm=norm, n_layers=3)
    assert_close(model(src, tgt), torch_logits(model, src, tgt))


@few
@given(more_src=st.integers(0, 5), more_tgt=st.integers(0, 5), norm=st.sampled_from([*NORMS]))
def test_padding_makes_no_difference(more_src: int, more_tgt: int, norm: str) -> None:
    model = small_model(norm=norm)
    source = torch.cat([src[:1], torch.zeros(1, more_src, dtype=torch.int64)], dim=1)
    target = torch.cat([tgt[:1], torch.zeros(1, more_tgt, dtype=torch.int64)], dim=1)
    assert_close(model(source, target)[:, : tgt.shape[1]], model(src[:1], tgt[:1]))


@few
@given(at=st.integers(1, 4), train=st.booleans())
def test_future_tokens_do_not_leak(at: int, train: bool) -> None:
    model = small_model().train(train)
    other = tgt.clone()
    other[:, at] = (other[:, at] + 4) % 11
    before = model(src, tgt)
    after = model(src, other)
    assert_close(after[:, :at], before[:, :at])
    assert (after[:, at:] - before[:, at:]).abs().amax((1, 2)).gt(1e-3).all(), "but matter later"


def test_sentences_of_a_batch_do_not_see_one_another() -> None:
    model = small_model()
    assert_close(model(src, tgt)[1:], model(src[1:], tgt[1:]))


def test_the_target_mask_hides_the_future_and_padding() -> None:
    mask = small_model().target_mask(torch.tensor([[1, 7, 4], [1, 9, 0]]))
    assert mask.shape == (2, 1, 3, 3)
    assert mask[0, 0].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert mask[1, 0].tolist() == [[True, False, False], [True, True, False], [True, True, False]]


def test_encoder_decoder_and_logits_are_the_parts_of_the_whole() -> None:
    model = small_model()
    memory = model.encode(src)
    states = model.decoder_states(tgt, memory, src)
    assert memory.shape == (2, 6, 12)
    assert states.shape == (2, 5, 12)
    assert_close(model.decode(tgt, memory, src), model(src, tgt))
    assert_close(model.logits(states), model(src, tgt))


def test_embedding_begins_at_the_position_it_is_told() -> None:
    model = small_model()
    assert_close(model.embed(tgt[:, 3:], start=3), model.embed(tgt)[:, 3:])
    assert not torch.allclose(model.embed(tgt[:, 3:]), model.embed(tgt)[:, 3:])


def test_source_target_and_logits_share_one_table() -> None:
    shapes = [tuple(p.shape) for p in small_model().parameters()]
    assert shapes.count((11, 12)) == 1


def test_ids_of_32_bits_give_the_same_logits() -> None:
    model = small_model()
    assert model(src.int(), tgt.int()).equal(model(src, tgt))


@pytest.mark.gpu
def test_it_computes_the_same_on_a_gpu() -> None:
    model = small_model()
    want = model(src, tgt)
    got = model.cuda()(src.cuda(), tgt.cuda()).cpu()
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "found"),
    [([[11]], "from 11 to 11"), ([[4, -1]], "from -1 to 4"), ([[4, 99], [2, 0]], "from 0 to 99")],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("side", ["embed", "source", "target", "encode", "decode"])
def test_ids_outside_the_vocabulary_are_refused(
    side: str, dtype: torch.dtype, ids: list, found: str
) -> None:
    model = small_model()
    wrong = torch.tensor(ids, dtype=dtype)
    right = torch.full_like(wrong, 4)
    calls = {
        "embed": lambda: model.embed(wrong),
        "source": lambda: model(wrong, right),
        "target": lambda: model(right, wrong),
        "encode": lambda: model.encode(wrong),
        "decode": lambda: model.decode(wrong, model.encode(right), right),
    }
    words = f"^token ids {found} do not fit the vocabulary, whose ids end at 10$"
    with pytest.raises(ValueError, match=words) as error:
        calls[side]()
    assert error.value.__suppress_context__, "the IndexError behind it is not shown"


def test_the_last_id_of_the_vocabulary_is_accepted() -> None:
    assert small_model()(torch.tensor([[10]]), torch.tensor([[10]])).isfinite().all()


@pytest.mark.parametrize(("source", "target"), [(17, 5), (6, 17)])
def test_sentences_over_the_maximum_length_are_refused(source: int, target: int) -> None:
    model = small_model(max_len=16)
    with pytest.raises(ValueError, match="a sentence of 17 tokens is longer than max_len=16"):
        model(torch.full((1, source), 4), torch.full((1, target), 4))
    assert model(torch.full((1, 16), 4), torch.full((1, 16), 4)).shape == (1, 16, 11)


# --- its config -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "millions"), [(Config.base(), 65), (Config.big(), 213)])
def test_the_presets_have_the_papers_sizes(config: Config, millions: int) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in Transformer(config).parameters())
    assert abs(count / 1e6 - millions) < 0.07 * millions


def test_the_presets_are_table_3_and_take_changes() -> None:
    base = Config(37_000, d_model=512, n_heads=8, n_layers=6, d_ff=2048, dropout=0.1)
    big = Config(37_000, d_model=1024, n_heads=16, n_layers=6, d_ff=4096, dropout=0.3)
    tiny = Config(100, d_model=128, n_heads=4, n_layers=4, d_ff=256, dropout=0.3)
    assert Config.base() == base
    assert Config.big() == big
    assert Config.tiny(100) == tiny
    assert Config.base(100, norm="pre") == Config(100, norm="pre")
    assert Config.big(100, dropout=0.2).vocab_size == 100
    assert Config.big(100, dropout=0.2).dropout == 0.2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_model": 10, "n_heads": 3}, "d_model=10 must be divisible by n_heads=3"),
        ({"n_heads": 0}, "n_heads must be an integer"),
        ({"n_layers": -1}, "n_layers must be an integer"),
        ({"n_layers": True}, "n_layers must be an integer"),
        ({"d_ff": 2.5}, "d_ff must be an integer from 1 to 262,144, not 2.5"),
        ({"max_len": 2**16 + 1}, "max_len must be an integer from 1 to 65,536, not 65537"),
        ({"vocab_size": 0}, "vocab_size must be an integer"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"dropout": "0.1"}, "dropout must be at least 0 and below 1"),
        ({"norm": "middle"}, "norm must be one of post, pre, not 'middle'"),
        ({"pad_id": 1}, "three different ids below 11"),
        ({"pad_id": -1}, "three different ids below 11"),
        ({"eos_id": 11}, "three different ids below 11"),
    ],
    ids=str,
)
def test_an_impossible_config_is_refused(
    changes: dict, words: str, types_are_checked: bool
) -> None:
    sizes = dict(vocab_size=11, d_model=12, n_heads=3) | changes
    try:
        Config(**sizes)
    except ValueError as error:
        assert words in str(error)
    except Exception as error:  # a wrong type is refused even earlier when types are checked
        assert types_are_checked
        assert "type" in type(error).__name__.lower()
    else:
        pytest.fail("accepted")


def test_the_largest_sizes_are_a_config() -> None:
    widths = dict(vocab_size=2**22, d_model=2**16, d_ff=2**18)
    counts = dict(n_heads=2**10, n_layers=2**8, max_len=2**16)
    assert Config(**widths, **counts).d_ff == 2**18


def test_sublayers_begin_as_small_as_pytorchs() -> None:
    torch.manual_seed(0)
    ours = Transformer(Config.base(100, n_layers=1)).encoder.layers[0]
    theirs = torch.nn.TransformerEncoderLayer(512, 8, 2048)
    attention = ours.self_attention
    feed_forward = ours.feed_forward
    for linear in (attention.w_q, attention.w_k, attention.w_v):
        assert abs(linear.weight.std() / theirs.self_attn.in_proj_weight.std() - 1) < 0.02
    assert abs(feed_forward.w_1.weight.std() / theirs.linear1.weight.std() - 1) < 0.02
    assert abs(feed_forward.w_2.weight.std() / theirs.linear2.weight.std() - 1) < 0.02


# --- its files ------------------------------------------------------------------------------------


def change_config(folder: Path, **changes) -> None:
    """Change the config of a saved model."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_model_comes_back_the_same(tmp_path) -> None:
    model = small_model(norm="pre").train()
    folder = tmp_path / "not" / "there yet"
    save_model(model, folder)
    assert model.training, "saving leaves the model as it was"
    again = load_model(folder)
    assert again.config == model.config
    assert not any(module.training for module in again.modules())
    assert again(src, tgt).equal(model.eval()(src, tgt))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_weights_that_were_cut_off_are_refused(tmp_path) -> None:
    save_model(small_model(), tmp_path)
    path = tmp_path / "model.safetensors"
    for content in (path.read_bytes()[:-100], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged or not a safetensors"):
            load_model(tmp_path)


def test_weights_of_another_config_are_refused(tmp_path) -> None:
    save_model(small_model(), tmp_path)
    change_config(tmp_path, d_ff=21)
    with pytest.raises(
        ValueError, match=r"belong to another config: .*w_1.* is \(20,?.*wanted \(21"
    ):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("saved", "asked", "words"),
    [(1, 2, "is missing, wanted ("), (2, 1, "wanted no such tensor")],
    ids=["missing", "left over"],
)
def test_tensors_that_are_missing_or_left_over_are_named(
    tmp_path, saved: int, asked: int, words: str
) -> None:
    save_model(small_model(n_layers=saved), tmp_path)
    change_config(tmp_path, n_layers=asked)
    with pytest.raises(ValueError, match=r"belong to another config: \w+\.layers\.1\.") as error:
        load_model(tmp_path)
    assert words in str(error.value)


def test_a_tensor_of_integers_that_is_left_over_is_refused(tmp_path) -> None:
    save_model(small_model(), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(read_tensors(path) | {"counts": torch.tensor([1])}))
    with pytest.raises(ValueError, match="counts"):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "7", '{"vocab_size": 11, "colour": 3}', "{"])
def test_a_file_that_is_not_a_config_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    words = r"config\.json is not a config: .* with vocab_size, d_model, n_heads, "
    with pytest.raises(ValueError, match=words):
        read_config(path)


def test_a_config_file_with_an_impossible_size_is_refused(tmp_path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"vocab_size": null}')
    with pytest.raises(ValueError, match="vocab_size"):
        read_config(path)
