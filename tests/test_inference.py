"""What chapter 12 says of search, and what a translator refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.checks import (
    LIVELY,
    TREES,
    best_of_all,
    decoding_model,
    greedy_by_hand,
    log_probs_of,
    small_model,
    sources,
)
from transformer.data import train_tokenizer
from transformer.inference import (
    IncrementalDecoder,
    Translator,
    beam_search,
    bucket,
    greedy_search,
    groups_by_length,
    sample,
    scores,
)
from transformer.model import save_model

TEXTS = ["the cat is on the mat", "il gatto è sul tappeto"] * 3
few = settings(max_examples=6, deadline=None, derandomize=True)


@pytest.fixture(params=LIVELY, ids=lambda seed: f"model {seed}")
def model(request):
    return decoding_model("cpu", seed=request.param)


@pytest.fixture
def src(model):
    return sources(9, "cpu")


def test_cached_equals_uncached(model, src) -> None:
    tgt = torch.randint(3, 9, (4, 7))
    with torch.no_grad():
        decoder = IncrementalDecoder(model, src)
        cached = torch.stack([decoder.step(tgt[:, t]) for t in range(7)], dim=1)
        torch.testing.assert_close(cached, model(src, tgt), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "search",
    [lambda *args: greedy_search(*args, 9), lambda *args: beam_search(*args, 3, 1.0, 9)[0]],
    ids=["greedy", "beam"],
)
def test_padding_and_company_make_no_difference(model, src, search) -> None:
    together = search(model, torch.cat([src, torch.zeros(4, 3, dtype=torch.int64)], dim=1)).tolist()
    for row, ids in zip(together, src, strict=True):
        alone = search(model, ids[ids != 0].unsqueeze(0))[0].tolist()
        assert [i for i in row if i] == [i for i in alone if i]


def test_padding_changes_no_logit(model, src) -> None:
    longer = torch.cat([src, torch.zeros(4, 5, dtype=torch.int64)], dim=1)
    with torch.no_grad():
        steps = [IncrementalDecoder(model, ids).step(torch.ones(4, dtype=torch.int64)) for ids in (src, longer)]
    torch.testing.assert_close(*steps, atol=1e-5, rtol=1e-5)


def test_greedy_takes_the_likeliest_token_each_time(model, src) -> None:
    assert greedy_search(model, src, 10).equal(greedy_by_hand(model, src, 10))


def test_a_beam_of_one_is_greedy(model, src) -> None:
    assert beam_search(model, src, 1, max_len=10)[0].equal(greedy_search(model, src, 10))


@pytest.mark.parametrize("width", [2, 3, 7, 20])
def test_a_beams_scores_are_true(model, src, width: int) -> None:
    ids, log_probs = beam_search(model, src, width, max_len=8)
    torch.testing.assert_close(log_probs, log_probs_of(model, src, ids)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_beam_as_wide_as_the_tree_finds_the_best(penalty: float) -> None:
    model = decoding_model("cpu", vocab_size=5, seed=TREES[0])
    src = sources(5, "cpu")
    ids, _ = beam_search(model, src, 32, penalty, 4)
    assert [[i for i in row if i] for row in ids.tolist()] == best_of_all(model, src, 4, penalty)


@few
@given(width=st.integers(1, 6), max_len=st.integers(1, 9))
def test_nothing_but_padding_follows_the_end_and_max_len_is_kept(width: int, max_len: int) -> None:
    model = decoding_model("cpu")
    for ids in (
        beam_search(model, sources(9, "cpu"), width, 1.0, max_len)[0],
        greedy_search(model, sources(9, "cpu"), max_len),
    ):
        assert ids.shape[1] <= max_len
        for row in ids.tolist():
            text, _, rest = "".join(map(str, row)).partition("2")
            assert "0" not in text and "1" not in text and not rest.strip("0")


def test_sampling_is_seeded_and_leaves_global_random_numbers_alone(model, src) -> None:
    state = torch.get_rng_state()
    one, two, other = (sample(model, src, max_len=9, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.equal(two) and not one.equal(other)
    assert torch.get_rng_state().equal(state)


def test_sampling_from_the_best_alone_is_greedy(model, src) -> None:
    assert sample(model, src, top_k=1, max_len=10).equal(greedy_search(model, src, 10))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_can_not_be_is_refused(model, src, temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        sample(model, src, temperature=temperature)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("search", [greedy_search, beam_search, sample])
def test_search_leaves_the_model_and_the_random_numbers_as_they_were(model, src, search, training: bool) -> None:
    model.train(training)
    state = torch.get_rng_state()
    search(model, src, max_len=4)
    assert model.training == training
    assert search is sample or torch.get_rng_state().equal(state)
    assert torch.is_grad_enabled()


def test_the_model_is_put_back_also_after_an_error(model) -> None:
    model.train()
    with pytest.raises(ValueError, match="the vocabulary ends at 8"):
        greedy_search(model, torch.tensor([[9]]))
    assert model.training


# --- text to text ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def translator() -> Translator:
    tokenizer = train_tokenizer(TEXTS, 40)
    return Translator(small_model(vocab_size=tokenizer.get_vocab_size(), max_len=24), tokenizer)


def test_order_and_company_do_not_change_a_translation(translator) -> None:
    texts = ["the cat", "the cat is on the mat", "mat", "the mat is on"]
    alone = [translator.translate([text])[0] for text in texts]
    assert translator.translate(texts) == alone
    assert translator.translate(texts[::-1], max_tokens=30) == alone[::-1]
    assert translator.translate([]) == []


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("the cat", "a list of sentences, not one string"),
        (["the cat", ""], "text 2 is empty"),
        (["猫"], "text 1 has no character that the vocabulary knows"),
        (["the cat " * 20], "text 1 has .* tokens, the model's max_len is 24: split it"),
    ],
)
def test_bad_text_is_refused(translator, texts, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        translator.translate(texts)


def test_a_beam_without_hypotheses_is_refused(translator) -> None:
    with pytest.raises(ValueError, match="beam"):
        translator.translate(["the cat"], beam_size=0)


@pytest.fixture
def saved(translator, tmp_path):
    save_model(translator.model, tmp_path)
    (tmp_path / "tokenizer.json").write_text(translator.tokenizer.to_str())
    return tmp_path


def test_a_translator_comes_back_from_its_folder(translator, saved) -> None:
    assert Translator.load(saved).translate(["the cat"]) == translator.translate(["the cat"])


def test_a_translator_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no model 'no-such-model'"):
        Translator.load("no-such-model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_of_a_translator_that_was_cut_off_is_named(saved, name: str) -> None:
    path = saved / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=name):
        Translator.load(saved)


def test_a_tokenizer_of_another_model_is_refused(saved) -> None:
    (saved / "tokenizer.json").write_text(train_tokenizer(TEXTS, 30).to_str())
    with pytest.raises(ValueError, match="they do not belong together"):
        Translator.load(saved)


# --- scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_sacrebleus_and_say_how() -> None:
    found = scores(["the cat is on the mat", "no"], ["the cat is on the mat", "yes"])
    assert 80 < found["BLEU"] < 100 and 0 < found["chrF"] < 100
    assert all("version:" in signature for signature in found["signatures"])
    assert "tok:13a" in found["signatures"][0]
    assert "tok:none" in scores(["a b"], ["a b"], "none")["signatures"][0]


def test_a_perfect_translation_has_100_points_and_a_wrong_one_none() -> None:
    text = ["the cat is on the mat"]
    assert scores(text, text)["BLEU"] == 100
    assert scores(["uno due tre quattro cinque"], text)["BLEU"] == 0


def test_texts_are_grouped_by_length_within_one_limit() -> None:
    rows = [[0] * length for length in (3, 20, 5, 16, 17, 4)]
    assert groups_by_length(rows, 40) == [[1, 4], [3, 2], [5, 0]]
    assert groups_by_length(rows, 32) == [[1], [4], [3, 2], [5, 0]]
    assert [bucket(length) for length in (1, 15, 16, 17, 32, 33)] == [16, 16, 16, 32, 32, 48]


def test_translate_hands_its_options_to_the_search(translator, monkeypatch) -> None:
    seen = []

    def search(model, src, beam_size, length_penalty, max_len, decoder):
        seen.append((tuple(src.shape), beam_size, length_penalty, max_len))
        return src, None

    monkeypatch.setattr("transformer.inference.beam_search", search)
    translator.translate(["the cat", "the cat"], beam_size=3, length_penalty=0.6)
    translator.translate(["the cat", "the cat"], max_tokens=10, beam_size=2)
    width = seen[0][0][1]
    assert seen[0] == ((2, width), 3, 0.6, 32)
    assert seen[1:] == [((1, width), 2, 1.0, 32)] * 2


def test_progress_is_shown_when_asked_for(translator, capsys) -> None:
    translator.translate(["the cat"])
    assert capsys.readouterr().err == ""
    translator.translate(["the cat"], progress=True)
    assert "translating" in capsys.readouterr().err


def test_a_text_as_long_as_max_len_is_translated(translator) -> None:
    limit = translator.model.config.max_len
    length = len(translator.tokenizer.encode("the").ids)
    words = (limit - 1) // length
    assert len(translator.translate([" ".join(["the"] * words)], beam_size=1)) == 1
    with pytest.raises(ValueError, match=rf"^text 2 has \d+ tokens, the model's max_len is {limit}: split it$"):
        translator.translate(["the", " ".join(["the"] * (limit + 1))])


def test_a_low_temperature_is_almost_greedy_and_top_k_rules_out_the_rest(model, src) -> None:
    greedy = greedy_search(model, src, max_len=6)
    assert torch.equal(sample(model, src, temperature=1e-4, max_len=6), greedy)
    drawn = sample(model, src, temperature=1e4, top_k=2, max_len=6)
    before = torch.cat([torch.full_like(drawn[:, :1], model.config.bos_id), drawn[:, :-1]], dim=1)
    with torch.no_grad():
        logits = model(src, before)
    logits[..., [model.config.pad_id, model.config.bos_id]] = -torch.inf
    best = logits.topk(2).indices
    real = (drawn == model.config.eos_id).cumsum(1) - (drawn == model.config.eos_id).long() == 0
    assert (best == drawn.unsqueeze(-1)).any(-1)[real].all()
    assert not torch.equal(drawn, greedy)


def test_scores_are_rounded_to_two_digits() -> None:
    found = scores(["the cat sat on a mat today"], ["the cat sat on the mat today"])
    assert 0 < found["BLEU"] < 100
    assert found["BLEU"] == round(found["BLEU"], 2) != round(found["BLEU"], 1)
