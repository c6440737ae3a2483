"""What chapter 10 says of text, subwords and batches, and what it refuses."""

import gzip
import hashlib
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import data
from transformer.data import (
    BOS,
    EOS,
    UNK,
    batches_by_length,
    decode,
    encode,
    epoch,
    pad,
    text_files,
    to_ids,
    train_tokenizer,
)

TEXTS = ["the cat is on the mat .", "il gatto è sul tappeto .", "perché no ? un caffè !", "i love you very much"] * 3
few = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 120)


# --- subwords --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*TEXTS[:4], "the gatto , è", "cat"])
def test_text_comes_back_as_it_was(tokenizer, text: str) -> None:
    assert decode(tokenizer, encode(tokenizer, [text])) == [text] or UNK in encode(tokenizer, [text])[0]


@few
@given(words=st.lists(st.text("abcdeghilmnoprstuvè", min_size=1, max_size=8), min_size=1, max_size=6))
def test_any_words_of_known_letters_come_back(words: list[str]) -> None:
    tokenizer, text = train_tokenizer(["a b c d e g h i l m n o p r s t u v è"] * 2, 60), " ".join(words)
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
    [(src, tgt)] = to_ids(tokenizer, [("the cat", "il gatto")])
    assert src[-1] == tgt[-1] == EOS and tgt[0] == BOS and src[0] != BOS


# --- batches ---------------------------------------------------------------------------------------------------------

rows = st.integers(1, 25).map(lambda n: [4] * n)


@few
@given(pairs=st.lists(st.tuples(rows, rows), min_size=1, max_size=60), max_tokens=st.integers(1, 90))
def test_every_pair_is_in_one_batch_within_the_budget(pairs: list, max_tokens: int) -> None:
    groups = batches_by_length(pairs, max_tokens)
    assert sorted(pair for group in groups for pair in group) == sorted(pairs)
    for group in groups:
        assert group
        assert len(group) == 1 or len(group) * max(len(row) for pair in group for row in pair) <= max_tokens


def make_pairs(count: int) -> list[tuple[list[int], list[int]]]:
    draw = random.Random(0)
    return [([i + 4] * draw.randint(1, 12), [BOS, *[i + 4] * draw.randint(1, 12)]) for i in range(count)]


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
    assert contents(epoch(make_pairs(50), 60, 1, skip)) == contents(epoch(make_pairs(50), 60, 1))[skip:]


def test_the_labels_are_the_input_one_step_on() -> None:
    batch = data.collate([([4, 2], [1, 5, 6, 2]), ([4, 4, 2], [1, 7, 2])])
    assert batch.src.tolist() == [[4, 2, 0], [4, 4, 2]]
    assert batch.decoder_input.tolist() == [[1, 5, 6], [1, 7, 2]]
    assert batch.labels.tolist() == [[5, 6, 2], [7, 2, 0]]


def test_padding_fills_up_to_the_longest() -> None:
    assert pad([[4], [5, 6, 7]], 9).tolist() == [[4, 9, 9], [5, 6, 7]]


def test_drawing_an_epoch_leaves_the_global_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    list(epoch(make_pairs(9), 60, seed=1))
    assert torch.get_rng_state().equal(state)


# --- files -----------------------------------------------------------------------------------------------------------


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def test_two_aligned_files_are_a_corpus(tmp_path) -> None:
    src, tgt = (
        write(tmp_path / "a", [f"one {i}" for i in range(40)]),
        write(tmp_path / "b.gz", [f"uno {i}" for i in range(40)]),
    )
    corpus = text_files([str(src), str(tgt)])
    assert len(corpus.train) + len(corpus.val) == 40 and corpus.val
    assert not set(corpus.train) & set(corpus.val)
    assert all(a.split()[1] == b.split()[1] for a, b in corpus.train)


def test_the_vocabulary_is_learned_from_the_training_split_alone() -> None:
    corpus = data.Corpus("x", [("the cat", "il gatto")] * 3, [("zebra", "zebra")] * 9, [("quark", "quark")] * 9)
    assert not {"z", "q", "k"} & set(corpus.tokenizer(60).get_vocab())


def test_files_of_different_length_are_refused(tmp_path) -> None:
    src, tgt = write(tmp_path / "a", ["x", "y", "z"]), write(tmp_path / "b", ["x", "y"])
    with pytest.raises(ValueError, match=r"a has 3 lines and .*b has 2: they must be aligned"):
        text_files([str(src), str(tgt)])


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.txt"):
        text_files([str(tmp_path / "nowhere.txt"), str(tmp_path / "b")])


def test_empty_files_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="hold no pair of sentences"):
        text_files([str(write(tmp_path / "a", ["", " "])), str(write(tmp_path / "b", ["", "x"]))])


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-12], lambda content: b"PK" + content, lambda content: b""]
)
def test_a_damaged_gz_file_is_named(tmp_path, damage) -> None:
    path = write(tmp_path / "a.gz", ["the cat is on the mat"] * 50)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.gz"):
        data.read_pairs(path, path)


def test_text_that_is_not_utf8_is_named(tmp_path) -> None:
    (tmp_path / "a").write_bytes("caffè\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is damaged or not UTF-8"):
        data.read_lines(tmp_path / "a")


def test_a_unicode_line_separator_does_not_shift_the_lines(tmp_path) -> None:
    assert data.read_lines(write(tmp_path / "a", ["one\u2028two", "three"])) == ["one\u2028two", "three"]


# --- Multi30k --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, n in (("train", 5), ("val", 2), ("test_2016_flickr", 3)):
        for language in ("en", "de"):
            write(tmp_path / f"raw/{split}.{language}.gz", [f"{language} {split} {i}" for i in range(n)])
            write(tmp_path / f"tok/{split}.lc.norm.tok.{language}", [f"{language} {split} {i} ." for i in range(n)])
    return tmp_path


def test_multi30k_is_read_from_a_folder(folder, monkeypatch) -> None:
    corpus = data.multi30k("en", "de", folder)
    assert [len(split) for split in (corpus.train, corpus.val, corpus.test)] == [5, 2, 3]
    assert corpus.train[0] == ("en train 0", "de train 0")
    monkeypatch.setenv("MULTI30K", str(folder))
    assert data.multi30k("de", "en").test[2] == ("de test_2016_flickr 2", "en test_2016_flickr 2")
    assert data.multi30k(tokenized=True).train[0] == ("en train 0 .", "de train 0 .")


def test_a_folder_without_the_file_is_named(folder) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no raw/train\.fr\.gz in"):
        data.multi30k("en", "fr", folder)


@pytest.fixture
def upstream(tmp_path, monkeypatch) -> Path:
    """Put a folder in the place of the host that Multi30k is downloaded from."""
    root, cache = tmp_path / "host", tmp_path / "cache"
    pooch = data.downloader()

    def fetch(url: str, output: str, pooch: object) -> None:
        path = root / url.removeprefix(data.MULTI30K)
        if not path.is_file():
            raise OSError("no route to host")
        Path(output).write_bytes(path.read_bytes())

    retrieve = pooch.retrieve
    with_fetch = {
        name: lambda *args, **options: retrieve(*args, **options | {"downloader": fetch}) for name in ("retrieve",)
    }
    monkeypatch.setattr(pooch, "retrieve", with_fetch["retrieve"])
    monkeypatch.setenv("TRANSFORMER_CACHE", str(cache))
    monkeypatch.delenv("MULTI30K", raising=False)
    return root


def test_a_download_with_another_checksum_is_refused_and_not_kept(upstream, tmp_path) -> None:
    write(upstream / "data/task1/raw/train.de.gz", ["not what was promised"])
    with pytest.raises(ValueError, match=r"(?i)hash"):
        data.multi30k_file("raw/train.de.gz")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_host_that_is_gone_is_answered_by_what_to_do(upstream) -> None:
    with pytest.raises(
        OSError, match=r"could not download raw/train\.de\.gz .*--folder or the environment variable MULTI30K"
    ):
        data.multi30k_file("raw/train.de.gz")


def test_a_download_that_is_right_is_kept(upstream, tmp_path, monkeypatch) -> None:
    good = write(upstream / "data/task1/raw/train.de.gz", ["guten Tag"])
    digest, real = hashlib.sha256(good.read_bytes()).hexdigest(), data.downloader().retrieve
    monkeypatch.setattr(
        data.downloader(), "retrieve", lambda url, known, *args, **options: real(url, digest, *args, **options)
    )
    assert data.read_lines(data.multi30k_file("raw/train.de.gz")) == ["guten Tag"]
    good.unlink()
    assert data.multi30k_file("raw/train.de.gz").is_relative_to(tmp_path / "cache"), "and not asked for again"


def test_a_file_that_multi30k_does_not_have_is_named(upstream) -> None:
    with pytest.raises(ValueError, match=r"Multi30k has no raw/train\.it\.gz"):
        data.multi30k_file("raw/train.it.gz")
