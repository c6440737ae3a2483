"""Test the start from a lexicon: the counts are those of the textbook, and the rest stays."""

from dataclasses import replace

import pytest
import torch
from test_recipes import equal_files, make_corpus, preset, stop_after

from transformer.checks.fixtures import small_model
from transformer.data import BOS, EOS
from transformer.recipes import Techniques, checkpoints, fit
from transformer.recipes import lexicon as module
from transformer.recipes.lexicon import start_from_lexicon, translation_probabilities

DAS, HAUS, BUCH, EIN = range(4, 8)
THE, HOUSE, BOOK, A = range(8, 12)
TEXTS = [([DAS, HAUS], [THE, HOUSE]), ([DAS, BUCH], [THE, BOOK]), ([EIN, BUCH], [A, BOOK])]
"""The example of Koehn 2010, "Statistical Machine Translation", section 4.2."""
PAIRS = [([*src, EOS], [BOS, *tgt, EOS]) for src, tgt in TEXTS]


@pytest.mark.parametrize(("rounds", "wanted"), [(1, 0.5), (2, 0.6364), (3, 0.7479), (50, 1.0)])
def test_probabilities_are_those_of_the_textbook(rounds: int, wanted: float) -> None:
    pairs = [(src, [BOS, *tgt]) for src, tgt in TEXTS]
    found = translation_probabilities(pairs, 12, rounds).to_dense()
    assert found[DAS, THE].item() == pytest.approx(wanted, abs=5e-4)
    assert found[BUCH, BOOK].item() == pytest.approx(wanted, abs=5e-4)
    assert found[HAUS, A] == 0, "they are in no pair together"
    torch.testing.assert_close(found[4:8].sum(1), torch.ones(4))


def test_padding_changes_nothing() -> None:
    longer = ([DAS, HAUS, BUCH, EIN, EOS], [BOS, THE, HOUSE, BOOK, A, A, EOS])
    alone = [translation_probabilities([pair], 12, 1).to_dense() for pair in (PAIRS[0], longer)]
    both = translation_probabilities([PAIRS[0], longer], 12, 1).to_dense()
    assert (both[0] == 0).all() and (both[:, 0] == 0).all()
    assert torch.equal(both > 0, (alone[0] > 0) | (alone[1] > 0))


def test_a_source_token_starts_near_its_translation_and_targets_stay() -> None:
    model = small_model(vocab_size=12)
    before = model.embedding.weight.detach().clone()
    start_from_lexicon(model, PAIRS, 0.9)
    after = model.embedding.weight.detach()
    torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1))
    assert torch.equal(after[THE:], before[THE:])
    assert torch.equal(after[:4], before[:4])
    cosines = torch.cosine_similarity(after[4:8, None], before[None, THE:], dim=-1)
    assert cosines.argmax(1).tolist() == [THE - 8, HOUSE - 8, BOOK - 8, A - 8]
    assert not torch.equal(after[4:8], before[4:8])


def test_the_bias_says_how_often_a_token_is_written() -> None:
    model = small_model(vocab_size=12)
    start_from_lexicon(model, PAIRS, 0.9)
    bias = model.bias.detach()
    assert bias.isfinite().all()
    share = bias.softmax(0)
    assert share[EOS] > share[BOOK] > share[HOUSE] > share[HAUS] > 0
    assert share[BOOK].item() == pytest.approx(0.9 * 2 / 9 + 0.1 / 12)


def test_a_strength_of_0_leaves_the_embeddings() -> None:
    model = small_model(vocab_size=12)
    before = model.embedding.weight.detach().clone()
    start_from_lexicon(model, PAIRS, 0.0)
    torch.testing.assert_close(model.embedding.weight.detach(), before)


def test_only_so_many_words_are_counted(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_LINKS", 2 * 3 * 4)
    few, all_of_them = small_model(vocab_size=12), small_model(vocab_size=12)
    start_from_lexicon(few, PAIRS[:2], 0.5)
    start_from_lexicon(all_of_them, PAIRS, 0.5)
    assert torch.equal(few.bias, all_of_them.bias)
    monkeypatch.setattr(module, "MOST_LINKS", 1)
    start_from_lexicon(few, PAIRS, 0.5)
    assert few.bias[HOUSE] > few.bias[BOOK], "the first pair is counted, however long it is"


def test_a_resumed_run_does_not_start_anew(tmp_path) -> None:
    settings = preset(steps=6, validate_every=2)
    settings = replace(settings, techniques=Techniques(lexicon=0.7))
    fit(make_corpus(), tmp_path / "straight", settings)
    with pytest.raises(KeyboardInterrupt):
        fit(make_corpus(), tmp_path / "parts", settings, should_stop=stop_after(3))
    fit(make_corpus(), tmp_path / "parts", settings, resume=checkpoints(tmp_path / "parts")[-1])
    assert equal_files(*(checkpoints(tmp_path / name)[-1] for name in ("straight", "parts")))


def test_a_run_with_it_is_another(tmp_path) -> None:
    plain, lexical = (
        fit(make_corpus(), tmp_path / name, replace(preset(steps=2), techniques=techniques))
        for name, techniques in (("plain", Techniques()), ("lexical", Techniques(lexicon=0.7)))
    )
    assert plain[-1]["val_loss"] != lexical[-1]["val_loss"]


def test_a_strength_above_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lexicon must be at most 1, not 1\.5"):
        Techniques(lexicon=1.5)
