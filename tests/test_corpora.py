"""Corpora: text files and Multi30k become pairs of sentences, or are refused with a reason."""

import gzip
import hashlib
import subprocess
import sys
from itertools import pairwise, permutations, product
from pathlib import Path

import pytest

import transformer.corpora
from transformer.corpora import Corpus, multi30k, read_pairs, text_files
from transformer.corpora.multi30k import HOST, TEST_SETS, WITHOUT_CZECH, multi30k_file
from transformer.files import downloader
from transformer.texts import read_lines


def test_a_corpus_yields_both_sides_of_its_training_pairs() -> None:
    corpus = Corpus("x", [("a", "b"), ("c", "d")], [("e", "f")], more={"m": [("g", "h")]})
    assert list(corpus.texts()) == ["a", "b", "c", "d"]
    assert (corpus.test, corpus.lowercase) == ([], False)


def test_the_corpora_are_found_by_name() -> None:
    names = {"Corpus", "english_italian", "multi30k", "read_pairs", "text_files"}
    assert set(transformer.corpora.__all__) == names
    assert all(callable(getattr(transformer.corpora, name)) for name in names)


# --- files -------------------------------------------------------------------------------------


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def test_two_aligned_files_are_a_corpus(tmp_path) -> None:
    src = write(tmp_path / "a", [f"one {i}" for i in range(40)])
    tgt = write(tmp_path / "b.gz", [f"uno {i}" for i in range(40)])
    corpus = text_files([str(src), str(tgt)])
    assert len(corpus.train) + len(corpus.val) == 40 and corpus.val
    assert not set(corpus.train) & set(corpus.val)
    assert all(a.split()[1] == b.split()[1] for a, b in corpus.train)


def test_files_of_different_length_are_refused(tmp_path) -> None:
    src = write(tmp_path / "a", ["x", "y", "z"])
    tgt = write(tmp_path / "b", ["x", "y"])
    with pytest.raises(ValueError, match=r"a has 3 lines and .*b has 2: they must be aligned"):
        text_files([str(src), str(tgt)])


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.txt"):
        text_files([str(tmp_path / "nowhere.txt"), str(tmp_path / "b")])


def test_empty_files_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="hold no pair of sentences"):
        text_files([str(write(tmp_path / "a", ["", " "])), str(write(tmp_path / "b", ["", "x"]))])


def test_a_corpus_knows_the_line_of_each_pair_and_says_what_it_left_out(tmp_path) -> None:
    src = write(tmp_path / "a", ["one", "", "two", "one", "three"])
    tgt = write(tmp_path / "b", ["uno", "due", "due", "uno", "\u00a0"])
    corpus = text_files((src, tgt), val=(src, tgt))
    assert corpus.train == [("one", "uno"), ("two", "due")]
    assert corpus.where("train", 1) == f"line 3 of {src} and {tgt}"
    assert corpus.where("val", 2) == f"line 4 of {src} and {tgt}"
    what = "2 pairs with an empty side are left out; the first is line 2"
    assert corpus.notes == (f"{what} of {src} and {tgt}",)
    assert Corpus("x", [("a", "b")], []).where("train", 0) == "pair 1 of train"


LANGUAGES = ("en", "de", "fr", "cs")


@pytest.mark.parametrize("test", TEST_SETS)
@pytest.mark.parametrize("pair", [*permutations(LANGUAGES, 2)])
def test_every_test_set_of_multi30k_is_reached_by_its_name(tmp_path, test, pair) -> None:
    for split in ("train", "val", test):
        for language in pair:
            write(tmp_path / f"raw/{split}.{language}.gz", [f"{language} {split}"])
    if "cs" in pair and "2017" in test:
        words = f"{test} of Multi30k is not in Czech, only test_2016_flickr, test_2018_flickr"
        with pytest.raises(ValueError, match=words):
            multi30k(*pair, tmp_path, test=test)
    else:
        corpus = multi30k(*pair, tmp_path, test=test)
        assert corpus.test == [tuple(f"{language} {test}" for language in pair)]


def test_the_test_sets_of_multi30k_are_those_that_it_publishes() -> None:
    table = (Path(transformer.corpora.__file__).parent / "multi30k.sha256").read_text()
    for test, language in product(TEST_SETS, LANGUAGES):
        there = f"raw/{test}.{language}.gz" in table
        assert there == (language != "cs" or test not in WITHOUT_CZECH)


def test_a_test_set_that_there_is_not_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"has the test sets test_2016_flickr, .* not 'test_1999'"):
        multi30k("en", "cs", tmp_path, test="test_1999")


def test_a_training_pair_that_occurs_twice_is_kept_once(tmp_path) -> None:
    src = write(tmp_path / "a", ["one", "two", "one", "one"] + [str(i) for i in range(40)])
    tgt = write(tmp_path / "b", ["uno", "due", "uno", "1"] + [str(i) for i in range(40)])
    corpus = text_files((src, tgt), val=(src, tgt))
    assert corpus.train[:3] == [("one", "uno"), ("two", "due"), ("one", "1")]
    assert len(corpus.train) == 43 and len(corpus.val) == 44


def test_validation_pairs_are_one_in_twenty_at_most_1000_spread_evenly(tmp_path) -> None:
    for count, held_out in ((100, 5), (41_000, 1_000)):
        src = write(tmp_path / "a", [f"one {i}" for i in range(count)])
        corpus = text_files((src, src), test=(src, src))
        assert len(corpus.val) == held_out and len(corpus.test) == count
        numbers = [int(en.split()[1]) for en, _ in corpus.val]
        assert len({b - a for a, b in pairwise(numbers)}) == 1


def test_one_pair_is_too_few_to_validate(tmp_path) -> None:
    src = write(tmp_path / "a", ["x"])
    with pytest.raises(ValueError, match="a has 1 pairs: too few to keep one for validation"):
        text_files((src, src))


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-12], lambda content: b"PK" + content, lambda content: b""]
)
def test_a_damaged_gz_file_is_named(tmp_path, damage) -> None:
    path = write(tmp_path / "a.gz", ["the cat is on the mat"] * 50)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.gz"):
        read_pairs(path, path)


def test_text_that_is_not_utf8_is_named(tmp_path) -> None:
    (tmp_path / "a").write_bytes("caffè\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"line 1 of .*a is not UTF-8 text: byte 5 is wrong"):
        read_lines(tmp_path / "a")


def test_a_unicode_line_separator_does_not_shift_the_lines(tmp_path) -> None:
    assert read_lines(write(tmp_path / "a", ["one\u2028two", "three"])) == ["one two", "three"]


# --- Multi30k ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, n in (("train", 5), ("val", 2), ("test_2016_flickr", 3)):
        for language in ("en", "de"):
            write(
                tmp_path / f"raw/{split}.{language}.gz",
                [f"{language} {split} {i}" for i in range(n)],
            )
            write(
                tmp_path / f"tok/{split}.lc.norm.tok.{language}",
                [f"{language} {split} {i} ." for i in range(n)],
            )
    return tmp_path


def test_multi30k_is_read_from_a_folder(folder, monkeypatch) -> None:
    corpus = multi30k("en", "de", folder)
    assert [len(split) for split in (corpus.train, corpus.val, corpus.test)] == [5, 2, 3]
    assert corpus.train[0] == ("en train 0", "de train 0")
    monkeypatch.setenv("MULTI30K", str(folder))
    assert multi30k("de", "en").test[2] == ("de test_2016_flickr 2", "en test_2016_flickr 2")
    assert multi30k(tokenized=True).train[0] == ("en train 0 .", "de train 0 .")


def test_a_folder_without_the_file_is_named(folder) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no raw/train\.fr\.gz in"):
        multi30k("en", "fr", folder)


@pytest.fixture
def upstream(tmp_path, monkeypatch) -> Path:
    """Put a folder in the place of the host that Multi30k is downloaded from."""
    root = tmp_path / "host"
    pooch = downloader()
    retrieve = pooch.retrieve

    def fetch(url: str, output: str, pooch: object) -> None:
        path = root / url.removeprefix(HOST)
        if not path.is_file():
            raise OSError("no route to host")
        Path(output).write_bytes(path.read_bytes())

    def from_folder(*args: object, **options: object) -> str:
        return retrieve(*args, **options | {"downloader": fetch})

    monkeypatch.setattr(pooch, "retrieve", from_folder)
    monkeypatch.setenv("TRANSFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MULTI30K", raising=False)
    return root


def test_a_download_with_another_checksum_is_refused_and_not_kept(upstream, tmp_path) -> None:
    write(upstream / "data/task1/raw/train.de.gz", ["not what was promised"])
    with pytest.raises(ValueError, match=r"(?i)hash"):
        multi30k_file("raw/train.de.gz")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_host_that_is_gone_is_answered_by_what_to_do(upstream) -> None:
    advice = r"could not download raw/train\.de\.gz .*--folder or the environment variable MULTI30K"
    with pytest.raises(OSError, match=advice):
        multi30k_file("raw/train.de.gz")


def test_a_download_that_is_right_is_kept(upstream, tmp_path, monkeypatch) -> None:
    good = write(upstream / "data/task1/raw/train.de.gz", ["guten Tag"])
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    retrieve = downloader().retrieve

    def with_digest(url: str, known: str, *args: object, **options: object) -> str:
        return retrieve(url, digest, *args, **options)

    monkeypatch.setattr(downloader(), "retrieve", with_digest)
    assert read_lines(multi30k_file("raw/train.de.gz")) == ["guten Tag"]
    good.unlink()
    assert multi30k_file("raw/train.de.gz").is_relative_to(tmp_path / "cache"), (
        "and not asked for again"
    )


def test_a_file_that_multi30k_does_not_have_is_named(upstream) -> None:
    with pytest.raises(ValueError, match=r"Multi30k has no raw/train\.it\.gz"):
        multi30k_file("raw/train.it.gz")


def test_every_file_of_multi30k_has_a_known_checksum(upstream) -> None:
    with pytest.raises(ValueError) as caught:
        multi30k_file("?")
    names = str(caught.value).split("its files are ")[1].split(", ")
    for language in ("en", "de", "fr", "cs"):
        for split in ("train", "val", "test_2016_flickr"):
            assert f"raw/{split}.{language}.gz" in names
            assert f"tok/{split}.lc.norm.tok.{language}" in names


def test_corpora_need_files_texts_and_ranks_alone_of_the_package() -> None:
    code = """
import sys, types
package = types.ModuleType("transformer")
package.__path__ = [sys.argv[1]]
sys.modules["transformer"] = package
import transformer.corpora
print(*sorted(name for name in sys.modules if name.startswith("transformer.")))
"""
    folder = Path(transformer.__file__).parent
    found = subprocess.check_output([sys.executable, "-c", code, str(folder)], text=True).split()
    assert {name.split(".")[1] for name in found} == {"corpora", "files", "ranks", "texts"}
