"""Every known bug is caught by a check that names it; what is right passes the same check."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest
import torch

from transformer import checks, data, decoder, embeddings, encoder, feed_forward, inference, model, training
from transformer.attention import attention, attention_weights
from transformer.multi_head import MultiHeadAttention, head_weights
from transformer.positional_encoding import PositionalEncoding, sinusoidal_positions
from transformer.residual_norm import PostNorm, PreNorm, layer_norm

sys.path.insert(0, str(Path(__file__).parent))

TEXTS = ["the cat is on the mat", "il caffè è sul tavolo"] * 3
RIGHT = {
    "check_embedding": embeddings.TokenEmbedding,
    "check_positions": sinusoidal_positions,
    "check_positional_encoding": PositionalEncoding,
    "check_attention_weights": attention_weights,
    "check_attention": attention,
    "check_multi_head": MultiHeadAttention,
    "check_head_weights": head_weights,
    "check_layer_norm": layer_norm,
    "check_residual": PostNorm,
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
    "check_incremental": inference.IncrementalDecoder,
    "check_scores": inference.scores,
}
BUGS = sorted(
    path.stem for path in (Path(__file__).parent / "zoo").glob("*.py") if path.stem not in ("__init__", "plain")
)
CASES = [*RIGHT.items(), ("check_residual", PreNorm)]


def run(name: str, implementation: object, **options) -> None:
    getattr(checks, name)(implementation, **options)


@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_caught_and_named(bug: str) -> None:
    wrong = importlib.import_module(f"zoo.{bug}")
    with pytest.raises(checks.CheckError) as caught:
        run(wrong.CHECK, wrong.wrong, **getattr(wrong, "OPTIONS", {}))
    assert re.search(wrong.CAUGHT_BY, str(caught.value)), caught.value
    assert wrong.__doc__.count("\n") == 0, "one sentence says what the mistake is"


def options_of(name: str, implementation: object) -> dict:
    return {"placement": "pre"} if implementation is PreNorm else {"train": TEXTS} if name == "check_tokenizer" else {}


@pytest.mark.parametrize(("name", "right"), CASES, ids=[getattr(right, "__name__", name) for name, right in CASES])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_is_right_passes_in_one_line(name: str, right: object, device: str, capsys) -> None:
    state = torch.get_rng_state()
    run(name, right, device=device, **options_of(name, right))
    printed = capsys.readouterr().out
    assert re.fullmatch(r"[\w ]+: right \(.+\)\n", printed)
    assert not re.search(r"\d\.\d|\de-\d", printed), "what it prints is the same on every machine"
    assert torch.get_rng_state().equal(state), "the caller's random numbers are left alone"


def test_every_check_has_a_right_implementation_and_a_bug() -> None:
    names = {name for name, value in vars(checks).items() if name.startswith("check_") and inspect.isfunction(value)}
    assert names == set(RIGHT) == {importlib.import_module(f"zoo.{bug}").CHECK for bug in BUGS}


def test_the_plain_beam_search_that_the_zoo_breaks_is_right() -> None:
    from zoo.plain import plain_beam_search

    checks.check_beam_search(plain_beam_search)


def test_an_error_of_the_implementation_is_reported_with_its_input() -> None:
    def broken(q, k, mask=None):
        return q @ k

    with pytest.raises(
        checks.CheckError, match=r"attention weights: it raised RuntimeError on \(2×3×5×4 float32"
    ) as caught:
        checks.check_attention_weights(broken)
    assert isinstance(caught.value.__cause__, RuntimeError)
