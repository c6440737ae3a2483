"""Test corpora that are too large for memory: the same pairs and batches as in memory."""

import gzip
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from several import in_processes, needs_fork

from transformer.corpora import Corpus, english_italian, large_files, text_files
from transformer.corpora.large_files import LargePairs, is_large
from transformer.corpora.tokenised import TokenisedPairs, is_written, write_tokenised
from transformer.data import Batch, batches_by_length, train_tokenizer
from transformer.distributed import shards
from transformer.ranks import Ranks, joined
from transformer.recipes import Preset, fit, read_run
from transformer.recipes.mapped import Feed
from transformer.recipes.usable import usable_pairs
from transformer.training import TrainingConfig, training_batches


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """Keep what is tokenised out of the real cache."""
    monkeypatch.setenv("TRANSFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokenised"


@pytest.fixture
def everything_is_large(monkeypatch) -> None:
    """Let every file be too large for memory."""
    monkeypatch.setattr(large_files, "LARGE", 0)


def write(folder: Path, pairs: list[tuple[str, str]]) -> tuple[Path, Path]:
    """Write two aligned files."""
    paths = (folder / "src", folder / "tgt")
    for path, side in zip(paths, zip(*pairs)):
        path.write_text("".join(f"{line}\n" for line in side), encoding="utf-8")
    return paths


def both(files: tuple[Path, Path], **splits) -> tuple[Corpus, Corpus]:
    """Read the same files into memory, and as large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_files, "LARGE", 10**12)
        small = text_files(files, **splits)
        patch.setattr(large_files, "LARGE", 0)
        large = text_files(files, **splits)
    assert isinstance(large.train, LargePairs) and isinstance(small.train, list)
    return small, large


ODD = [("a b", "c"), ("", "x"), ("a b", "c"), (" a\u00a0b ", "c\r"), ("d", "e"), ("f", " ")]
ODD += [(f"word {i}", f"parola {i}") for i in range(60)]


@pytest.mark.parametrize("with_val", [False, True])
def test_a_large_corpus_has_the_pairs_of_a_small_one(tmp_path, with_val: bool) -> None:
    files = write(tmp_path, ODD)
    small, large = both(files, val=files if with_val else None, test=files)
    assert list(large.train) == small.train
    assert len(large.train) == len(small.train)
    assert (large.val, large.test, large.name) == (small.val, small.test, small.name)
    assert list(large.texts()) == list(small.texts())
    assert large.notes == small.notes
    for i in (0, 1, len(small.train) - 1):
        assert large.where("train", i) == small.where("train", i)
    assert large.where("val", 1) == small.where("val", 1)


def test_gzipped_files_are_read_too(tmp_path) -> None:
    plain = both(write(tmp_path, ODD))[1]
    files = (tmp_path / "src.gz", tmp_path / "tgt.gz")
    for path in files:
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    assert list(both(files)[1].train) == list(plain.train)


def test_files_that_are_not_aligned_are_refused(tmp_path, everything_is_large) -> None:
    src, tgt = write(tmp_path, ODD)
    tgt.write_text("one\ntwo\n")
    with pytest.raises(
        ValueError, match=r"src has 66 lines and .*tgt has 2 lines: they must be aligned"
    ):
        text_files((src, tgt))
    with pytest.raises(
        ValueError, match=r"tgt has 2 lines and .*src has 66 lines: they must be aligned"
    ):
        text_files((tgt, src))


def test_a_vocabulary_is_learned_from_a_sample(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(large_files, "SAMPLE", 10)
    _, large = both(write(tmp_path, ODD))
    sample = list(large.train.sample())
    assert 8 <= len(sample) <= 10
    assert sample == list(large.train)[:: -(-len(large.train) // 10)]


def test_only_large_regular_files_are_large(tmp_path, monkeypatch) -> None:
    files = write(tmp_path, ODD)
    assert not is_large(files)
    monkeypatch.setattr(large_files, "LARGE", 100)
    assert is_large(files)
    assert not is_large((files[0], tmp_path / "nowhere"))


def test_files_are_read_and_tokenised_once(tmp_path, own_cache, everything_is_large) -> None:
    files = write(tmp_path, ODD)
    corpus = text_files(files)
    tokenizer = train_tokenizer(corpus.texts(), 60)
    first, said = usable_pairs(tokenizer, corpus, "train", 12)
    assert said.startswith("2 of ") or said == ""
    written = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.ids")}
    assert len(written) == 2
    again, said_again = usable_pairs(tokenizer, text_files(files), "train", 12)
    assert (list(again), said_again) == (list(first), said)
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.ids")} == written
    usable_pairs(tokenizer, corpus, "train", 7)
    assert len(list(own_cache.rglob("*.ids"))) == 4, "another limit gives other pairs"
    files[0].write_text(files[0].read_text().replace("word", "WORD"))
    usable_pairs(tokenizer, text_files(files), "train", 12)
    assert len(list(own_cache.rglob("*.ids"))) == 6, "and so do other files"


@pytest.mark.parametrize(("vocab_size", "bits"), [(65_536, 16), (65_537, 32)])
def test_ids_take_two_bytes_where_they_fit(tmp_path, vocab_size: int, bits: int) -> None:
    pairs = [([vocab_size - 1, 2], [1, 2]), ([2], [1, 7, 2])]
    write_tokenised(tmp_path / "out", iter(pairs), vocab_size, {"a": "b"})
    found = TokenisedPairs(tmp_path / "out")
    assert list(found) == pairs
    assert found.notes == {"a": "b"}
    assert (tmp_path / "out" / "src.ids").stat().st_size == 3 * bits // 8
    for i in (-1, 2):
        with pytest.raises(IndexError):
            found[i]


def test_what_is_interrupted_leaves_nothing(tmp_path) -> None:
    def broken() -> Iterator:
        yield [2], [1, 2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokenised(tmp_path / "out", broken(), 100)
    with pytest.raises(ValueError, match="there is no pair"):
        write_tokenised(tmp_path / "out", [], 100)
    assert not is_written(tmp_path / "out")
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


# --- batches --------------------------------------------------------------------------------------


def tokenised(pairs: list, folder: Path) -> TokenisedPairs:
    """Return pairs as files."""
    write_tokenised(folder / "pairs", pairs, 600)
    return TokenisedPairs(folder / "pairs")


def random_pairs(count: int) -> list:
    """Return pairs of 1 to 60 ids, some of which are over the limit of a batch."""
    sizes = torch.randint(1, 61, (count, 2)).tolist()
    return [([5] * a, [1] + [6 + i % 9] * b) for i, (a, b) in enumerate(sizes)]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("start", [0, 5, 41])
def test_batches_are_those_of_pairs_in_memory(tmp_path, accumulate: int, start: int) -> None:
    pairs = random_pairs(300)
    config = TrainingConfig(max_tokens=50, accumulate=accumulate, seed=2)
    mapped = Feed(tokenised(pairs, tmp_path), config, Ranks())
    assert mapped.per_epoch == len(batches_by_length(pairs, 50))
    plain = Feed(pairs, config, Ranks())
    assert [mapped.epoch_of(n) for n in range(1, 400)] == [plain.epoch_of(n) for n in range(1, 400)]
    wanted = islice(training_batches(pairs, config, start), 200)
    for found, expected in zip(mapped.steps(start), wanted):
        assert len(found) == len(expected) == accumulate
        for a, b in zip(found, expected, strict=True):
            assert a.src.equal(b.src) and a.tgt.equal(b.tgt)


def without_padding(batch: Batch) -> list[list[int]]:
    """Return the rows of both sides; a shard may have more padding than its rows need."""
    rows = [*batch.src.tolist(), *batch.tgt.tolist()]
    return [[i for i in row if i] for row in rows]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_read_the_rows_that_they_would_be_given(tmp_path, world: int) -> None:
    pairs = random_pairs(100)
    config = TrainingConfig(max_tokens=50, accumulate=2)
    mapped = tokenised(pairs, tmp_path)
    for rank in range(world):
        found = Feed(mapped, config, Ranks(rank, world)).steps(3)
        wanted = shards(training_batches(pairs, config, 3), rank, world)
        for step, expected in islice(zip(found, wanted), 40):
            for a, b in zip(step, expected, strict=True):
                assert without_padding(a) == without_padding(b)
                assert (a.share, a.whole, a.is_last) == (b.share, b.whole, b.is_last)


def test_a_run_is_the_same(tmp_path, capsys) -> None:
    corpora = both(write(tmp_path, ODD))
    sizes = dict(d_model=12, n_heads=3, n_layers=1, d_ff=20, max_len=16)
    preset = Preset(60, TrainingConfig(steps=6, max_tokens=24, validate_every=3), sizes)
    rows = [fit(corpus, tmp_path / f"run{i}", preset) for i, corpus in enumerate(corpora)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1]
    first, second = (tmp_path / f"run{i}" / "model.safetensors" for i in (0, 1))
    assert first.read_bytes() == second.read_bytes()
    assert read_run(tmp_path / "run1" / "checkpoint-00000006.safetensors").corpus
    assert "tokenising" in capsys.readouterr().err


@pytest.mark.slow
def test_fifty_thousand_pairs_stay_on_the_disk(tmp_path, everything_is_large) -> None:
    files = write(tmp_path, english_italian().train[:50_000])
    corpus = text_files(files)
    tokenizer = train_tokenizer(corpus.texts(), 600)
    pairs, _ = usable_pairs(tokenizer, corpus, "train", 64)
    assert isinstance(pairs, TokenisedPairs)
    assert len(pairs) == len(corpus.train) == 49_000
    tracemalloc.start()
    steps = Feed(pairs, TrainingConfig(max_tokens=2048), Ranks()).steps(0)
    rows = sum(len(batch.src) for (batch,) in islice(steps, 60))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows > 5_000
    assert peak < 6e6, "as lists of Python's numbers the pairs would take 30 MB"


@needs_fork
def test_one_process_of_a_machine_tokenises(tmp_path, own_cache) -> None:
    files = write(tmp_path, ODD)

    def work() -> int:
        large_files.LARGE = 0
        with joined():
            corpus = text_files(files)
            pairs, _ = usable_pairs(train_tokenizer(corpus.texts(), 60), corpus, "train", 12)
            return sum(len(src) for src, _ in pairs)

    first, second = in_processes(2, work)
    assert first == second > 0
    assert len(list(own_cache.rglob("*.ids"))) == 2
