"""What chapter 9 says of the whole model, and what it refuses."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.checks import SRC, TGT, small_model, torch_logits
from transformer.model import Config, Transformer, load_model, read_config, read_tensors, save_model, write_safely

few = settings(max_examples=8, deadline=None, derandomize=True)
src, tgt = torch.tensor(SRC), torch.tensor(TGT)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_it_equals_torch_nn_transformer_with_the_same_weights(norm: str) -> None:
    model = small_model(norm=norm, n_layers=3)
    torch.testing.assert_close(model(src, tgt), torch_logits(model, src, tgt), atol=1e-5, rtol=1e-5)


@few
@given(more_src=st.integers(0, 5), more_tgt=st.integers(0, 5), norm=st.sampled_from(["post", "pre"]))
def test_padding_makes_no_difference(more_src: int, more_tgt: int, norm: str) -> None:
    model, source, target = small_model(norm=norm), src[:1], tgt[:1]
    pad = torch.zeros(1, 5, dtype=torch.int64)
    padded = model(torch.cat([source, pad[:, :more_src]], 1), torch.cat([target, pad[:, :more_tgt]], 1))[
        :, : tgt.shape[1]
    ]
    torch.testing.assert_close(padded, model(source, target), atol=1e-5, rtol=1e-5)


@few
@given(at=st.integers(1, 4), train=st.booleans())
def test_future_tokens_do_not_leak(at: int, train: bool) -> None:
    model, other = small_model().train(train), tgt.clone()
    other[:, at] = (other[:, at] + 4) % 11
    torch.testing.assert_close(model(src, other)[:, :at], model(src, tgt)[:, :at], atol=1e-5, rtol=1e-5)


def test_sentences_of_a_batch_do_not_see_one_another() -> None:
    model = small_model()
    torch.testing.assert_close(model(src, tgt)[1:], model(src[1:], tgt[1:]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("config", "millions"), [(Config.base(), 65), (Config.big(), 213)])
def test_the_presets_have_the_papers_sizes(config: Config, millions: int) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in Transformer(config).parameters())
    assert abs(count / 1e6 - millions) < 0.07 * millions


def test_source_target_and_logits_share_one_table() -> None:
    shapes = [tuple(p.shape) for p in small_model().parameters()]
    assert shapes.count((11, 12)) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_model": 10, "n_heads": 3}, "d_model=10 must be divisible by n_heads=3"),
        ({"n_heads": 0}, "n_heads must be a whole number"),
        ({"n_layers": -1}, "n_layers must be a whole number"),
        ({"d_ff": 2.5}, "d_ff must be a whole number from 1 to 262,144, not 2.5"),
        ({"max_len": 2**16 + 1}, "max_len must be a whole number from 1 to 65,536, not 65537"),
        ({"vocab_size": 0}, "vocab_size must be a whole number"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"norm": "middle"}, "norm must be one of post, pre, not 'middle'"),
        ({"pad_id": 1}, "three ids below 11"),
        ({"eos_id": 11}, "three ids below 11"),
    ],
)
def test_a_config_that_can_not_be_is_refused(changes: dict, words: str, types_are_checked: bool) -> None:
    settings = dict(vocab_size=11, d_model=12, n_heads=3) | changes
    try:
        Config(**settings)
    except ValueError as error:
        assert words in str(error)
    except Exception as error:  # with types checked, a wrong type is met even earlier
        assert types_are_checked and "type" in type(error).__name__.lower()
    else:
        pytest.fail("accepted")


def test_the_largest_sizes_are_a_config() -> None:
    sizes = dict(vocab_size=2**22, d_model=2**16, n_heads=2**10, n_layers=2**8, d_ff=2**18, max_len=2**16)
    assert Config(**sizes).d_ff == 2**18


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ([[11]], [[1]], "^src has ids from 11 to 11, but"),
        ([[4]], [[-1]], "^tgt has ids from -1 to -1, but"),
        ([[4, 99]], [[1]], "^src has ids from 4 to 99, but"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused(source: list, target: list, words: str) -> None:
    with pytest.raises(ValueError, match=f"{words} the vocabulary ends at 10"):
        small_model()(torch.tensor(source), torch.tensor(target))


def test_a_saved_model_comes_back_the_same(tmp_path) -> None:
    model, folder = small_model(norm="pre"), tmp_path / "not" / "there yet"
    save_model(model, folder)
    again = load_model(folder)
    assert again.config == model.config and not again.training
    assert again(src, tgt).equal(model(src, tgt))


def test_weights_that_were_cut_off_are_refused(tmp_path) -> None:
    save_model(small_model(), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged or not a safetensors file"):
        load_model(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged or not a safetensors file"):
        read_tensors(path)


def test_weights_of_another_config_are_refused(tmp_path) -> None:
    save_model(small_model(), tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"d_ff": 21}))
    with pytest.raises(ValueError, match=r"belong to another config: .*w_1.* is \(20,?.*wanted \(21"):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "7", '{"vocab_size": 11, "colour": 3}', "{"])
def test_a_config_file_that_is_something_else_is_refused(tmp_path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is not a config: .* with vocab_size, d_model, n_heads, "):
        read_config(tmp_path / "config.json")


def test_a_config_file_with_a_size_that_can_not_be_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": null}')
    with pytest.raises(ValueError, match="vocab_size"):
        read_config(tmp_path / "config.json")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "file"
    write_safely(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_safely(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.gpu
def test_it_says_the_same_on_a_gpu() -> None:
    model = small_model()
    want = model(src, tgt)
    torch.testing.assert_close(model.cuda()(src.cuda(), tgt.cuda()).cpu(), want, atol=1e-3, rtol=1e-3)


def test_the_presets_are_table_3_and_take_changes() -> None:
    base = Config(37_000, d_model=512, n_heads=8, n_layers=6, d_ff=2048, dropout=0.1)
    big = Config(37_000, d_model=1024, n_heads=16, n_layers=6, d_ff=4096, dropout=0.3)
    tiny = Config(100, d_model=128, n_heads=4, n_layers=4, d_ff=256, dropout=0.3)
    assert (Config.base(), Config.big(), Config.tiny(100)) == (base, big, tiny)
    assert Config.base(100, norm="pre") == Config(100, norm="pre")
    assert Config.big(100, dropout=0.2).vocab_size == 100
    assert Config.big(100, dropout=0.2).dropout == 0.2


@pytest.mark.parametrize(("saved", "asked", "words"), [(1, 2, "is missing, wanted ("), (2, 1, "wanted no such tensor")])
def test_what_is_missing_or_left_over_is_named(tmp_path, saved: int, asked: int, words: str) -> None:
    sizes = dict(d_model=8, n_heads=2, d_ff=8, max_len=8)
    save_model(Transformer(Config(10, n_layers=saved, **sizes)), tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"n_layers": asked}))
    with pytest.raises(ValueError, match="belong to another config") as error:
        load_model(tmp_path)
    assert words in str(error.value)


def test_sublayers_start_as_small_as_pytorchs() -> None:
    torch.manual_seed(0)
    ours = Transformer(Config.base(100, n_layers=1)).encoder.layers[0]
    theirs = torch.nn.TransformerEncoderLayer(512, 8, 2048)
    attention = ours.self_attention
    for linear in (attention.w_q, attention.w_k, attention.w_v):
        assert abs(linear.weight.std() / theirs.self_attn.in_proj_weight.std() - 1) < 0.02
    assert abs(ours.feed_forward.w_1.weight.std() / theirs.linear1.weight.std() - 1) < 0.02
    assert abs(ours.feed_forward.w_2.weight.std() / theirs.linear2.weight.std() - 1) < 0.02
