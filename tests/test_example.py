"""The running example: the step of each chapter, done by its own code, gives the next numbers."""

import subprocess
import sys

import pytest
import torch
from test_layout import LINKS, unit
from torch.testing import assert_close

from transformer.attention import attention
from transformer.data import PAD, decode
from transformer.decoder import Decoder, causal_mask, padding_mask
from transformer.embeddings import TokenEmbedding
from transformer.encoder import Encoder
from transformer.example import (
    SENTENCES,
    after,
    example_batch,
    example_model,
    example_tokenizer,
    head_projections,
    tokens,
    weights,
)
from transformer.feed_forward import FeedForward
from transformer.inference import greedy_search
from transformer.multi_head import MultiHeadAttention
from transformer.positional_encoding import PositionalEncoding
from transformer.residual_norm import PostNorm
from transformer.training import label_smoothed_loss

SIZES = dict(d_model=24, n_heads=4, d_ff=48)
LAYER = "encoder.layers.0"


def loaded(module, part):
    """Return a module with the weights of the example's part, without gradients."""
    module.load_state_dict(weights(part))
    return module.requires_grad_(False)


def real():
    return padding_mask(after(0), PAD)


def test_the_model_translates_both_sentences() -> None:
    assert after(12) == [italian for _, italian in SENTENCES]


def test_ids_are_those_of_the_sentences() -> None:
    assert decode(example_tokenizer(), after(0).tolist()) == [english for english, _ in SENTENCES]
    assert after(0).shape == (2, 8)
    assert tokens(after(0))[1] == ["i", "love", "you", "very", "much", "</s>", "<pad>", "<pad>"]
    batch = example_batch()
    assert decode(example_tokenizer(), batch.labels.tolist()) == [it for _, it in SENTENCES]
    assert batch.src.equal(after(10).src) and batch.tgt.equal(after(10).tgt)


def test_chapter_1_embeds_the_ids() -> None:
    assert_close(loaded(TokenEmbedding(588, 24), "embedding")(after(0)), after(1))


def test_chapter_2_adds_positions() -> None:
    assert_close(PositionalEncoding(24, 64)(after(1)), after(2))


def test_chapter_3_attends_with_one_head() -> None:
    q, k, v = (project(after(2)) for project in head_projections())
    assert_close(attention(q, k, v, real()[:, 0]), after(3))


def test_chapter_4_joins_four_heads_of_which_chapter_3_had_one() -> None:
    module = loaded(MultiHeadAttention(24, 4), f"{LAYER}.self_attention")
    assert_close(module(after(2), after(2), real()), after(4))
    heads = []
    for head in range(4):
        q, k, v = (project(after(2)) for project in head_projections(head))
        heads.append(attention(q, k, v, real()[:, 0]))
    assert_close(heads[2], after(3))
    assert_close(module.w_o(torch.cat(heads, dim=-1)), after(4))


def test_chapter_5_adds_and_norms() -> None:
    residual = loaded(PostNorm(24), f"{LAYER}.residuals.0")
    assert_close(residual(after(2), lambda _: after(4)), after(5))


def test_chapter_6_transforms_each_position() -> None:
    block = loaded(FeedForward(24, 48), f"{LAYER}.feed_forward")
    residual = loaded(PostNorm(24), f"{LAYER}.residuals.1")
    assert_close(residual(after(5), block), after(6))


def test_chapter_7_encodes() -> None:
    encoder = loaded(Encoder(2, **SIZES), "encoder")
    assert_close(encoder.layers[0](after(2), real()), after(6))
    assert_close(encoder(after(2), real()), after(7))


def test_chapter_8_decodes() -> None:
    decoder = loaded(Decoder(2, **SIZES), "decoder")
    given = example_batch().decoder_input
    x = PositionalEncoding(24, 64)(loaded(TokenEmbedding(588, 24), "embedding")(given))
    mask = causal_mask(given.shape[1]) & padding_mask(given, PAD)
    assert_close(decoder(x, after(7), mask, real()), after(8))


def test_chapters_9_to_12_score_learn_and_translate() -> None:
    model = example_model()
    batch = after(10)
    assert_close(model.logits(after(8)), after(9))
    assert_close(label_smoothed_loss(after(9), batch.labels, PAD, smoothing=0.0), after(11))
    assert after(11) < 0.1
    ids = greedy_search(model, after(0))
    assert decode(example_tokenizer(), ids.tolist()) == after(12)


def test_printed_numbers_of_cat_are_far_from_a_rounding_boundary() -> None:
    cat = tokens(after(0))[0].index("cat")
    for chapter in range(1, 8):
        hundredths = 100 * after(chapter)[0, cat, :4].double()
        from_boundary = ((hundredths - 0.5).round() + 0.5 - hundredths).abs()
        assert from_boundary.min() > 0.01, f"after({chapter}) may round differently elsewhere"


def test_a_caller_cannot_change_the_example() -> None:
    before = after(2)
    example_model().embedding.weight.zero_()
    weights("embedding")["weight"].zero_()
    after(0).zero_()
    after(2).zero_()
    head_projections(0)[0].weight.zero_()
    assert after(2).equal(before)


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="chapter must be from 0 to 12, not 13"):
        after(13)
    with pytest.raises(ValueError, match="head must be from 0 to 3, not 4"):
        head_projections(4)
    with pytest.raises(ValueError, match="no part 'attention'; its parts begin with embedding"):
        weights("attention")


def test_no_module_of_the_library_imports_the_example() -> None:
    importers = {unit(name) for name, targets in LINKS.items() if "example" in map(unit, targets)}
    assert importers <= {"example", "course", "cli"}


def test_the_command_that_trains_the_model_explains_itself() -> None:
    command = [sys.executable, "-m", "transformer.example", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "folder" in done.stdout
