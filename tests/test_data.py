"""What chapter 10 says of text, subwords and batches, and what it refuses."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import data
from transformer.corpora import Corpus
from transformer.data import (
    BOS,
    EOS,
    UNK,
    batches_by_length,
    decode,
    encode,
    encode_pairs,
    epoch,
    load_tokenizer,
    pad,
    train_tokenizer,
)

TEXTS = [
    "the cat is on the mat .",
    "il gatto è sul tappeto .",
    "perché no ? un caffè !",
    "i love you very much",
] * 3
few = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 120)


# --- subwords ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*TEXTS[:4], "the gatto , è", "cat"])
def test_text_comes_back_as_it_was(tokenizer, text: str) -> None:
    assert (
        decode(tokenizer, encode(tokenizer, [text])) == [text]
        or UNK in encode(tokenizer, [text])[0]
    )


@few
@given(
    words=st.lists(st.text("abcdeghilmnoprstuvè", min_size=1, max_size=8), min_size=1, max_size=6)
)
def test_any_words_of_known_letters_come_back(words: list[str]) -> None:
    tokenizer, text = (
        train_tokenizer(["a b c d e g h i l m n o p r s t u v è"] * 2, 60),
        " ".join(words),
    )
    assert decode(tokenizer, encode(tokenizer, [text])) == [text]


def test_two_spellings_of_a_letter_are_one(tokenizer) -> None:
    assert encode(tokenizer, ["caff\u00e8"]) == encode(tokenizer, ["caffe\u0300"])


def test_only_asked_to_it_writes_small(tokenizer) -> None:
    small = train_tokenizer(TEXTS, 120, lowercase=True)
    assert encode(small, ["The CAT"]) == encode(small, ["the cat"])
    assert encode(tokenizer, ["the cat"]) != encode(tokenizer, ["The CAT"])


def test_the_vocabulary_begins_with_the_special_tokens_and_ends_in_time(tokenizer) -> None:
    assert [tokenizer.id_to_token(i) for i in range(4)] == data.SPECIAL
    assert tokenizer.get_vocab_size() <= 120


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_text_is_refused_by_number(tokenizer, text: str) -> None:
    with pytest.raises(ValueError, match="text 2 is empty"):
        encode(tokenizer, ["the cat", text])


def test_a_text_of_unknown_characters_is_refused(tokenizer) -> None:
    with pytest.raises(ValueError, match="text 1 has no character that the vocabulary knows: '猫'"):
        encode(tokenizer, ["猫"])
    assert UNK in encode(tokenizer, ["the 猫"])[0]


def test_marks_that_a_user_types_are_text(tokenizer) -> None:
    assert encode(tokenizer, ["the </s> cat <pad>"])[0].count(EOS) == 1


def test_decoding_stops_at_the_end_mark(tokenizer) -> None:
    ids = encode(tokenizer, ["the cat"])[0]
    assert decode(tokenizer, [[*ids, *ids, 0, 0]]) == ["the cat"]


def test_pairs_begin_and_end_where_they_should(tokenizer) -> None:
    [(src, tgt)] = encode_pairs(tokenizer, [("the cat", "il gatto")])
    assert src[-1] == tgt[-1] == EOS and tgt[0] == BOS and src[0] != BOS


def test_no_pairs_are_no_ids(tokenizer) -> None:
    assert encode_pairs(tokenizer, []) == []


def test_the_vocabulary_is_learned_from_the_training_split_alone() -> None:
    unseen = [("zebra", "zebra")] * 9 + [("quark", "quark")] * 9
    corpus = Corpus("x", [("the cat", "il gatto")] * 3, unseen[:9], unseen[9:])
    vocabulary = train_tokenizer(corpus.texts(), 60, corpus.lowercase).get_vocab()
    assert not {"z", "q", "k"} & set(vocabulary)
    assert {"▁the", "▁gatto"} <= set(vocabulary)


# --- a tokenizer on disk -----------------------------------------------------------------------


@pytest.fixture
def saved(tokenizer, tmp_path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    return path


def test_a_tokenizer_comes_back_from_its_file(tokenizer, saved) -> None:
    for again in (load_tokenizer(saved), load_tokenizer(str(saved), tokenizer.get_vocab_size())):
        assert again.get_vocab() == tokenizer.get_vocab()
        assert encode(again, TEXTS) == encode(tokenizer, TEXTS)


def test_an_end_mark_that_somebody_types_is_text_after_loading(saved) -> None:
    tokenizer = load_tokenizer(saved)
    assert tokenizer.token_to_id("</s>") not in tokenizer.encode("the </s> cat").ids


def test_a_tokenizer_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*tokenizer\.json"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"{", lambda b: b"\xff"])
def test_a_damaged_tokenizer_is_named(saved, damage) -> None:
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(saved)


def test_a_tokenizer_of_another_size_is_named_with_both_sizes(tokenizer, saved) -> None:
    size = tokenizer.get_vocab_size()
    sizes = f"has {size} entries and the model {size + 1}: they do not belong together"
    with pytest.raises(ValueError, match=sizes):
        load_tokenizer(saved, size + 1)


# --- batches -----------------------------------------------------------------------------------

rows = st.integers(1, 25).map(lambda n: [4] * n)


@few
@given(
    pairs=st.lists(st.tuples(rows, rows), min_size=1, max_size=60), max_tokens=st.integers(1, 90)
)
def test_every_pair_is_in_one_batch_within_the_budget(pairs: list, max_tokens: int) -> None:
    groups = batches_by_length(pairs, max_tokens)
    assert sorted(pair for group in groups for pair in group) == sorted(pairs)
    for group in groups:
        assert group
        assert (
            len(group) == 1
            or len(group) * max(len(row) for pair in group for row in pair) <= max_tokens
        )


def make_pairs(count: int) -> list[tuple[list[int], list[int]]]:
    draw = random.Random(0)
    return [
        ([i + 4] * draw.randint(1, 12), [BOS, *[i + 4] * draw.randint(1, 12)]) for i in range(count)
    ]


def contents(batches) -> list[list]:
    return [batch.src.tolist() + batch.tgt.tolist() for batch in batches]


def test_an_epoch_has_every_pair_once_in_an_order_that_the_seed_decides() -> None:
    pairs = make_pairs(50)
    first = contents(epoch(pairs, 60, seed=1))
    assert first == contents(epoch(pairs, 60, seed=1)) != contents(epoch(pairs, 60, seed=2))
    seen = sorted(row[0] for batch in epoch(pairs, 60, seed=3) for row in batch.src.tolist())
    assert seen == [i + 4 for i in range(50)]


@pytest.mark.parametrize("skip", [0, 1, 4])
def test_an_epoch_goes_on_where_it_was_left(skip: int) -> None:
    assert (
        contents(epoch(make_pairs(50), 60, 1, skip))
        == contents(epoch(make_pairs(50), 60, 1))[skip:]
    )


def test_the_labels_are_the_input_one_step_on() -> None:
    batch = data.collate([([4, 2], [1, 5, 6, 2]), ([4, 4, 2], [1, 7, 2])])
    assert batch.src.tolist() == [[4, 2, 0], [4, 4, 2]]
    assert batch.decoder_input.tolist() == [[1, 5, 6], [1, 7, 2]]
    assert batch.labels.tolist() == [[5, 6, 2], [7, 2, 0]]


def test_a_batch_counts_the_labels_that_are_not_padding() -> None:
    batch = data.collate([([4, 2], [1, 5, 6, 2]), ([4, 4, 2], [1, 7, 2])])
    assert batch.n_tokens == 5
    assert type(batch.n_tokens) is int


def test_a_batch_moves_to_another_device() -> None:
    batch = data.collate([([4, 2], [1, 5, 6, 2])]).to("meta")
    assert batch.src.is_meta and batch.tgt.is_meta


def test_padding_fills_up_to_the_longest() -> None:
    assert pad([[4], [5, 6, 7]], 9).tolist() == [[4, 9, 9], [5, 6, 7]]


def test_drawing_an_epoch_leaves_the_global_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    list(epoch(make_pairs(9), 60, seed=1))
    assert torch.get_rng_state().equal(state)
