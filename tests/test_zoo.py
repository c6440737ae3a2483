"""Every known bug is caught by a check that names it; what is right passes the same check."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from transformer import (
    attention,
    checks,
    data,
    decoder,
    distributed,
    embeddings,
    encoder,
    feed_forward,
    inference,
    metrics,
    model,
    multi_head,
    positional_encoding,
    pretrained,
    residual_norm,
    training,
    zoo,
)

TEXTS = ["the cat is on the mat", "il caffè è sul tavolo"] * 3
RIGHT = {
    "check_embedding": embeddings.TokenEmbedding,
    "check_positions": positional_encoding.sinusoidal_positions,
    "check_positional_encoding": positional_encoding.PositionalEncoding,
    "check_attention_weights": attention.attention_weights,
    "check_attention": attention.attention,
    "check_multi_head": multi_head.MultiHeadAttention,
    "check_head_weights": multi_head.head_weights,
    "check_layer_norm": residual_norm.layer_norm,
    "check_residual": residual_norm.PostNorm,
    "check_feed_forward": feed_forward.FeedForward,
    "check_encoder_layer": encoder.EncoderLayer,
    "check_encoder": encoder.Encoder,
    "check_causal_mask": decoder.causal_mask,
    "check_padding_mask": decoder.padding_mask,
    "check_decoder_layer": decoder.DecoderLayer,
    "check_decoder": decoder.Decoder,
    "check_model": model.Transformer,
    "check_pad": data.pad,
    "check_batches": data.batches_by_length,
    "check_tokenizer": data.train_tokenizer(TEXTS, 80),
    "check_loss": training.label_smoothed_loss,
    "check_schedule": training.learning_rate,
    "check_trainer": training.Trainer,
    "check_greedy": inference.greedy_search,
    "check_beam_search": inference.beam_search,
    "check_sample": inference.sample,
    "check_decode_position": inference.decode_position,
    "check_incremental": inference.IncrementalDecoder,
    "check_half_positions": pretrained.half_positions,
    "check_layer_names": pretrained.layer_names,
    "check_published_model": pretrained.PublishedTransformer,
    "check_read_model": pretrained.read_model,
    "check_shard": distributed.shard,
    "check_scores": metrics.scores,
}
OPTIONS = {
    residual_norm.PreNorm: {"placement": "pre"},
    RIGHT["check_tokenizer"]: {"train": TEXTS},
}
CASES = [*RIGHT.items(), ("check_residual", residual_norm.PreNorm)]
NAMES = [getattr(right, "__name__", name) for name, right in CASES]
BUGS = zoo.names()


def run(name: str, implementation: object, **options) -> None:
    """Run a check by its name."""
    getattr(checks, name)(implementation, **options)


@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_caught_and_named(bug: str) -> None:
    member = zoo.member(bug)
    with pytest.raises(checks.CheckError) as caught:
        run(member.check, member.wrong, **member.options)
    assert re.search(member.caught_by, str(caught.value)), caught.value
    assert member.sentence.count("\n") == 0, "one sentence says what the mistake is"


@pytest.mark.parametrize(("name", "right"), CASES, ids=NAMES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_is_right_passes_in_one_line(name: str, right: object, device: str, capsys) -> None:
    state = torch.get_rng_state()
    options = next((options for key, options in OPTIONS.items() if key is right), {})
    run(name, right, device=device, **options)
    printed = capsys.readouterr().out
    assert re.fullmatch(r"[\w ]+: right \(.+\)\n", printed)
    assert not re.search(r"\d\.\d|\de-\d", printed), "what it prints is the same on every machine"
    assert torch.get_rng_state().equal(state), "the caller's random numbers are left alone"


def test_every_check_has_a_right_implementation_and_a_bug() -> None:
    found = inspect.getmembers(checks, inspect.isfunction)
    names = {name for name, _ in found if name.startswith("check_")}
    assert names == set(RIGHT) == {zoo.member(bug).check for bug in BUGS}


def test_every_check_is_exported() -> None:
    folder = Path(checks.__file__).parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    defined = set(re.findall(r"^def (check_\w+)", text, re.MULTILINE))
    assert defined | {"CheckError"} == set(checks.__all__)


def test_every_folder_of_the_zoo_has_a_module_of_checks() -> None:
    folders = {bug.split(".")[0] for bug in BUGS}
    modules = {path.stem for path in Path(checks.__file__).parent.glob("*.py")}
    assert folders <= modules
    chapters = {name for name in modules if re.match(r"ch\d\d_", name)}
    assert chapters <= folders, "a chapter without a known bug"


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_lies_in_the_folder_of_its_check(bug: str) -> None:
    check = getattr(checks, zoo.member(bug).check)
    assert check.__module__ == f"transformer.checks.{bug.split('.')[0]}"


def test_the_members_of_a_check_are_found_by_its_name() -> None:
    found = [member.name for member in zoo.members("check_attention")]
    assert found == [bug for bug in BUGS if zoo.member(bug).check == "check_attention"] != []
    assert zoo.member(found[0]).source.startswith(f'"""{zoo.member(found[0]).sentence}')
    with pytest.raises(ValueError, match="the zoo has no member 'attention'"):
        zoo.member("attention")


def test_the_plain_beam_search_that_the_zoo_breaks_is_right() -> None:
    from transformer.zoo.plain import plain_beam_search

    checks.check_beam_search(plain_beam_search)


def test_an_error_of_the_implementation_is_reported_with_its_input() -> None:
    def broken(q, k, mask=None):
        return q @ k

    message = r"attention weights: it raised RuntimeError on \(2×3×5×4 float32"
    with pytest.raises(checks.CheckError, match=message) as caught:
        checks.check_attention_weights(broken)
    assert isinstance(caught.value.__cause__, RuntimeError)
